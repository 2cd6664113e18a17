//! The command line: arguments in, messages and exit codes out. Nothing below this floor reads the environment.
//!
//! Start at [`main`]: parse, dispatch, report.

mod bench;
mod cells;
mod data;
mod diff;
mod doctor;
mod error;
mod evaluate;
mod gc;
mod inspect;
mod mask;
mod migrate;
mod output;
mod plan;
mod posterior;
mod provenance;
mod report;
mod runs;
mod sample;
mod sweep;
mod trained;
mod worker;

pub use error::{CliError, exit};

use crate::store::{ResultsStore, StoreError};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Start here:
  ddpm-lab plan experiments/beta_schedules.toml     what would run, and for how long
  ddpm-lab sweep experiments/beta_schedules.toml    run what is not done
  ddpm-lab report                                   results/reports/<name>/index.html

Exit codes: 0 done, 1 internal error, 2 bad input, 4 nothing matched, 75 stopped by --stop-after, USR1 or USR2,
100 some run failed or diverged (doctor: something is wrong), 128 + N stopped by signal N (130: Ctrl-C).
What was stopped, the same command goes on with.";

/// A research harness for denoising diffusion models: experiment grids in, per-timestep losses and figures out.
#[derive(Parser)]
#[command(name = "ddpm-lab", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Expand an experiment file and show what would run, without running it.
    Plan(plan::PlanArgs),
    /// Run what an experiment file asks for and the store does not have yet.
    Sweep(sweep::SweepArgs),
    /// Draw the comparison of sweeps: figures, tables, one page.
    Report(report::ReportArgs),
    /// List the runs in the store.
    Ls(runs::LsArgs),
    /// Show one run: configuration, state, results, files.
    Show(runs::ShowArgs),
    /// Two runs side by side: the keys in which they differ, the results, and the error of their difference.
    Diff(diff::DiffArgs),
    /// Say what of the store no experiment and no sweep names, and delete it with --yes.
    Gc(gc::GcArgs),
    /// Check every file of the store against its record, and say what a sweep does about what is wrong.
    Doctor(doctor::DoctorArgs),
    /// Bring a store of an older layout up to date.
    Migrate(migrate::MigrateArgs),
    /// Evaluate the bound of a trained run again: any split, any timesteps, with its error, its floor, rate and distortion.
    Evaluate(evaluate::EvaluateArgs),
    /// Draw from a trained run: samples, their way from noise, between latents, there and back.
    Sample(sample::SampleArgs),
    /// Fill in what is hidden of test examples, or take their noise away, under a trained run.
    Posterior(posterior::PosteriorArgs),
    /// Print every coefficient of a noise schedule, one row per timestep.
    Schedule(inspect::ScheduleArgs),
    /// Draw data being noised: a strip of images at chosen timesteps.
    Forward(inspect::ForwardArgs),
    /// Data sets: import, inspect, list.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Time a training step and a prediction of each cell on this machine.
    Bench(bench::BenchArgs),
    /// Train one run in this process; a sweep starts it.
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

/// Where results are kept.
#[derive(clap::Args)]
struct StoreArgs {
    /// The results folder.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
}

impl StoreArgs {
    /// The store, if it is there: a command that only reads makes no folder.
    fn existing(&self) -> Result<ResultsStore, CliError> {
        if !self.results.is_dir() {
            return Err(CliError::NothingMatched {
                message: format!("there are no results in {}", self.results.display()),
                help: Some("run a sweep first, or say where they are with --results DIR".to_owned()),
            });
        }
        Ok(ResultsStore::open(&self.results)?)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            e if e.is_no_match() => Self::NothingMatched { message, help: Some("`ddpm-lab ls` lists the runs".to_owned()) },
            StoreError::Encode { .. } => Self::Internal(message),
            _ => Self::Input { message, help: None },
        }
    }
}

/// Which part of a grid is meant.
#[derive(clap::Args)]
struct PickArgs {
    /// Only runs with these values: `schedule=cosine`, `case=a,b`. Given several times, all must hold.
    #[arg(long, value_name = "AXIS=VALUE")]
    only: Vec<String>,
    /// In place of the file's: `0,1,2`, or `0..5` for 0 to 4.
    #[arg(long, value_name = "SEEDS")]
    seeds: Option<String>,
}

/// Reads and checks an experiment file against the data it names.
fn load_grid(file: &Path, overrides: &[String]) -> Result<crate::config::Grid, CliError> {
    Ok(crate::config::load(file, overrides, &inspect_data)?)
}

/// [`load_grid`] with a part of the runs picked.
fn load_picked(file: &Path, overrides: &[String], pick: &PickArgs) -> Result<crate::config::Grid, CliError> {
    let seeds = pick.seeds.iter().map(|seeds| format!("seeds={seeds}"));
    let overrides: Vec<String> = overrides.iter().cloned().chain(seeds).collect();
    let mut grid = load_grid(file, &overrides)?;
    grid.pick(&pick.only)?;
    Ok(grid)
}

fn inspect_data(spec: &crate::data::DataSpec) -> Result<crate::data::DataInfo, String> {
    crate::data::inspect(spec).map_err(|e| e.to_string())
}

/// Runs a command in a pool of a thread for each core: the libraries' own have one.
fn on_all_cores(command: impl FnOnce() -> Result<i32, CliError> + Send) -> Result<i32, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| CliError::Internal(format!("could not start {threads} threads: {e}")))?;
    pool.install(command)
}

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; a reader that has gone away is neither.
            let _ = error.print();
            return error.exit_code();
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("DDPM_LAB_LOG").unwrap_or_else(|_| "warn".into()))
        .init();
    if matches!(cli.command, Command::Bench(_) | Command::Evaluate(_) | Command::Posterior(_) | Command::Sample(_) | Command::Worker(_)) {
        // SAFETY: the threads of this process are started by the commands below.
        unsafe { crate::train::no_threads_but_ours() };
    }
    let result = match &cli.command {
        Command::Plan(args) => plan::plan(args),
        Command::Sweep(args) => sweep::sweep(args),
        Command::Report(args) => report::report(args),
        Command::Ls(args) => runs::ls(args),
        Command::Show(args) => runs::show(args),
        Command::Diff(args) => diff::diff(args),
        Command::Gc(args) => gc::gc(args),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Migrate(args) => migrate::migrate(args),
        Command::Evaluate(args) => evaluate::evaluate(args),
        Command::Sample(args) => on_all_cores(|| sample::sample(args)),
        Command::Posterior(args) => on_all_cores(|| posterior::posterior(args)),
        Command::Schedule(args) => inspect::schedule(args),
        Command::Forward(args) => inspect::forward(args),
        Command::Data(command) => data::run(command),
        Command::Bench(args) => bench::bench(args),
        Command::Worker(args) => worker::worker(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error.render(output::stderr_colour()));
            error.exit_code()
        }
    }
}
