//! One worker process: starting it, listening to it, and saying how it ended.

use super::exit;
use super::outcome::RunEnd;
use super::plan::PlanEntry;
use super::stop::{SIGNALS, signal_name};
use crate::record::Event;
use crate::store::{Manifest, Provenance, SCHEMA, Status, StoreError, Volatile, fs};
use crate::train::ONE_THREAD;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How long a dead worker's last lines are waited for: a process it started may hold its output open.
const LAST_LINES: Duration = Duration::from_secs(2);
/// A call stack is long.
const LOG_TAIL_BYTES: u64 = 1 << 18;
const LOG_TAIL_LINES: usize = 15;
/// The exit code of a Rust program whose main thread panicked.
const PANICKED: i32 = 101;

/// The command that runs one run; the folder is among its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Added to the environment of the worker.
    pub env: Vec<(OsString, OsString)>,
}

/// What a worker said, with the number of its entry in the plan.
pub(super) enum Said {
    Event(usize, Box<Event>),
    /// Its standard output ended.
    Closed(usize),
}

/// A worker that was started and not yet accounted for.
pub(super) struct Worker {
    /// Its entry in the plan.
    pub index: usize,
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    /// Where its lines begin in `log.txt`.
    log_from: u64,
    started: Instant,
    last_step: u32,
    /// The reason of its failure in its own words.
    told: Option<String>,
    output_closed: bool,
    exited: Option<(ExitStatus, Instant)>,
}

/// How a worker's process ended, before the run's record is looked at.
pub(super) enum Verdict {
    /// The run's lock was held by another process.
    Busy,
    Ended(RunEnd),
}

impl Worker {
    /// Starts the worker of `entry`; its events go to `said`.
    ///
    /// # Errors
    /// If its log cannot be opened or the system starts no process; that run has failed.
    pub fn start(index: usize, entry: &PlanEntry, command: &WorkerCommand, said: Sender<Said>) -> Result<Self, String> {
        let log_path = entry.dir.log_path();
        let log_from = fs::length(&log_path).map_err(|e| e.to_string())?;
        let log = fs::open_append(&log_path).map_err(|e| e.to_string())?;
        let mut process = Command::new(&command.program)
            .args(&command.args)
            .envs(ONE_THREAD.map(|name| (name, "1")))
            .envs(command.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", command.program.display()))?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take();
        let listen = move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).split(b'\n')) {
                let Ok(line) = line else { break };
                match serde_json::from_slice(&line) {
                    Ok(event) => _ = said.send(Said::Event(index, Box::new(event))),
                    // Not of the protocol: a library's own words. They belong to the log; if that fails, nothing is lost that counts.
                    Err(_) => _ = fs::append(&log_path, &[line.as_slice(), b"\n"].concat()),
                }
            }
            _ = said.send(Said::Closed(index));
        };
        if let Err(e) = std::thread::Builder::new().name("worker output".into()).spawn(listen) {
            _ = process.kill();
            _ = process.wait();
            return Err(format!("cannot start a thread: {e}"));
        }
        Ok(Self {
            index,
            process,
            stdin,
            log_from,
            started: Instant::now(),
            last_step: entry.step,
            told: None,
            output_closed: false,
            exited: None,
        })
    }

    /// Takes note of what it said.
    pub fn heard(&mut self, event: &Event) {
        match event {
            Event::Started { step, .. } | Event::Progress { step, .. } | Event::Checkpointed { step } => self.last_step = *step,
            Event::Failed { reason } => self.told = Some(reason.clone()),
            Event::Evaluating { .. } | Event::Evaluated { .. } | Event::Notice { .. } => {}
        }
    }

    pub fn output_closed(&mut self) {
        self.output_closed = true;
    }

    /// Asks it to write a checkpoint and end.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Ends it at once and waits for it.
    pub fn kill(&mut self) {
        // It may be gone already; either way it is afterwards.
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// Whether it has ended and everything it said was heard.
    pub fn is_over(&mut self) -> std::io::Result<bool> {
        if self.exited.is_none() {
            self.exited = self.process.try_wait()?.map(|status| (status, Instant::now()));
        }
        Ok(self.exited.is_some_and(|(_, at)| self.output_closed || at.elapsed() > LAST_LINES))
    }

    /// How it ended, by its exit status and its run's record. A failure is recorded in the run's folder.
    pub fn verdict(&self, entry: &PlanEntry) -> Verdict {
        let Some((status, _)) = self.exited else { return Verdict::Ended(RunEnd::Interrupted) };
        if status.code() == Some(exit::BUSY) {
            return Verdict::Busy;
        }
        // The record is the result: a worker that dies after writing it has done its work.
        let record = entry.dir.manifest();
        match &record {
            Ok(Some(manifest)) if manifest.status == Status::Done => return Verdict::Ended(RunEnd::Done),
            Ok(Some(manifest)) if manifest.status == Status::Diverged => return Verdict::Ended(RunEnd::Diverged),
            _ => {}
        }
        // A signal to stop may come before the worker listens for it, or twice, when it leaves with 128 + N.
        let stopped = status.code() == Some(exit::INTERRUPTED)
            || status.signal().or_else(|| status.code().map(|c| c - 128)).is_some_and(|s| SIGNALS.contains(&s));
        if stopped {
            return Verdict::Ended(RunEnd::Interrupted);
        }
        let log = fs::read_tail(&entry.dir.log_path(), self.log_from, LOG_TAIL_BYTES).unwrap_or_else(|e| e.to_string());
        let mut reason = self.told.clone().unwrap_or_else(|| describe(status, &log));
        if let Err(error) = &record {
            reason.push_str(&format!("; {error}"));
        }
        let tail = last_lines(&log, self.told.as_deref());
        if !tail.is_empty() {
            reason.push_str(&format!("; its log ends:\n{tail}"));
        }
        if let Err(error) = record_failure(entry, &reason, self.last_step, self.started.elapsed()) {
            reason.push_str(&format!("\n(and the failure could not be recorded: {error})"));
        }
        Verdict::Ended(RunEnd::Failed(reason))
    }
}

/// The end of a log, without the call stacks that a panic may leave in it and without what is `told` already.
fn last_lines(log: &str, told: Option<&str>) -> String {
    let mut stack = false;
    let worth = |line: &&str| {
        stack = *line == "stack backtrace:" || stack && line.starts_with(' ');
        !stack && !line.trim().is_empty() && told.is_none_or(|told| *line != format!("error: {told}"))
    };
    let lines: Vec<&str> = log.lines().filter(worth).collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only if the sweep itself ends in an error: no worker outlives it unheard.
        if self.exited.is_none() {
            self.kill();
        }
    }
}

/// How the process ended, with the words of the runtime where it left any in the log.
fn describe(status: ExitStatus, log: &str) -> String {
    let said = |words: &str| log.lines().find(|line| line.contains(words));
    if status.signal() == Some(libc::SIGABRT) {
        if let Some(line) = said("memory allocation of") {
            return format!("the worker ran out of memory: {line}");
        }
        if said("has overflowed its stack").is_some() {
            return "the worker's stack overflowed".to_string();
        }
    }
    if status.code() == Some(PANICKED)
        && let Some(message) = log.lines().skip_while(|line| !line.contains(" panicked at ")).nth(1)
    {
        return format!("the worker panicked: {message}");
    }
    match (status.code(), status.signal()) {
        (Some(exit::DONE | exit::DIVERGED), _) => "the worker ended without recording a result".to_string(),
        (Some(code), _) => format!("the worker ended with exit code {code}"),
        (None, Some(libc::SIGKILL)) => "the worker was killed by SIGKILL (by hand, or because memory ran out)".to_string(),
        (None, Some(signal)) => format!("the worker was killed by {}", signal_name(signal)),
        (None, None) => "the worker ended in an unknown way".to_string(),
    }
}

/// Writes the run's record, as its worker could not. Another process that has taken the run meanwhile is left alone.
pub(super) fn record_failure(entry: &PlanEntry, reason: &str, step: u32, spent: Duration) -> Result<(), StoreError> {
    let Some(_lock) = entry.dir.try_lock()? else { return Ok(()) };
    // What an earlier attempt recorded is kept; a record that cannot be read is replaced.
    let earlier = entry.dir.manifest().ok().flatten();
    let fresh = || Manifest {
        schema: SCHEMA,
        run_id: entry.run.id.clone(),
        slug: entry.run.slug.clone(),
        status: Status::Failed,
        reason: None,
        step: 0,
        steps: entry.run.steps,
        first_nonfinite_step: None,
        parameters: 0,
        evaluations: Vec::new(),
        files: Default::default(),
        provenance: Provenance::default(),
        volatile: Volatile::default(),
    };
    let mut manifest = earlier.unwrap_or_else(fresh);
    manifest.status = Status::Failed;
    manifest.reason = Some(reason.to_string());
    manifest.step = step;
    manifest.files.clear();
    manifest.volatile.attempts += 1;
    manifest.volatile.seconds += spent.as_secs_f64();
    entry.dir.write_manifest(&manifest)
}
