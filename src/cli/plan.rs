//! `plan`: what an experiment file expands to, what is done, what the rest costs, and what to know before it runs.

use super::output::{Table, duration, print, short, wrapped};
use super::{CliError, PickArgs, StoreArgs, cells, exit, load_picked, sweep};
use crate::config::{EvalTimesteps, Grid, GridRun};
use crate::diffusion::preflight::Preflight;
use crate::diffusion::{Diffusion, Kernel};
use crate::model::Model;
use crate::store::{ResultsStore, RunState};
use crate::sweep::Plan;
use crate::units;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct PlanArgs {
    /// The experiment file.
    file: PathBuf,
    /// Settings that replace the file's: `train.steps=500`; several values make an axis: `train.lr=1e-3,1e-4`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// For machines: one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a core is taken to compute where no finished run tells: what small U-Nets reach on a core with AVX2.
const ASSUMED_FLOPS: f64 = 40e9;

pub fn plan(args: &PlanArgs) -> Result<i32, CliError> {
    let grid = load_picked(&args.file, &args.overrides, &args.pick)?;
    let runs: Vec<&GridRun> = grid.runs.iter().filter(|run| run.picked).collect();
    let states = states(&grid, if args.store.results.is_dir() { Some(ResultsStore::open(&args.store.results)?) } else { None })?;
    let costs: Vec<Cost> = runs.iter().map(|run| Cost::of(run, &grid)).collect::<Result<_, _>>()?;
    if args.json {
        let runs: Vec<serde_json::Value> = runs
            .iter()
            .zip(&states)
            .zip(&costs)
            .map(|((run, standing), cost)| {
                serde_json::json!({
                    "run_id": run.id, "slug": run.slug, "cell": run.cell, "axes": run.axes, "seed": run.seed, "state": standing.state,
                    "flops": cost.flops, "bytes": cost.bytes,
                })
            })
            .collect();
        let plan = serde_json::json!({"name": grid.name, "arithmetic": grid.arithmetic, "runs": runs, "references": grid.references, "warnings": warnings(&grid)?});
        print(&format!("{plan}\n"));
        return Ok(exit::DONE);
    }
    let mut text = format!("{}\n", grid.name);
    if !grid.description.is_empty() {
        text += &format!("{}\n", grid.description.trim());
    }
    let part = if runs.len() < grid.runs.len() { format!("; picked {}", runs.len()) } else { String::new() };
    text += &format!("\n{}{part}: {}\n\n", grid.arithmetic, counts(states.iter().map(|s| s.state)));
    text += &cells::table(&runs, &states.iter().map(|s| s.state).collect::<Vec<_>>());
    text += &left(&runs, &states, &costs);
    text += &preflight(&grid)?;
    print(&text);
    Ok(exit::DONE)
}

/// Where a run stands.
#[derive(Clone, Copy)]
struct Standing {
    state: RunState,
    /// The share of its steps that a sweep would still run.
    left: f64,
    /// What it took, where it is done.
    core_seconds: Option<f64>,
}

/// The standing of each run.
fn states(grid: &Grid, store: Option<ResultsStore>) -> Result<Vec<Standing>, CliError> {
    let Some(store) = store else {
        return Ok(vec![Standing { state: RunState::Pending, left: 1.0, core_seconds: None }; sweep::planned(grid).len()]);
    };
    Plan::new(&store, sweep::planned(grid))?
        .entries
        .iter()
        .map(|entry| {
            let manifest = if entry.state == RunState::Done { entry.dir.manifest()? } else { None };
            let left = match entry.state {
                RunState::Done | RunState::Diverged | RunState::Failed => 0.0,
                RunState::Pending | RunState::Resumable | RunState::Running => {
                    1.0 - f64::from(entry.step) / f64::from(entry.run.steps.max(1))
                }
            };
            Ok(Standing { state: entry.state, left, core_seconds: manifest.map(|m| m.volatile.seconds * m.provenance.threads as f64) })
        })
        .collect()
}

/// `12 done, 2 resumable, 2 new`.
pub fn counts(states: impl Iterator<Item = RunState>) -> String {
    let mut counts: BTreeMap<RunState, usize> = BTreeMap::new();
    states.for_each(|s| *counts.entry(s).or_default() += 1);
    let word = |state| match state {
        RunState::Pending => "new".to_owned(),
        other => other.to_string(),
    };
    let order = [RunState::Done, RunState::Running, RunState::Resumable, RunState::Diverged, RunState::Failed, RunState::Pending];
    let parts: Vec<String> = order.iter().filter_map(|s| counts.get(s).map(|n| format!("{n} {}", word(*s)))).collect();
    parts.join(", ")
}

/// What a run takes.
struct Cost {
    flops: f64,
    bytes: f64,
}

impl Cost {
    fn of(run: &GridRun, grid: &Grid) -> Result<Self, CliError> {
        let model = model(run)?;
        Ok(Self { flops: flops(run, model.forward_flops() as f64), bytes: cells::bytes(run, model.layout(), &grid.run) })
    }
}

fn model(run: &GridRun) -> Result<Model, CliError> {
    let channels = Diffusion::new(&run.config.diffusion, run.info.shape, run.info.encoding)?.output_channels();
    Ok(Model::new(&run.config.model, run.info.shape, channels)?)
}

/// Floating-point operations of a training step.
pub fn step_flops(run: &GridRun) -> Result<f64, CliError> {
    Ok(3.0 * model(run)?.forward_flops() as f64 * f64::from(run.config.train.batch_size))
}

/// Floating-point operations of a run: training, the evaluations on val, the final one on test, the samples.
fn flops(run: &GridRun, forward: f64) -> f64 {
    let config = &run.config;
    let t = f64::from(config.diffusion.timesteps);
    let evaluations = 1.0 + f64::from(config.train.steps.checked_div(config.eval.every).unwrap_or(0));
    let visited = match config.eval.timesteps {
        EvalTimesteps::All => t,
        EvalTimesteps::Strided(k) => f64::from(k),
    };
    let val = f64::from(config.eval.images.min(run.info.val as u32)) * visited * f64::from(config.eval.draws) * evaluations;
    let test = f64::from(config.eval.test_images.min(run.info.test as u32)) * t * f64::from(config.eval.draws);
    let training = 3.0 * f64::from(config.train.batch_size) * f64::from(config.train.steps);
    forward * (training + val + test + f64::from(config.sample.count) * t)
}

/// How much is left, in operations and, by what finished runs took or by assumption, in time; and the room it takes.
fn left(runs: &[&GridRun], states: &[Standing], costs: &[Cost]) -> String {
    let each = || states.iter().zip(costs);
    let finished =
        each().filter_map(|(s, c)| s.core_seconds.map(|seconds| (seconds, c.flops))).fold((0.0, 0.0), |a, (s, f)| (a.0 + s, a.1 + f));
    let left: f64 = each().map(|(s, c)| s.left * c.flops).sum();
    if left == 0.0 {
        return "\nNothing is left to run.\n".to_owned();
    }
    let (rate, basis) = if finished.0 > 0.0 {
        (finished.1 / finished.0, "at the speed of this sweep's finished runs")
    } else {
        (ASSUMED_FLOPS, "at 40 GFLOP/s a core, a guess until a run has finished")
    };
    let total: f64 = costs.iter().map(|c| c.flops).sum();
    let bytes: f64 = each().map(|(s, c)| s.left * c.bytes).sum();
    let text = format!(
        "Left: {} of {} TFLOP, about {} of one core {basis}; about {} on disk; {} steps of batch {} in the first run.",
        short(left / 1e12),
        short(total / 1e12),
        duration(left / rate),
        units::bytes(bytes.max(1e6)),
        runs[0].config.train.steps,
        runs[0].config.train.batch_size,
    );
    format!("\n{}", wrapped("", &text))
}

/// One line per distinct process of the grid, and warnings in words.
pub fn preflight(grid: &Grid) -> Result<String, CliError> {
    let mut table = Table::new(&["schedule", ">T", "prediction", "variance", ">abar_T", ">L_T", ">L_0 floor", ">says 0", ">at t = T"]);
    let mut shown: Vec<Vec<String>> = Vec::new();
    for (run, p) in processes(grid)? {
        let d = &run.config.diffusion;
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
        let row = vec![
            d.noise().to_string(),
            d.timesteps.to_string(),
            d.prediction.to_string(),
            match d.kernel {
                Kernel::Gaussian => d.variance.to_string(),
                Kernel::Binomial => "–".to_owned(),
            },
            short(p.alpha_bar_last),
            short(p.prior),
            or_dash(p.decoder_floor.map(|f| format!("{f:.3}"))),
            or_dash(p.zero.map(|z| format!("{:.2}", z.bits_per_dim))),
            or_dash(p.zero.map(|z| short(z.last))),
        ];
        if !shown.contains(&row) {
            table.row(row.clone());
            shown.push(row);
        }
    }
    let everywhere = table.take_constant(&["T", "prediction", "variance"]);
    let mut text = "\n".to_owned();
    text += &wrapped(
        "",
        "Before it runs, in bits/dim. L_0 floor: the decoder's cost under an exact mean at this fixed variance. says 0: the bound of a network that puts out 0, as training begins; at t = T: the last step's part of it.",
    );
    if !everywhere.is_empty() {
        text += &wrapped("", &format!("In every row: {}.", everywhere.join(", ")));
    }
    text += &table.render("  ");
    for warning in warnings(grid)? {
        text += &wrapped("  ", &format!("warning: {warning}"));
    }
    Ok(text)
}

/// What a careful reader would object to, once per process.
fn warnings(grid: &Grid) -> Result<Vec<String>, CliError> {
    let mut out: Vec<String> = Vec::new();
    for (run, p) in processes(grid)? {
        let d = &run.config.diffusion;
        let new: Vec<String> = p.warnings(d, run.config.loss.variant, d.clip_x0).into_iter().filter(|w| !out.contains(w)).collect();
        out.extend(new);
    }
    Ok(out)
}

/// The first run of each distinct process, data and loss, with what is known of it beforehand.
fn processes(grid: &Grid) -> Result<Vec<(&GridRun, Preflight)>, CliError> {
    let mut out: Vec<(&GridRun, Preflight)> = Vec::new();
    for run in &grid.runs {
        let same = |other: &GridRun| {
            (&other.config.diffusion, other.info.encoding, other.config.loss.variant)
                == (&run.config.diffusion, run.info.encoding, run.config.loss.variant)
        };
        if !out.iter().any(|(other, _)| same(other)) {
            out.push((run, Preflight::of(&run.config.diffusion, run.info.encoding)?));
        }
    }
    Ok(out)
}
