//! How long a report of a large sweep takes, and in how much memory: a measurement, run by `just bench-report` alone.
//!
//! The store is made up: 100 runs of T = 1000 with 50 evaluations of every t and 50 training windows, 101 000 rows a run.

use ddpm_lab::config::{self, GridRun};
use ddpm_lab::data::{DataSpec, inspect};
use ddpm_lab::record::{Evaluation, LossRow, Split, Weights};
use ddpm_lab::store::{Manifest, Provenance, ResultsStore, RunColumns, SCHEMA, Status, SweepRecord, SweepRun, Volatile, write_losses};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const EXPERIMENT: &str = r#"
name = "large"
description = "How long does the report of a hundred runs take?"
seeds = [0, 1, 2, 3, 4]
[base]
data.name = "digits"
train.steps = 5000
log.every = 100
eval = { every = 100, timesteps = "all" }
[grid]
diffusion.schedule = ["linear", "quadratic", "cosine", "sigmoid"]
train.lr = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3]
"#;
const T: u32 = 1000;
const EVALUATIONS: i64 = 50;
const EXAMPLES: usize = 128;

/// A number in 0..1 that looks like noise.
fn noise(run: usize, step: i64, t: u32) -> f64 {
    let mut x = (run as u64) << 40 ^ (step as u64) << 20 ^ u64::from(t);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 11) as f64 / (1u64 << 53) as f64
}

fn row(run: usize, split: Split, step: i64, t: u32) -> LossRow {
    let scale = (1.0 + 2.0 * (-step as f64 / 800.0).exp()) * (1.0 + 0.1 * noise(run, step, t)) * (1.0 + 0.01 * (run / 5) as f64);
    let x = f64::from(t);
    let mse = scale * (0.02 + 0.9 / (1.0 + 0.05 * x));
    let vb = if t == 0 { 1e-4 } else { scale * 0.4 / (x + 1.0) };
    let training = split == Split::Train;
    LossRow {
        split,
        weights: if training { Weights::Raw } else { Weights::Ema },
        step,
        t,
        t_weight: 1.0,
        n: if training { 1 + t % 4 } else { EXAMPLES as u32 },
        n_nonfinite: 0,
        mse: (t > 0).then_some((mse, 0.1 * mse)),
        x0_mse_mean: (t > 0).then_some(mse / 3.0),
        vb: (vb, 0.1 * vb),
        mse_floor: training.then_some(0.5 * mse),
        vb_floor: training.then_some(0.5 * vb),
        grad_norm_mean: training.then_some(0.3 + 0.01 * noise(run, step, 0)),
    }
}

fn evaluation(run: usize, split: Split, step: i64, rows: &[LossRow]) -> Evaluation {
    let sum = |of: &dyn Fn(&&LossRow) -> bool| rows.iter().filter(of).map(|r| r.vb.0).sum::<f64>();
    let (prior, decoder, kl) = (sum(&|r| r.t == 0), sum(&|r| r.t == 1), sum(&|r| r.t > 1));
    let bits = prior + decoder + kl;
    Evaluation {
        split,
        weights: Weights::Ema,
        step,
        images: EXAMPLES as u32,
        timesteps: T,
        draws: 1,
        bits_per_dim: bits,
        bits_per_dim_se: 0.01,
        prior,
        kl,
        decoder,
        eps_mse: rows.iter().filter_map(|r| r.mse).map(|m| m.0).sum::<f64>() / f64::from(T),
        n_nonfinite: 0,
        timestep_se: None,
        floor: None,
        samples: None,
        by_example: if split == Split::Test { (0..EXAMPLES).map(|i| bits + noise(run, 1, i as u32) - 0.5).collect() } else { Vec::new() },
    }
}

fn write_run(store: &ResultsStore, index: usize, run: &GridRun) {
    let dir = store.run_dir(&run.slug, &run.id.0).unwrap();
    let c = &run.config;
    dir.create(&c.to_toml()).unwrap();
    let steps = i64::from(c.train.steps);
    let (mut rows, mut evaluations) = (Vec::new(), Vec::new());
    for step in (1..=EVALUATIONS).map(|i| i * steps / EVALUATIONS) {
        rows.extend((1..=T).map(|t| row(index, Split::Train, step, t)));
        let from = rows.len();
        rows.extend((0..=T).map(|t| row(index, Split::Val, step, t)));
        evaluations.push(evaluation(index, Split::Val, step, &rows[from..]));
    }
    let from = rows.len();
    rows.extend((0..=T).map(|t| row(index, Split::Test, steps, t)));
    evaluations.push(evaluation(index, Split::Test, steps, &rows[from..]));
    let columns = RunColumns {
        run_id: run.id.0.clone(),
        slug: run.slug.clone(),
        schedule: c.diffusion.schedule.to_string(),
        loss: c.loss.variant.to_string(),
        prediction: "epsilon".into(),
        variance: "fixed_large".into(),
        model: "unet2d".into(),
        data: "digits".into(),
        timesteps: T,
        batch_size: c.train.batch_size,
        lr: c.train.lr,
        seed: run.seed,
    };
    let hash = write_losses(dir.path(), &columns, &rows).unwrap();
    dir.write_evaluations(&evaluations).unwrap();
    let last = |split| evaluations.iter().rev().find(|e| e.split == split).map(Evaluation::summary);
    dir.write_manifest(&Manifest {
        schema: SCHEMA,
        run_id: run.id.0.clone(),
        slug: run.slug.clone(),
        status: Status::Done,
        reason: None,
        step: c.train.steps,
        steps: c.train.steps,
        first_nonfinite_step: None,
        parameters: 160_000,
        evaluations: [Split::Val, Split::Test].into_iter().filter_map(last).collect(),
        files: [("losses.parquet".to_string(), hash)].into(),
        provenance: Provenance { version: "0.1.0".into(), device: "cpu".into(), ..Provenance::default() },
        volatile: Volatile { seconds: 60.0, ..Volatile::default() },
    })
    .unwrap();
}

fn make(root: &Path) {
    let store = ResultsStore::open(root).unwrap();
    let look = |spec: &DataSpec| inspect(spec).map_err(|e| e.to_string());
    let grid = config::from_text(Path::new("large.toml"), EXPERIMENT, &[], &look).unwrap();
    assert_eq!(grid.runs.len(), 100);
    grid.runs.iter().enumerate().for_each(|(i, run)| write_run(&store, i, run));
    let recorded =
        |r: &GridRun| SweepRun { run_id: r.id.0.clone(), slug: r.slug.clone(), cell: r.cell.clone(), axes: r.axes.clone(), seed: r.seed };
    store
        .write_sweep(&SweepRecord {
            schema: SCHEMA,
            name: grid.name.clone(),
            title: String::new(),
            description: grid.description.clone(),
            experiment: EXPERIMENT.into(),
            source: "large.toml".into(),
            overrides: Vec::new(),
            extended: Vec::new(),
            axes: grid.axes.clone(),
            runs: grid.runs.iter().map(recorded).collect(),
            references: Vec::new(),
        })
        .unwrap();
}

fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| if p.is_dir() { size(&p) } else { p.metadata().unwrap().len() }).sum()
}

/// `REPORT_BENCH=DIR` keeps the store there for another time.
#[test]
#[ignore = "a measurement of a minute; `just bench-report` runs it"]
fn the_report_of_a_hundred_runs() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("REPORT_BENCH").map_or_else(|| temporary.path().join("results"), PathBuf::from);
    if !root.join("sweeps/large.json").is_file() {
        make(&root);
    }
    let before = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_ddpm-lab")).args(["report", "large", "--results"]).arg(&root).output().unwrap();
    let seconds = before.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: `usage` is a valid rusage for the kernel to fill. The report is the only child of this process.
    let kilobytes = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage.ru_maxrss
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "100 runs × T = 1000 × 50 evaluations: {seconds:.1} s, peak memory {:.0} MiB; runs {:.0} MiB, report {:.1} MiB",
        kilobytes as f64 / 1024.0,
        mib(size(&root.join("runs"))),
        mib(size(&root.join("reports/large")))
    );
}
