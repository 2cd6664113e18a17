//! `sweep`: run what an experiment file asks for and the store does not have.

use super::output::{complain, print, stderr_colour};
use super::provenance::of_command;
use super::worker::NO_CUDA_HELP;
use super::{CliError, PickArgs, StoreArgs, exit, load_picked, plan, report};
use crate::config::{Grid, GridRun};
use crate::named_enum;
use crate::store::{ResultsStore, SCHEMA, SweepRecord, SweepRun, fault};
use crate::sweep::{Options, Plan, PlannedRun, Progress, ProgressMode, StopReason, StopRequest, WorkerCommand, execute, parse_duration};
use crate::train::{DeviceChoice, needs_cuda};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct SweepArgs {
    /// The experiment file.
    file: PathBuf,
    /// Settings that replace the file's: `train.steps=500`; several values make an axis: `train.lr=1e-3,1e-4`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    pick: PickArgs,
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
    /// Go on from checkpoints that other code made; without it such runs start anew.
    #[arg(long)]
    allow_code_change: bool,
    /// Exit with 0 where runs diverged and none failed.
    #[arg(long)]
    allow_diverged: bool,
    /// Checkpoint and stop after this long: 90s, 30m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_after: Option<Duration>,
    /// auto, bar, plain or json. auto: bars on a terminal, else plain lines.
    #[arg(long, default_value = "auto")]
    progress: ProgressMode,
    /// Draw the report at the end, unless a signal stops the sweep; `--report=live` also while the runs go on, on a page that
    /// loads itself again.
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "end")]
    report: Option<ReportWhen>,
}

named_enum! {
    /// When a sweep draws its report.
    pub enum ReportWhen {
        End = "end",
        Live = "live",
    }
}

/// How often a run that another sweep holds is looked at.
const POLL: Duration = Duration::from_secs(1);

pub fn sweep(args: &SweepArgs) -> Result<i32, CliError> {
    let started = Instant::now();
    fault::arm("sweep").map_err(CliError::Internal)?;
    let grid = load_picked(&args.file, &args.overrides, &args.pick)?;
    if matches!(args.device, DeviceChoice::Cuda(_)) {
        // Before anything is started, and let go again: the workers open it for themselves.
        if !cfg!(feature = "cuda") {
            return Err(CliError::input("this build has no CUDA", "build with `--features cuda`, or use --device cpu"));
        }
        args.device.open().map_err(|e| CliError::input(e, "nvidia-smi lists the devices; --device cpu does without"))?;
    }
    if args.device == DeviceChoice::Cpu || !cfg!(feature = "cuda") {
        let needs = |run: &GridRun| needs_cuda(&run.config.train).map(|setting| (setting, run.cell.clone()));
        if let Some((setting, cell)) = grid.runs.iter().find_map(needs) {
            let place = if cell.is_empty() { String::new() } else { format!(" ({cell})") };
            let reason = if cfg!(feature = "cuda") { "--device is cpu" } else { "this build has no CUDA" };
            return Err(CliError::input(format!("`{setting}`{place} is computed by CUDA only, and {reason}"), NO_CUDA_HELP));
        }
    }
    let store = ResultsStore::open(&args.store.results)?;
    let plan = Plan::new(&store, planned(&grid))?;
    let record = record(&grid);
    if let Ok(before) = store.read_sweep(&record.name)
        && let Some(change) = changed(&before, &record)
    {
        tracing::warn!("{change}");
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
        let bad = counts.failed + if args.allow_diverged { 0 } else { counts.diverged };
        let code = if bad > 0 { exit::SOME_FAILED } else { exit::DONE };
        return Ok(if args.report.is_some() {
            tell_report(args, code, report::page(&store, std::slice::from_ref(&grid.name), None))
        } else {
            code
        });
    }

    if args.progress != ProgressMode::Json {
        complain(&format!("{}\n", plan::preflight(&grid)?));
    }
    let (jobs, share) = share_cores(args.jobs.or(grid.run.jobs), to_run, args.device, &grid)?;
    let threads = args.threads.unwrap_or(share).max(1);
    let program = std::env::current_exe().map_err(|e| CliError::Internal(format!("this program cannot find itself: {e}")))?;
    let typed: Vec<String> = std::env::args().collect();
    let provenance = of_command(&store, typed.clone())?;
    let provenance = serde_json::to_string(&provenance).map_err(|e| CliError::Internal(e.to_string()))?;
    let worker = |dir: &Path| {
        let mut worker_args: Vec<std::ffi::OsString> = vec!["worker".into(), "--run-dir".into(), dir.into()];
        worker_args.extend(["--device".into(), args.device.to_string().into(), "--threads".into(), threads.to_string().into()]);
        worker_args.extend(["--checkpoint-every".into(), grid.run.checkpoint_every.to_string().into()]);
        worker_args.extend(["--provenance".into(), provenance.clone().into()]);
        if args.allow_code_change {
            worker_args.push("--allow-code-change".into());
        }
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
        allow_diverged: args.allow_diverged,
        poll: POLL,
        resume_with: typed.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
    };
    let stop = StopRequest::from_signals().map_err(|e| CliError::Internal(format!("signals cannot be caught: {e}")))?;
    let mut progress = Progress::new(args.progress, std::io::stderr().is_terminal(), Box::new(std::io::stdout()));
    let (outcome, drawn) = match args.report {
        Some(ReportWhen::Live) => {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let drawing = scope.spawn(|| follow_report(&store, &grid.name, &over));
                let outcome = execute(&plan, &worker, &options, &stop, &mut progress);
                over.store(true, Ordering::SeqCst);
                let drawn = drawing.join().unwrap_or_else(|_| Err(CliError::Internal("drawing the report came to a sudden end".into())));
                (outcome, Some(drawn))
            })
        }
        Some(ReportWhen::End) => {
            let outcome = execute(&plan, &worker, &options, &stop, &mut progress);
            // Who interrupts a sweep wants the terminal back.
            let wanted = !matches!(outcome.stop, Some(StopReason::Signal(_)));
            let drawn = wanted.then(|| report::page(&store, std::slice::from_ref(&grid.name), None));
            (outcome, drawn)
        }
        None => (execute(&plan, &worker, &options, &stop, &mut progress), None),
    };
    write_index(&store);
    let code = i32::from(outcome.exit_code());
    Ok(drawn.map_or(code, |drawn| tell_report(args, code, drawn)))
}

/// Draws while the sweep goes on; what the last drawing says.
fn follow_report(store: &ResultsStore, name: &str, over: &AtomicBool) -> Result<String, CliError> {
    let mut said = String::new();
    report::follow_until(store, &[vec![name.to_owned()]], &|| over.load(Ordering::SeqCst), &mut |text| said.push_str(text))?;
    Ok(said)
}

/// Shows what the report says, beside JSON lines on standard error. A report that cannot be drawn is an error where the runs were none.
fn tell_report(args: &SweepArgs, code: i32, drawn: Result<String, CliError>) -> i32 {
    match drawn {
        Ok(said) if args.progress == ProgressMode::Json => complain(&said),
        Ok(said) => print(&said),
        Err(error) => {
            complain(&error.render(stderr_colour()));
            return if code == exit::DONE { error.exit_code() } else { code };
        }
    }
    code
}

/// What a sweep of this name meant before and means now, where runs came or went; their order and spelling are no change.
fn changed(before: &SweepRecord, now: &SweepRecord) -> Option<String> {
    let ids = |record: &SweepRecord| record.runs.iter().map(|run| run.run_id.clone()).collect::<BTreeSet<_>>();
    let (old, new) = (ids(before), ids(now));
    let (gone, come) = (old.difference(&new).count(), new.difference(&old).count());
    let parts = [(come, "came"), (gone, "are no longer in it (they stay in the store)")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    (!parts.is_empty()).then(|| {
        format!("sweep `{}` has changed since it was last run: of {} runs, {}; `name=…` keeps both", now.name, new.len(), parts.join(", "))
    })
}

/// `runs.jsonl` is derived: that it cannot be written is worth a word, and changes no result.
fn write_index(store: &ResultsStore) {
    if let Err(error) = store.write_index() {
        tracing::warn!("{error}");
    }
}

/// The picked runs of a grid, as the store and the workers need them.
pub fn planned(grid: &Grid) -> Vec<PlannedRun> {
    grid.runs
        .par_iter()
        .filter(|run| run.picked)
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

/// The whole grid, whatever part of it is picked: a sweep is what its file says.
fn record(grid: &Grid) -> SweepRecord {
    SweepRecord {
        schema: SCHEMA,
        name: grid.name.clone(),
        title: grid.report.title.clone(),
        description: grid.description.clone(),
        experiment: grid.text.clone(),
        source: grid.source.display().to_string(),
        overrides: grid.overrides.clone(),
        extended: grid.extended.iter().map(|e| (e.path.display().to_string(), e.text.clone())).collect(),
        references: grid.references.clone(),
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
/// runs than cores each takes its share. How many a GPU gets depends on the arithmetic of the largest run's steps.
fn share_cores(asked: Option<usize>, to_run: usize, device: DeviceChoice, grid: &Grid) -> Result<(usize, usize), CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = cfg!(feature = "cuda") && device != DeviceChoice::Cpu && Path::new("/dev/nvidiactl").exists();
    let jobs = match asked {
        Some(jobs) => jobs,
        None if gpu => {
            let mut largest = 0.0_f64;
            for run in &grid.runs {
                largest = largest.max(plan::step_flops(run)?);
            }
            gpu_jobs(largest).min(cores)
        }
        None => cores,
    };
    let jobs = jobs.clamp(1, to_run.max(1));
    Ok((jobs, (cores / jobs).max(1)))
}

/// Runs that share a GPU, each a process. They take turns there, so what they gain is the time in which one starts, writes or
/// draws while another computes: on an H100 16 short runs of a small MLP took 15.0, 10.9, 9.7 and 9.8 s with 1, 2, 4 and 16 at a
/// time, 8 of a small U-Net 43 to 44 s with 1, 2, 4 and 8. Where steps are long, a second run would only take memory.
fn gpu_jobs(flops_per_step: f64) -> usize {
    const SMALL: f64 = 25e9;
    if flops_per_step < SMALL { 4 } else { 1 }
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = !argument.is_empty() && argument.chars().all(|c| c.is_alphanumeric() || "-_=./,:+@%".contains(c));
    if plain { argument.to_owned() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_networks_share_a_gpu_and_large_ones_do_not() {
        // An MLP of 128 × 3 on 128 points; a U-Net of 5 million parameters on 128 images of 28 × 28; one of 35 million at 32 × 32.
        assert_eq!([1e8, 1.5e11, 4e12].map(gpu_jobs), [4, 1, 1]);
    }
}
