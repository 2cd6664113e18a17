//! A made-up sweep for tests: 4 schedules × 2 losses × 3 seeds with T = 100, and the tools to bend it.
//!
//! Start at [`sweep`]. Numbers are smooth formulas plus noise that the runs of a seed share, as real sweeps have it.

use super::history::History;
use super::input::{ForwardExamples, RunData, SweepData};
use crate::data::{AxisOrder, DataSpec, Encoding, Shape};
use crate::diffusion::{Kernel, ScheduleKind, ScheduleSpec};
use crate::named::NamedEnum;
use crate::record::Axis;
use crate::record::{Evaluation, Split, Weights};
use crate::rng::{Purpose, stream};
use crate::store::{LossTable, Manifest, Provenance, RunState, Status, SweepRecord, SweepRun, Volatile};

pub const T: u32 = 100;
pub const STEPS: i64 = 4000;
/// Examples of an evaluation.
pub const EXAMPLES: usize = 256;
const SCHEDULES: [ScheduleKind; 4] = [ScheduleKind::Linear, ScheduleKind::Cosine, ScheduleKind::Quadratic, ScheduleKind::Sigmoid];
const LOSSES: [&str; 2] = ["simple", "vlb"];

#[allow(clippy::too_many_arguments)]
pub fn push(table: &mut LossTable, split: Split, weights: Weights, step: i64, t: u32, n: u32, mse: f64, vb: f64) {
    table.split.push(split);
    table.weights.push(weights);
    table.step.push(step);
    table.t.push(t);
    table.t_weight.push(1.0);
    table.n.push(n);
    table.n_nonfinite.push(0);
    table.mse_mean.push(mse);
    table.mse_m2.push(0.0);
    table.x0_mse_mean.push(mse);
    table.vb_mean.push(vb);
    table.vb_m2.push(0.0);
    table.mse_floor.push(f64::NAN);
    table.vb_floor.push(f64::NAN);
    table.grad_norm_mean.push(f64::NAN);
}

/// A standard normal that depends on all its arguments.
fn normal(seed: i64, sample: u32, lane: u32) -> f64 {
    let mut x = [0.0; 1];
    stream(seed as u64, Purpose::ToyData, 1).lane(lane).normals(sample, &mut x);
    f64::from(x[0])
}

fn term(schedule: usize, loss: usize, seed: i64, t: u32) -> f64 {
    let x = f64::from(t);
    let shared = 1.0 + 0.02 * normal(seed, t, 0);
    let own = 1.0 + 0.002 * normal(seed, t, 1 + (schedule * 2 + loss) as u32);
    let base = match t {
        0 => [2e-4, 3e-6, 4e-4, 1e-3][schedule],
        1 => [1.05, 0.62, 0.74, 0.81][schedule],
        _ => [1.9, 1.5, 1.6, 1.7][schedule] / (x + 3.0) * (1.0 - 0.9 * (x / f64::from(T)).powi(2)),
    };
    let variant = if loss == 0 {
        1.0
    } else if t < 20 {
        0.93
    } else {
        1.06
    };
    base * variant * shared * own
}

fn mse(schedule: usize, loss: usize, seed: i64, t: u32, step: i64) -> f64 {
    let x = f64::from(t);
    let learning = 1.0 + 3.0 * (-(step as f64) / 500.0).exp();
    (0.02 + 0.9 / (1.0 + 0.25 * x))
        * learning
        * [1.0, 0.9, 0.95, 1.05][schedule]
        * [1.0, 1.15][loss]
        * (1.0 + 0.03 * normal(seed, t, 50 + step as u32 / 100))
}

/// Bounds of single examples around `mean`, which they keep: some are easy for every network, and each has its own.
fn by_example(schedule: usize, loss: usize, seed: i64, mean: f64) -> Vec<f64> {
    let own = 200 + (schedule * 2 + loss) as u32 * 10 + seed as u32;
    let x: Vec<f64> = (0..EXAMPLES as u32).map(|i| 0.18 * normal(0, i, 199) + 0.02 * normal(0, i, own)).collect();
    let shift = mean - x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|x| x + shift).collect()
}

fn run(schedule: usize, loss: usize, seed: i64) -> RunData {
    let kind = SCHEDULES[schedule];
    let mut losses = LossTable::default();
    let mut evaluations = Vec::new();
    for step in (100..=STEPS).step_by(100) {
        for t in 1..=T {
            let vb = term(schedule, loss, seed, t) * (1.1 + 2.0 * (-(step as f64) / 500.0).exp());
            push(&mut losses, Split::Train, Weights::Raw, step, t, 4 + t % 3, mse(schedule, loss, seed, t, step), vb);
        }
    }
    let terms: Vec<f64> = (0..=T).map(|t| term(schedule, loss, seed, t)).collect();
    for (t, vb) in terms.iter().enumerate() {
        let e = if t == 0 { f64::NAN } else { mse(schedule, loss, seed, t as u32, STEPS) };
        push(&mut losses, Split::Test, Weights::Ema, STEPS, t as u32, 256, e, *vb);
    }
    let evaluation = |split, step, factor: f64| Evaluation {
        split,
        weights: Weights::Ema,
        step,
        images: EXAMPLES as u32,
        timesteps: T,
        draws: 1,
        bits_per_dim: terms.iter().sum::<f64>() * factor,
        bits_per_dim_se: 0.011,
        prior: terms[0],
        decoder: terms[1] * factor,
        kl: terms[2..].iter().sum::<f64>() * factor,
        eps_mse: (1..=T).map(|t| mse(schedule, loss, seed, t, step)).sum::<f64>() / f64::from(T),
        n_nonfinite: 0,
        timestep_se: None,
        floor: None,
        samples: None,
        by_example: if split == Split::Test { by_example(schedule, loss, seed, terms.iter().sum()) } else { Vec::new() },
    };
    for step in (500..=STEPS).step_by(500) {
        evaluations.push(evaluation(Split::Val, step, 1.02 + 1.5 * (-(step as f64) / 700.0).exp()));
    }
    evaluations.push(evaluation(Split::Test, STEPS, 1.0));
    // What the rows hold beside their means.
    for i in 0..losses.t.len() {
        let n = f64::from(losses.n[i]);
        losses.vb_m2[i] = (n - 1.0) * (0.4 * losses.vb_mean[i]).powi(2);
        if losses.split[i] == Split::Train {
            losses.grad_norm_mean[i] =
                (0.2 + (-(losses.step[i] as f64) / 800.0).exp()) * (1.0 + 0.1 * normal(seed, losses.step[i] as u32, 90));
        }
        if losses.t[i] > 0 {
            let x = f64::from(losses.t[i]) / f64::from(T);
            losses.x0_mse_mean[i] = 0.004 + 0.6 * x * x;
        }
    }
    let history = History::of(&losses, T);
    let run_id = format!("r{:012x}", (schedule * 100 + loss * 10) as i64 + seed);
    let slug = format!("{}-{}-s{seed}", kind.name(), LOSSES[loss]);
    RunData {
        run: SweepRun {
            run_id: run_id.clone(),
            slug: slug.clone(),
            cell: format!("schedule = {}, variant = {}", kind.name(), LOSSES[loss]),
            axes: vec![("diffusion.schedule".into(), kind.name().into()), ("loss.variant".into(), LOSSES[loss].into())],
            seed,
        },
        state: RunState::Done,
        manifest: Some(Manifest {
            schema: 1,
            run_id,
            slug,
            status: Status::Done,
            reason: None,
            step: STEPS as u32,
            steps: STEPS as u32,
            first_nonfinite_step: None,
            parameters: 123_456,
            evaluations: evaluations.clone(),
            files: Default::default(),
            provenance: Provenance {
                version: "0.1.0".into(),
                git_revision: Some("0123456789abcdef".into()),
                git_dirty: Some(false),
                device: "cpu".into(),
                instruction_set: "avx2".into(),
                threads: 2,
                command: vec!["/secret/path/ddpm-lab".into()],
                untracked: vec!["secret-file".into()],
                ..Provenance::default()
            },
            volatile: Volatile { seconds: 61.5 + seed as f64, host: "secret-host".into(), ..Volatile::default() },
        }),
        losses,
        evaluations,
        history,
        config_text: format!("seed = {seed}\n[diffusion]\nschedule = \"{}\"\n", kind.name()),
        samples: Vec::new(),
        reverse: None,
        timesteps: T,
        schedule: kind,
        noise: ScheduleSpec::plain(kind, T),
        kernel: Kernel::Gaussian,
        decoder_floor: Some(0.3),
        data: DataSpec {
            name: "digits".into(),
            path: None,
            dataset: None,
            layout: AxisOrder::Auto,
            flip: false,
            fingerprint: String::new(),
        },
        encoding: Some(Encoding::Discrete { levels: 17 }),
        not_finite: None,
        problem: None,
    }
}

/// Four schedules × two losses × three seeds, all done.
pub fn sweep() -> SweepData {
    let runs: Vec<RunData> = (0..4).flat_map(|s| (0..2).flat_map(move |l| (0..3).map(move |seed| run(s, l, seed)))).collect();
    SweepData {
        record: SweepRecord {
            schema: 1,
            name: "beta_schedules".into(),
            title: String::new(),
            description: "Does a cosine schedule beat a linear one, at which timesteps, and does the loss variant change the answer?"
                .into(),
            experiment: "seeds = [0, 1, 2]\n[grid]\ndiffusion.schedule = [\"linear\", \"cosine\"]\n".into(),
            source: "experiments/beta_schedules.toml".into(),
            overrides: Vec::new(),
            extended: Vec::new(),
            references: Vec::new(),
            axes: vec![
                Axis { key: "diffusion.schedule".into(), values: SCHEDULES.iter().map(|s| s.name().into()).collect() },
                Axis { key: "loss.variant".into(), values: LOSSES.iter().map(|s| (*s).into()).collect() },
            ],
            runs: runs.iter().map(|r| r.run.clone()).collect(),
        },
        compared: Vec::new(),
        runs,
        forward: Ok(pictures()),
        credits: vec!["Digits, by somebody".into()],
    }
}

/// The sweep with a numeric axis in place of the losses.
pub fn numeric_sweep(key: &str, values: &[&str]) -> SweepData {
    let mut data = sweep();
    let mut runs = Vec::new();
    for (i, value) in values.iter().enumerate() {
        for mut r in data.runs.iter().filter(|r| r.run.axes[1].1 == "simple").cloned() {
            r.run.axes[1] = (key.into(), (*value).into());
            r.run.cell = format!("schedule = {}, {key} = {value}", r.run.axes[0].1);
            r.run.run_id = format!("{}{i}", r.run.run_id);
            for e in &mut r.evaluations {
                let shift = 0.3 * (i as f64 - 1.4).powi(2) / values.len() as f64;
                e.bits_per_dim += shift;
                e.kl += shift;
            }
            runs.push(r);
        }
    }
    data.record.axes[1] = Axis { key: key.into(), values: values.iter().map(|v| (*v).into()).collect() };
    data.record.runs = runs.iter().map(|r| r.run.clone()).collect();
    data.runs = runs;
    data
}

/// Three little pictures and their noise.
pub fn pictures() -> ForwardExamples {
    let shape = Shape { height: 8, width: 8, channels: 1 };
    let example = |k: usize| {
        (0..64)
            .map(|i| {
                let (x, y) = ((i % 8) as f32 - 3.5, (i / 8) as f32 - 3.5);
                let on = match k {
                    0 => (x * x + y * y).sqrt() > 1.8 && (x * x + y * y).sqrt() < 3.4,
                    1 => x.abs() < 1.0,
                    _ => (x - y).abs() < 1.2,
                };
                if on { 0.9 } else { -1.0 }
            })
            .collect()
    };
    let noise = |k: u32| {
        let mut x = vec![0.0; 64];
        stream(5, Purpose::Noise, 0).normals(k, &mut x);
        x
    };
    ForwardExamples { shape, examples: (0..3).map(example).collect(), noise: (0..3).map(noise).collect(), redrawn: None }
}

/// A spiral of points and their noise.
pub fn points() -> ForwardExamples {
    let examples = (0..400)
        .map(|i| {
            let a = 1.5 + i as f32 / 400.0 * 9.0;
            vec![0.15 * a * a.cos(), 0.15 * a * a.sin()]
        })
        .collect();
    let noise = (0..400)
        .map(|i| {
            let mut x = vec![0.0; 2];
            stream(5, Purpose::Noise, 0).normals(i, &mut x);
            x
        })
        .collect();
    ForwardExamples { shape: Shape { height: 1, width: 1, channels: 2 }, examples, noise, redrawn: None }
}
