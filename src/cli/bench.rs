//! `bench`: how long a training step and a prediction take on this machine, for each cell of an experiment file.

use super::output::{Table, print, short};
use super::worker::NO_CUDA_HELP;
use super::{CliError, exit, load_grid};
use crate::simd;
use crate::store::{Provenance, RunDir};
use crate::train::{BenchOptions, DeviceChoice, RunOptions, TrainError, bench as measure, instruction_set};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

#[derive(clap::Args)]
pub struct BenchArgs {
    /// The experiment file; of each cell, the first seed is measured.
    file: PathBuf,
    /// Settings that replace the file's.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads. Default: one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Steps that are timed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: u32,
    /// Examples of a prediction. Default: the training batch.
    #[arg(long, value_name = "N")]
    forward: Option<usize>,
    /// For machines: a JSON object for each cell, one to a line.
    #[arg(long)]
    json: bool,
}

pub fn bench(args: &BenchArgs) -> Result<i32, CliError> {
    let grid = load_grid(&args.file, &args.overrides)?;
    let (device, device_name) = args.device.open().map_err(|e| CliError::Input { message: e.to_string(), help: None })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).max(1);
    // A GPU's peak is not measured by a loop of ours.
    let peak = (device_name == "cpu").then(|| simd::peak_flops(threads));
    let mut table = Table::new(&["cell", ">ms/step", ">examples/s", ">GFLOP/s", ">of peak", ">ms/forward", ">of peak", ">MiB"]);
    let mut seen: Vec<&str> = Vec::new();
    let stop = AtomicBool::new(false);
    for run in &grid.runs {
        if seen.contains(&run.cell.as_str()) {
            continue;
        }
        seen.push(&run.cell);
        let config = &run.config;
        // Named as a run's folder is, and never made.
        let folder = format!("bench-{}", run.id);
        let dir = RunDir::at(Path::new(&folder)).ok_or_else(|| CliError::Internal(format!("{folder} does not name a run")))?;
        let options = RunOptions {
            device: &device,
            threads,
            checkpoint_every: u32::MAX,
            keep: false,
            allow_code_change: false,
            stop: &stop,
            provenance: Provenance {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                device: device_name.clone(),
                instruction_set: instruction_set().to_owned(),
                threads,
                ..Provenance::default()
            },
            host: String::new(),
            now: || 0.0,
        };
        let forward_batch = args.forward.unwrap_or(config.train.batch_size as usize);
        reset_peak_memory();
        let timing = measure(config, &dir, options, BenchOptions { steps: args.steps.max(1), forward_batch }).map_err(|e| match e {
            TrainError::Data(_) => CliError::Input { message: e.to_string(), help: None },
            TrainError::Precision { .. } => CliError::input(e.to_string(), NO_CUDA_HELP),
            _ => CliError::Internal(e.to_string()),
        })?;
        let memory = peak_memory();
        let (step, forward) = (median(&timing.step_seconds), median(&timing.forward_seconds));
        let rate = |flops: f64, seconds: Option<f64>| seconds.map(|s| flops / s);
        let (step_rate, forward_rate) = (rate(timing.step_flops, step), rate(timing.forward_flops, forward));
        if args.json {
            let line = serde_json::json!({
                "cell": run.cell, "device": device_name, "instruction_set": instruction_set(), "threads": threads,
                "parameters": timing.parameters, "batch_size": config.train.batch_size, "forward_batch": forward_batch,
                "step_seconds": timing.step_seconds, "forward_seconds": timing.forward_seconds,
                "step_flops": timing.step_flops, "forward_flops": timing.forward_flops,
                "peak_flops": peak, "peak_memory_bytes": memory,
            });
            print(&format!("{line}\n"));
            continue;
        }
        let share = |rate: Option<f64>| match (rate, peak) {
            (Some(rate), Some(peak)) => format!("{:.0} %", 100.0 * rate / peak),
            _ => "–".to_owned(),
        };
        let ms = |seconds: Option<f64>| seconds.map_or("–".to_owned(), |s| short(1e3 * s));
        table.row(vec![
            if run.cell.is_empty() { grid.name.clone() } else { run.cell.clone() },
            ms(step),
            step.map_or("–".to_owned(), |s| format!("{:.0}", f64::from(config.train.batch_size) / s)),
            step_rate.map_or("–".to_owned(), |r| format!("{:.0}", r / 1e9)),
            share(step_rate),
            ms(forward),
            share(forward_rate),
            memory.map_or("–".to_owned(), |bytes| format!("{:.0}", bytes as f64 / f64::from(1 << 20))),
        ]);
    }
    if !args.json {
        let peak = peak.map_or(String::new(), |p| format!("; peak {:.0} GFLOP/s, measured", p / 1e9));
        print(&format!(
            "{device_name}, {}, {threads} thread(s), medians of {} repetitions{peak}\n{}",
            instruction_set(),
            args.steps.max(1),
            table.render("  ")
        ));
    }
    Ok(exit::DONE)
}

fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0)
}

/// Linux counts the largest resident size anew from here; elsewhere it counts from the start of the process.
fn reset_peak_memory() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!("the peak of memory counts from the start of the process: {error}");
    }
}

/// The largest resident size, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| 1024 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (None, Some(2.0), Some(2.5)));
    }
}
