//! `worker`: one run in one process. The parent holds its standard input open; the end of it, or a signal, means
//! "checkpoint and stop". Events go to standard output as JSON lines, messages to standard error (the run's `log.txt`).

use super::CliError;
use super::provenance::on_device;
use crate::config::RunConfig;
use crate::record::Event;
use crate::store::{Provenance, RunDir, Status, fault};
use crate::sweep::exit as worker_exit;
use crate::sweep::worker::{StopFlag, emit};
use crate::train::{DeviceChoice, Outcome, RunOptions, TrainError, Trainer};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub struct WorkerArgs {
    #[arg(long)]
    run_dir: PathBuf,
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 0)]
    checkpoint_every: u32,
    #[arg(long)]
    keep: bool,
    #[arg(long)]
    allow_code_change: bool,
    /// What the sweep knows of where the numbers come from, as in `run.json`.
    #[arg(long)]
    provenance: Option<String>,
}

/// What to do about a setting that only CUDA computes.
pub const NO_CUDA_HELP: &str = "use a build with CUDA and --device cuda, or leave the setting at \"f32\"";

pub fn worker(args: &WorkerArgs) -> Result<i32, CliError> {
    fault::arm("worker").map_err(CliError::Internal)?;
    train(args).inspect_err(|error| emit(&Event::Failed { reason: error.message() }))
}

fn train(args: &WorkerArgs) -> Result<i32, CliError> {
    let stop = StopFlag::install().map_err(|e| CliError::Internal(format!("signals cannot be caught: {e}")))?;
    let dir = RunDir::at(&args.run_dir).ok_or_else(|| {
        CliError::input(format!("{} is not a run folder", args.run_dir.display()), "a run folder ends in -r and 12 hex digits")
    })?;
    let Some(_lock) = dir.try_lock()? else { return Ok(worker_exit::BUSY) };
    match dir.manifest()?.map(|m| m.status) {
        // Another sweep was faster.
        Some(Status::Done) => return Ok(worker_exit::DONE),
        Some(Status::Diverged) => return Ok(worker_exit::DIVERGED),
        _ => {}
    }
    let config = RunConfig::from_toml(&args.run_dir.join("config.toml"), &dir.config_text()?)?;
    if config.id().to_string() != dir.id() {
        let message = format!("{}/config.toml is the configuration of run {}", dir.path().display(), config.id());
        return Err(CliError::input(message, "a sweep of the experiment file puts the right one in its place"));
    }
    let (device, name) = args.device.open().map_err(|e| CliError::Input { message: e.to_string(), help: None })?;
    let flag = stop.flag();
    let told: Option<Provenance> =
        args.provenance.as_deref().map(serde_json::from_str).transpose().map_err(|e| CliError::Internal(format!("--provenance: {e}")))?;
    let told = told.unwrap_or_default();
    let options = RunOptions {
        device: &device,
        threads: args.threads.max(1),
        checkpoint_every: args.checkpoint_every,
        keep: args.keep,
        allow_code_change: args.allow_code_change,
        stop: &flag,
        provenance: on_device(told, &device, name, args.threads),
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_owned()).unwrap_or_default(),
        now: || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
    };
    let outcome = Trainer::new(&config, &dir, options, |event| emit(&event)).and_then(Trainer::run).map_err(|e| match e {
        TrainError::Data(_) => CliError::Input { message: e.to_string(), help: None },
        TrainError::Precision { .. } => CliError::input(e.to_string(), NO_CUDA_HELP),
        _ => CliError::Internal(e.to_string()),
    })?;
    Ok(match outcome {
        Outcome::Done => worker_exit::DONE,
        Outcome::Interrupted { .. } => worker_exit::INTERRUPTED,
        Outcome::Diverged { .. } => worker_exit::DIVERGED,
    })
}
