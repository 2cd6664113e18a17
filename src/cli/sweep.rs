//! `sweep`: run what an experiment file asks for and the store does not have.

use super::output::{complain, print};
use super::{CliError, StoreArgs, exit, load_grid, plan};
use crate::config::Grid;
use crate::store::{ResultsStore, SCHEMA, SweepRecord, SweepRun};
use crate::sweep::{Options, Plan, PlannedRun, Progress, ProgressMode, StopRequest, WorkerCommand, execute, parse_duration};
use crate::train::DeviceChoice;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct SweepArgs {
    /// The experiment file.
    file: PathBuf,
    /// Settings that replace the file's: `train.steps=500`; several values make an axis: `train.lr=1e-3,1e-4`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Runs at a time. Default: one per core while there are enough runs; fewer runs get several threads each.
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Threads of each run. Default: the cores, shared. Changes no number on a CPU.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Run again what failed before.
    #[arg(long)]
    retry_failed: bool,
    /// Stop at the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// Checkpoint and stop after this long: 90s, 30m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_after: Option<Duration>,
    /// auto, bar, plain or json. auto: bars on a terminal, else plain lines.
    #[arg(long, default_value = "auto")]
    progress: ProgressMode,
}

/// How often a run that another sweep holds is looked at.
const POLL: Duration = Duration::from_secs(1);

pub fn sweep(args: &SweepArgs) -> Result<i32, CliError> {
    let started = Instant::now();
    let grid = load_grid(&args.file, &args.overrides)?;
    if matches!(args.device, DeviceChoice::Cuda(_)) {
        // Before anything is started; whether the device answers, each worker finds out.
        if !cfg!(feature = "cuda") {
            return Err(CliError::input("this build has no CUDA", "build with `--features cuda`, or use --device cpu"));
        }
    }
    let store = ResultsStore::open(&args.store.results)?;
    let plan = Plan::new(&store, planned(&grid))?;
    let record = record(&grid);
    if let Ok(before) = store.read_sweep(&record.name)
        && before.runs != record.runs
    {
        tracing::warn!(
            "sweep `{}` now means these {} runs, not the {} of before; `name=…` keeps both",
            record.name,
            record.runs.len(),
            before.runs.len()
        );
    }
    store.write_sweep(&record)?;

    let to_run = plan.to_run(args.retry_failed).len();
    if to_run == 0 && args.progress != ProgressMode::Json {
        write_index(&store);
        let counts = plan.counts();
        let mut others = String::new();
        for (n, what) in [(counts.diverged, "diverged"), (counts.failed, "failed")] {
            if n > 0 {
                others += &format!(", {n} {what}");
            }
        }
        let hint = if counts.failed > 0 { "; --retry-failed runs the failed ones again" } else { "" };
        print(&format!(
            "{}: nothing to run, {} of {} runs are done{others}{hint} ({:.2} s)\n",
            grid.name,
            counts.done,
            plan.entries.len(),
            started.elapsed().as_secs_f64()
        ));
        return Ok(if counts.failed + counts.diverged > 0 { exit::SOME_FAILED } else { exit::DONE });
    }

    if args.progress != ProgressMode::Json {
        complain(&format!("{}\n", plan::preflight(&grid)?));
    }
    let (jobs, share) = share_cores(args.jobs.or(grid.run.jobs), to_run, args.device);
    let threads = args.threads.unwrap_or(share).max(1);
    let program = std::env::current_exe().map_err(|e| CliError::Internal(format!("this program cannot find itself: {e}")))?;
    let typed: Vec<String> = std::env::args().collect();
    let command = serde_json::to_string(&typed).map_err(|e| CliError::Internal(e.to_string()))?;
    let worker = |dir: &Path| {
        let mut worker_args: Vec<std::ffi::OsString> = vec!["worker".into(), "--run-dir".into(), dir.into()];
        worker_args.extend(["--device".into(), args.device.to_string().into(), "--threads".into(), threads.to_string().into()]);
        worker_args.extend(["--checkpoint-every".into(), grid.run.checkpoint_every.to_string().into()]);
        worker_args.extend(["--command".into(), command.clone().into()]);
        if grid.run.keep {
            worker_args.push("--keep".into());
        }
        WorkerCommand { program: program.clone(), args: worker_args, env: Vec::new() }
    };
    let options = Options {
        jobs,
        retry_failed: args.retry_failed,
        fail_fast: args.fail_fast,
        stop_after: args.stop_after,
        poll: POLL,
        resume_with: typed.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
    };
    let stop = StopRequest::from_signals().map_err(|e| CliError::Internal(format!("signals cannot be caught: {e}")))?;
    let mut progress = Progress::new(args.progress, std::io::stderr().is_terminal(), Box::new(std::io::stdout()));
    let outcome = execute(&plan, &worker, &options, &stop, &mut progress);
    write_index(&store);
    Ok(i32::from(outcome.exit_code()))
}

/// `runs.jsonl` is derived: that it cannot be written is worth a word, and changes no result.
fn write_index(store: &ResultsStore) {
    if let Err(error) = store.write_index() {
        tracing::warn!("{error}");
    }
}

/// The runs of a grid, as the store and the workers need them.
pub fn planned(grid: &Grid) -> Vec<PlannedRun> {
    grid.runs
        .iter()
        .map(|run| PlannedRun {
            id: run.id.0.clone(),
            slug: run.slug.clone(),
            config_toml: run.config.to_toml(),
            cell: run.cell.clone(),
            axes: run.axes.clone(),
            seed: run.seed,
            steps: run.config.train.steps,
        })
        .collect()
}

fn record(grid: &Grid) -> SweepRecord {
    SweepRecord {
        schema: SCHEMA,
        name: grid.name.clone(),
        description: grid.description.clone(),
        experiment: grid.text.clone(),
        source: grid.source.display().to_string(),
        overrides: grid.overrides.clone(),
        axes: grid.axes.clone(),
        runs: grid
            .runs
            .iter()
            .map(|run| SweepRun {
                run_id: run.id.0.clone(),
                slug: run.slug.clone(),
                cell: run.cell.clone(),
                axes: run.axes.clone(),
                seed: run.seed,
            })
            .collect(),
    }
}

/// Runs at a time, and threads of each. One single-threaded run per core is the fastest arrangement on a CPU; with fewer
/// runs than cores each takes its share. A GPU gets two runs, so that one computes while the other prepares.
fn share_cores(asked: Option<usize>, to_run: usize, device: DeviceChoice) -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = cfg!(feature = "cuda") && device != DeviceChoice::Cpu && Path::new("/dev/nvidiactl").exists();
    let jobs = asked.unwrap_or(if gpu { 2 } else { cores }).clamp(1, to_run.max(1));
    (jobs, (cores / jobs).max(1))
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = !argument.is_empty() && argument.chars().all(|c| c.is_alphanumeric() || "-_=./,:+@%".contains(c));
    if plain { argument.to_owned() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}
