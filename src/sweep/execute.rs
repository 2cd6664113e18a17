//! The sweep's one loop: start, listen, account, until nothing is left or it is asked to stop.
//!
//! Any number of sweeps may work on one results folder. A run that another process holds is passed over and looked
//! at again at the end, so each run is done once and every sweep ends with all of them done.

use super::child::{Said, Verdict, Worker, WorkerCommand, record_failure};
use super::outcome::{Failure, Outcome, RunEnd};
use super::plan::{Plan, PlanEntry, inspect, inspect_files, is_to_run};
use super::progress::Progress;
use super::stop::{StopReason, StopRequest};
use crate::store::{RunDir, RunState, StoreError, fs};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How often workers are asked whether they ended.
const TICK: Duration = Duration::from_millis(20);

/// How to run a plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers at once.
    pub jobs: usize,
    pub retry_failed: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    pub stop_after: Option<Duration>,
    /// A diverged run does not count against the sweep.
    pub allow_diverged: bool,
    /// How often a run that another process holds is looked at.
    pub poll: Duration,
    /// What to type to go on, shown when the sweep is interrupted.
    pub resume_with: String,
}

/// Runs what of `plan` has no result, `options.jobs` at once. `worker` gives the command for a run's folder.
///
/// A run that fails is recorded as such and ends nothing but itself.
pub fn execute(
    plan: &Plan,
    worker: &dyn Fn(&Path) -> WorkerCommand,
    options: &Options,
    stop: &StopRequest,
    progress: &mut Progress,
) -> Outcome {
    let (sender, receiver) = channel();
    let mut sweep = Sweep {
        plan,
        worker,
        options,
        progress,
        sender,
        receiver,
        queue: VecDeque::new(),
        elsewhere: Vec::new(),
        active: Vec::new(),
        ends: vec![None; plan.entries.len()],
        outcome: Outcome { allow_diverged: options.allow_diverged, ..Outcome::default() },
        last_poll: None,
    };
    sweep.enqueue();
    sweep.run(stop);
    sweep.finish()
}

struct Sweep<'a> {
    plan: &'a Plan,
    worker: &'a dyn Fn(&Path) -> WorkerCommand,
    options: &'a Options,
    progress: &'a mut Progress,
    sender: Sender<Said>,
    receiver: Receiver<Said>,
    queue: VecDeque<usize>,
    elsewhere: Vec<Elsewhere>,
    active: Vec<Worker>,
    /// How each entry of the plan ended.
    ends: Vec<Option<RunEnd>>,
    outcome: Outcome,
    last_poll: Option<Instant>,
}

/// A run that another process holds.
struct Elsewhere {
    index: usize,
    /// How often it was found free and unfinished in a row; its parent may be about to record a failure.
    found_free: u32,
}

impl Sweep<'_> {
    fn enqueue(&mut self) {
        self.progress.begin(self.plan, self.options.jobs, self.options.retry_failed);
        for (index, entry) in self.plan.entries.iter().enumerate() {
            if is_to_run(entry.state, self.options.retry_failed) {
                self.queue.push_back(index);
            } else {
                self.ends[index] = Some(earlier_end(entry.state, &entry.dir));
            }
        }
    }

    fn run(&mut self, stop: &StopRequest) {
        let deadline = self.options.stop_after.map(|after| Instant::now() + after);
        loop {
            // 1. Asked to stop?
            if stop.insisted() {
                self.outcome.stop = self.outcome.stop.or(stop.requested().map(StopReason::Signal));
                self.active.iter_mut().for_each(Worker::kill);
                for worker in std::mem::take(&mut self.active) {
                    self.ends[worker.index] = Some(RunEnd::Interrupted);
                }
                return;
            }
            if self.outcome.stop.is_none() {
                let failed = || self.ends.iter().zip(&self.plan.entries).any(|(end, entry)| is_new_failure(end, entry, self.options));
                let reason = match stop.requested() {
                    Some(signal) => Some(StopReason::Signal(signal)),
                    None if deadline.is_some_and(|at| Instant::now() >= at) => Some(StopReason::Deadline),
                    None if self.options.fail_fast && failed() => Some(StopReason::FailFast),
                    None => None,
                };
                if let Some(reason) = reason {
                    self.outcome.stop = Some(reason);
                    self.progress.stopping(reason, self.active.len());
                    self.active.iter_mut().for_each(Worker::ask_to_stop);
                }
            }
            // 2. Start what there is room for.
            if self.outcome.stop.is_none() {
                while self.active.len() < self.options.jobs.max(1)
                    && let Some(index) = self.queue.pop_front()
                {
                    self.start(index);
                }
                if self.queue.is_empty() && self.active.len() < self.options.jobs.max(1) {
                    self.look_elsewhere();
                }
            }
            // 3. Nothing left?
            let waits = self.outcome.stop.is_none() && !(self.queue.is_empty() && self.elsewhere.is_empty());
            if self.active.is_empty() && !waits {
                return;
            }
            // 4. Listen, then see who ended.
            self.listen();
            self.reap();
        }
    }

    /// Starts the run, unless it got a result or a holder since the plan was made.
    fn start(&mut self, index: usize) {
        let entry = &self.plan.entries[index];
        match self.prepare(entry) {
            Ok(Ready::Start) => {}
            Ok(Ready::Held) => return self.elsewhere.push(Elsewhere { index, found_free: 0 }),
            Ok(Ready::Ended(end)) => return self.end(index, end),
            Err(error) => return self.fail(index, error.to_string()),
        }
        let command = (self.worker)(entry.dir.path());
        match Worker::start(index, entry, &command, self.sender.clone()) {
            Ok(worker) => {
                self.active.push(worker);
                self.progress.launched(index);
            }
            Err(reason) => self.fail(index, reason),
        }
    }

    fn prepare(&self, entry: &PlanEntry) -> Result<Ready, StoreError> {
        fs::create_dir_all(entry.dir.path())?;
        // Held while the folder is set up; the worker takes it for itself.
        let Some(held) = entry.dir.try_lock()? else { return Ok(Ready::Held) };
        let found = inspect_files(&entry.dir)?;
        if found.damage.is_some() {
            entry.dir.discard_manifest(&held)?;
        }
        // A failure of this plan's own time was seen by whoever ran it; only one that was there before is retried.
        let retry = self.options.retry_failed && entry.state == RunState::Failed;
        match found.state {
            RunState::Done | RunState::Diverged => return Ok(Ready::Ended(earlier_end(found.state, &entry.dir))),
            RunState::Failed if !retry => return Ok(Ready::Ended(earlier_end(found.state, &entry.dir))),
            RunState::Failed => entry.dir.reopen_failed(&held)?,
            RunState::Pending | RunState::Resumable | RunState::Running => {}
        }
        entry.dir.create(&entry.run.config_toml)?;
        Ok(Ready::Start)
    }

    /// Looks at the runs that others hold; those that became free come back to the queue.
    fn look_elsewhere(&mut self) {
        if self.elsewhere.is_empty() || self.last_poll.is_some_and(|at| at.elapsed() < self.options.poll) {
            return;
        }
        self.last_poll = Some(Instant::now());
        for mut run in std::mem::take(&mut self.elsewhere) {
            let entry = &self.plan.entries[run.index];
            match inspect(&entry.dir) {
                Ok(found) => match found.state {
                    RunState::Done | RunState::Diverged | RunState::Failed => self.end(run.index, earlier_end(found.state, &entry.dir)),
                    RunState::Running => self.elsewhere.push(Elsewhere { found_free: 0, ..run }),
                    RunState::Pending | RunState::Resumable => {
                        run.found_free += 1;
                        if run.found_free < 2 { self.elsewhere.push(run) } else { self.queue.push_back(run.index) }
                    }
                },
                Err(error) => self.fail(run.index, error.to_string()),
            }
        }
    }

    fn listen(&mut self) {
        let mut next = self.receiver.recv_timeout(TICK).ok();
        while let Some(said) = next {
            let (Said::Event(index, _) | Said::Closed(index)) = said;
            if let Some(worker) = self.active.iter_mut().find(|worker| worker.index == index) {
                match said {
                    Said::Event(_, event) => {
                        worker.heard(&event);
                        self.progress.event(index, &event);
                    }
                    Said::Closed(_) => worker.output_closed(),
                }
            }
            next = self.receiver.try_recv().ok();
        }
    }

    fn reap(&mut self) {
        let mut still = Vec::new();
        for mut worker in std::mem::take(&mut self.active) {
            match worker.is_over() {
                Ok(false) => still.push(worker),
                Ok(true) => match worker.verdict(&self.plan.entries[worker.index]) {
                    Verdict::Busy => {
                        self.progress.passed_over(worker.index);
                        self.elsewhere.push(Elsewhere { index: worker.index, found_free: 0 });
                    }
                    Verdict::Ended(end) => {
                        self.outcome.finished_now += matches!(end, RunEnd::Done | RunEnd::Diverged) as usize;
                        self.end(worker.index, end);
                    }
                },
                Err(error) => {
                    let index = worker.index;
                    drop(worker);
                    self.fail(index, format!("the worker was lost: {error}"));
                }
            }
        }
        self.active = still;
    }

    /// A run that failed before or without a worker.
    fn fail(&mut self, index: usize, mut reason: String) {
        let entry = &self.plan.entries[index];
        if let Err(error) = record_failure(entry, &reason, entry.step, Duration::ZERO) {
            reason.push_str(&format!("\n(and the failure could not be recorded: {error})"));
        }
        self.end(index, RunEnd::Failed(reason));
    }

    fn end(&mut self, index: usize, end: RunEnd) {
        self.progress.ended(index, &end);
        self.ends[index] = Some(end);
    }

    fn finish(mut self) -> Outcome {
        for (end, entry) in self.ends.iter().zip(&self.plan.entries) {
            match end {
                Some(RunEnd::Done) => self.outcome.done += 1,
                Some(RunEnd::Diverged) => self.outcome.diverged += 1,
                Some(RunEnd::Interrupted) => self.outcome.interrupted += 1,
                None => self.outcome.not_started += 1,
                Some(RunEnd::Failed(reason)) => {
                    self.outcome.failed += 1;
                    let failure = Failure { run_id: entry.run.id.clone(), name: entry.run.name(), reason: reason.clone() };
                    self.outcome.failures.push(failure);
                }
            }
        }
        self.progress.finish(&self.outcome, &self.options.resume_with);
        self.outcome
    }
}

/// What a run needs before its worker can start.
enum Ready {
    Start,
    /// Another process holds it.
    Held,
    Ended(RunEnd),
}

/// How a run ended that has its record already.
fn earlier_end(state: RunState, dir: &RunDir) -> RunEnd {
    match state {
        RunState::Done => RunEnd::Done,
        RunState::Diverged => RunEnd::Diverged,
        _ => {
            let reason = dir.manifest().ok().flatten().and_then(|manifest| manifest.reason);
            RunEnd::Failed(reason.unwrap_or_else(|| "it failed earlier, and its record does not say why".to_string()))
        }
    }
}

/// Whether a run failed in this sweep, rather than before it.
fn is_new_failure(end: &Option<RunEnd>, entry: &PlanEntry, options: &Options) -> bool {
    matches!(end, Some(RunEnd::Failed(_))) && is_to_run(entry.state, options.retry_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::manifest;
    use crate::store::{ResultsStore, Status};
    use crate::sweep::plan::PlannedRun;
    use crate::sweep::progress::ProgressMode;
    use std::path::PathBuf;

    /// A results folder, planned runs, and shell scripts that play the worker.
    struct Bench {
        dir: tempfile::TempDir,
        store: ResultsStore,
    }

    /// What every script starts with: `$1` the run's folder, `$id`, `$M` a scratch folder; `started` leaves a trace,
    /// `finish STATUS` records a result.
    const PRELUDE: &str = r#"
        id=${1##*-}
        started() { echo $id >> "$M/starts"; }
        finish() { cp "$M/$id.$1.json" "$run/run.json"; }
        run=$1
    "#;

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = ResultsStore::open(&dir.path().join("results")).unwrap();
            Self { dir, store }
        }

        fn scratch(&self) -> PathBuf {
            let path = self.dir.path().join("scratch");
            std::fs::create_dir_all(&path).unwrap();
            path
        }

        fn planned(&self, runs: usize) -> Vec<PlannedRun> {
            let run = |i: usize| PlannedRun {
                id: format!("r{i:012x}"),
                slug: "linear".into(),
                config_toml: format!("seed = {i}\n"),
                cell: "schedule = linear".into(),
                axes: vec![],
                seed: i as i64,
                steps: 60,
            };
            (0..runs).map(run).collect()
        }

        fn plan(&self, runs: usize) -> Plan {
            let planned = self.planned(runs);
            for run in &planned {
                let dir = self.store.run_dir(&run.slug, &run.id).unwrap();
                for status in [Status::Done, Status::Diverged] {
                    let json = serde_json::to_vec(&manifest(&dir, status)).unwrap();
                    std::fs::write(self.scratch().join(format!("{}.{status}.json", run.id)), json).unwrap();
                }
            }
            Plan::new(&self.store, planned).unwrap()
        }

        fn worker(&self, script: &str) -> impl Fn(&Path) -> WorkerCommand + use<> {
            let (script, scratch) = (format!("{PRELUDE}\n{script}"), self.scratch());
            move |run: &Path| WorkerCommand {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script.clone().into(), "sh".into(), run.into()],
                env: vec![("M".into(), scratch.clone().into())],
            }
        }

        fn sweep(&self, runs: usize, script: &str, options: &Options, stop: &StopRequest) -> Outcome {
            let mut progress = Progress::new(ProgressMode::Plain, false, Box::new(std::io::sink()));
            execute(&self.plan(runs), &self.worker(script), options, stop, &mut progress)
        }

        /// The ids of the runs that were started, sorted.
        fn starts(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.scratch().join("starts")).unwrap_or_default();
            let mut ids: Vec<String> = text.lines().map(str::to_string).collect();
            ids.sort();
            ids
        }

        fn wait_for_starts(&self, count: usize) {
            let before = Instant::now();
            while self.starts().len() < count {
                assert!(before.elapsed() < Duration::from_secs(20), "only {:?} started", self.starts());
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        fn reason(&self, i: usize) -> String {
            self.run(i).manifest().unwrap().unwrap().reason.unwrap()
        }

        fn run(&self, i: usize) -> RunDir {
            self.store.run_dir("linear", &id(i)).unwrap()
        }
    }

    fn id(i: usize) -> String {
        format!("r{i:012x}")
    }

    fn options(jobs: usize) -> Options {
        Options {
            jobs,
            retry_failed: false,
            fail_fast: false,
            stop_after: None,
            allow_diverged: false,
            poll: Duration::from_millis(30),
            resume_with: "ddpm-lab sweep x.toml".into(),
        }
    }

    #[test]
    fn every_run_is_done_once_and_a_second_sweep_does_nothing() {
        let bench = Bench::new();
        let outcome = bench.sweep(5, "started; finish done", &options(2), &StopRequest::new());
        assert_eq!((outcome.done, outcome.finished_now, outcome.exit_code()), (5, 5, 0));
        assert_eq!(bench.starts(), (0..5).map(id).collect::<Vec<_>>());
        assert_eq!(bench.run(3).config_text().unwrap(), "seed = 3\n");
        let again = bench.sweep(5, "started; finish done", &options(2), &StopRequest::new());
        assert_eq!((again.done, again.finished_now, again.exit_code()), (5, 0, 0));
        assert_eq!(bench.starts().len(), 5);
    }

    #[test]
    fn a_failed_a_killed_and_a_diverged_run_stop_no_other_and_are_told_apart() {
        let bench = Bench::new();
        let script = r#"
            started
            case $id in
                *0) echo "before" >&2; echo "cannot read digits.h5" >&2; exit 1;;
                *1) kill -KILL $$;;
                *2) finish diverged; exit 3;;
                *3) exit 0;;
            esac
            finish done"#;
        let outcome = bench.sweep(6, script, &options(2), &StopRequest::new());
        assert_eq!((outcome.done, outcome.diverged, outcome.failed, outcome.exit_code()), (2, 1, 3, 100));
        assert!(bench.reason(0).contains("exit code 1") && bench.reason(0).ends_with("before\ncannot read digits.h5"));
        assert!(bench.reason(1).contains("SIGKILL"), "{}", bench.reason(1));
        assert!(bench.reason(3).contains("without recording a result"));
        assert_eq!(bench.run(0).state().unwrap(), RunState::Failed);
        let failed: Vec<&str> = outcome.failures.iter().map(|f| f.run_id.as_str()).collect();
        assert_eq!(failed, [id(0), id(1), id(3)]);
    }

    #[test]
    fn a_failure_is_repeated_only_on_request_and_its_log_tail_is_of_the_last_attempt() {
        let bench = Bench::new();
        bench.sweep(1, "started; echo first >&2; exit 9", &options(1), &StopRequest::new());
        let outcome = bench.sweep(1, "started; finish done", &options(1), &StopRequest::new());
        assert_eq!((outcome.failed, outcome.exit_code(), bench.starts().len()), (1, 100, 1));
        let retry = Options { retry_failed: true, ..options(1) };
        bench.sweep(1, "started; echo second >&2; exit 9", &retry, &StopRequest::new());
        assert!(bench.reason(0).ends_with("second") && !bench.reason(0).contains("first"));
        assert_eq!(bench.run(0).manifest().unwrap().unwrap().volatile.attempts, 2);
        let outcome = bench.sweep(1, "started; finish done", &retry, &StopRequest::new());
        assert_eq!((outcome.done, outcome.exit_code()), (1, 0));
    }

    #[test]
    fn three_jobs_are_three_processes_at_once_and_never_four() {
        let bench = Bench::new();
        // Each waits until three are up (for the first three), and notes how many it sees.
        let script = r#"
            started; : > "$M/up-$id"
            i=0
            while [ $(wc -l < "$M/starts") -lt 3 ] && [ $i -lt 500 ]; do sleep 0.02; i=$((i+1)); done
            ls "$M" | grep -c '^up-' >> "$M/seen"
            sleep 0.05; rm "$M/up-$id"; finish done"#;
        let outcome = bench.sweep(7, script, &options(3), &StopRequest::new());
        assert_eq!(outcome.done, 7);
        let seen = std::fs::read_to_string(bench.scratch().join("seen")).unwrap();
        assert_eq!(seen.lines().map(|n| n.parse::<u32>().unwrap()).max(), Some(3));
    }

    #[test]
    fn a_stop_ends_the_workers_input_starts_nothing_more_and_says_how_to_go_on() {
        let bench = Bench::new();
        let stop = StopRequest::new();
        let outcome = std::thread::scope(|s| {
            s.spawn(|| {
                bench.wait_for_starts(2);
                stop.signal(signal_hook::consts::SIGINT);
            });
            bench.sweep(5, "started; cat > /dev/null; echo stopped >&2; exit 75", &options(2), &stop)
        });
        assert_eq!((outcome.interrupted, outcome.not_started, outcome.failed, outcome.exit_code()), (2, 3, 0, 130));
        assert_eq!(std::fs::read_to_string(bench.run(0).log_path()).unwrap(), "stopped\n");
        assert!(bench.run(0).manifest().unwrap().is_none(), "an interrupted run has no failure on record");
        let rest = bench.sweep(5, "started; finish done", &options(2), &StopRequest::new());
        assert_eq!((rest.done, rest.exit_code()), (5, 0));
    }

    #[test]
    fn a_second_signal_kills_workers_that_do_not_listen() {
        let bench = Bench::new();
        let stop = StopRequest::new();
        let before = Instant::now();
        let outcome = std::thread::scope(|s| {
            s.spawn(|| {
                bench.wait_for_starts(1);
                stop.signal(signal_hook::consts::SIGTERM);
                std::thread::sleep(Duration::from_millis(400));
                stop.signal(signal_hook::consts::SIGTERM);
            });
            bench.sweep(2, "echo $$ > $M/pid; started; exec sleep 60", &options(1), &stop)
        });
        assert_eq!((outcome.interrupted, outcome.not_started, outcome.exit_code()), (1, 1, 143));
        assert!(before.elapsed() < Duration::from_secs(30));
        let pid = std::fs::read_to_string(bench.scratch().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "the worker outlived the sweep");
    }

    #[test]
    fn time_over_is_a_polite_stop_that_can_be_resumed() {
        let bench = Bench::new();
        let limited = Options { stop_after: Some(Duration::from_millis(200)), ..options(1) };
        let outcome = bench.sweep(2, "started; cat > /dev/null; exit 75", &limited, &StopRequest::new());
        assert_eq!((outcome.stop, outcome.interrupted, outcome.exit_code()), (Some(StopReason::Deadline), 1, 75));
    }

    #[test]
    fn fail_fast_starts_nothing_after_a_failure_but_earlier_failures_do_not_count() {
        let bench = Bench::new();
        let strict = Options { fail_fast: true, ..options(1) };
        let script = r#"started; case $id in *1) exit 1;; esac; finish done"#;
        let outcome = bench.sweep(4, script, &strict, &StopRequest::new());
        assert_eq!((outcome.done, outcome.failed, outcome.not_started, outcome.exit_code()), (1, 1, 2, 100));
        let outcome = bench.sweep(4, script, &strict, &StopRequest::new());
        assert_eq!((outcome.done, outcome.failed, outcome.not_started), (3, 1, 0));
    }

    #[test]
    fn a_run_held_by_another_is_waited_for_and_not_run_again() {
        let bench = Bench::new();
        let run = bench.run(0);
        run.create("seed = 0\n").unwrap();
        let lock = run.try_lock().unwrap().unwrap();
        let outcome = std::thread::scope(|s| {
            s.spawn(|| {
                bench.wait_for_starts(2);
                std::thread::sleep(Duration::from_millis(150));
                run.write_manifest(&manifest(&run, Status::Done)).unwrap();
                drop(lock);
            });
            bench.sweep(3, "started; finish done", &options(1), &StopRequest::new())
        });
        assert_eq!((outcome.done, outcome.finished_now, outcome.exit_code()), (3, 2, 0));
        assert_eq!(bench.starts(), [id(1), id(2)]);
    }

    #[test]
    fn a_run_whose_holder_dies_without_a_result_is_taken_over() {
        let bench = Bench::new();
        let run = bench.run(0);
        run.create("seed = 0\n").unwrap();
        let lock = run.try_lock().unwrap().unwrap();
        let outcome = std::thread::scope(|s| {
            s.spawn(|| {
                bench.wait_for_starts(1);
                drop(lock);
            });
            bench.sweep(2, "started; finish done", &options(1), &StopRequest::new())
        });
        assert_eq!((outcome.done, outcome.finished_now), (2, 2));
        assert_eq!(bench.starts(), [id(0), id(1)]);
    }

    #[test]
    fn a_worker_that_a_stop_signal_ended_is_interrupted_and_not_failed() {
        for script in ["started; kill -HUP $$", "started; exit 130"] {
            let bench = Bench::new();
            let outcome = bench.sweep(1, script, &options(1), &StopRequest::new());
            assert_eq!((outcome.interrupted, outcome.failed, outcome.exit_code()), (1, 0, 75), "{script}");
        }
    }

    #[test]
    fn a_run_that_got_its_result_since_the_plan_was_made_is_not_run_again() {
        let bench = Bench::new();
        let plan = bench.plan(1);
        bench.run(0).create("seed = 0\n").unwrap();
        bench.run(0).write_manifest(&manifest(&bench.run(0), Status::Done)).unwrap();
        let mut progress = Progress::new(ProgressMode::Plain, false, Box::new(std::io::sink()));
        let outcome = execute(&plan, &bench.worker("started; finish done"), &options(1), &StopRequest::new(), &mut progress);
        assert_eq!((outcome.done, bench.starts().len()), (1, 0));
    }

    #[test]
    fn a_failure_is_not_recorded_of_a_run_that_another_process_has_taken() {
        let bench = Bench::new();
        let entry = bench.plan(1).entries.remove(0);
        entry.dir.create("").unwrap();
        let taken = entry.dir.try_lock().unwrap().unwrap();
        record_failure(&entry, "why", 1, Duration::ZERO).unwrap();
        assert_eq!(entry.dir.manifest().unwrap(), None);
        drop(taken);
        record_failure(&entry, "why", 1, Duration::ZERO).unwrap();
        assert_eq!(bench.reason(0), "why");
    }

    #[test]
    fn two_sweeps_on_one_folder_share_the_work_and_both_end_with_all_of_it() {
        let bench = Bench::new();
        bench.plan(8);
        // As the real worker: take the lock, look whether the run has its result, train.
        let script = r#"
            exec 9>> "$run/lock"; flock -n 9 || exit 76
            [ -e "$run/run.json" ] && exit 0
            started; sleep 0.03; finish done"#;
        let sweep = || bench.sweep(8, script, &options(2), &StopRequest::new());
        let outcomes = std::thread::scope(|s| [s.spawn(sweep), s.spawn(sweep), s.spawn(sweep)].map(|t| t.join().unwrap()));
        assert_eq!(bench.starts(), (0..8).map(id).collect::<Vec<_>>(), "each run was trained once");
        assert!(outcomes.iter().all(|o| (o.done, o.exit_code()) == (8, 0)), "{outcomes:?}");
    }

    #[test]
    fn a_program_that_does_not_start_fails_its_run_with_the_reason() {
        let bench = Bench::new();
        let command = |_: &Path| WorkerCommand { program: "/nonexistent/ddpm-lab".into(), args: vec![], env: vec![] };
        let mut progress = Progress::new(ProgressMode::Plain, false, Box::new(std::io::sink()));
        let outcome = execute(&bench.plan(2), &command, &options(1), &StopRequest::new(), &mut progress);
        assert_eq!((outcome.failed, outcome.exit_code()), (2, 100));
        assert!(bench.reason(0).contains("/nonexistent/ddpm-lab"));
    }

    #[test]
    fn libraries_in_a_worker_get_one_thread_and_their_chatter_goes_to_the_log() {
        let bench = Bench::new();
        let script = r#"
            echo '{"event":"started","step":0,"steps":60,"parameters":3,"device":"cpu"}'
            echo "rayon $RAYON_NUM_THREADS candle $CANDLE_NUM_THREADS polars $POLARS_MAX_THREADS"
            finish done"#;
        assert_eq!(bench.sweep(1, script, &options(1), &StopRequest::new()).done, 1);
        assert_eq!(std::fs::read_to_string(bench.run(0).log_path()).unwrap(), "rayon 1 candle 1 polars 1\n");
    }

    #[test]
    fn the_step_of_a_failure_is_the_last_one_that_was_heard() {
        let bench = Bench::new();
        let script = r#"echo '{"event":"progress","step":42,"loss":null,"steps_per_second":3.5}'; exit 1"#;
        bench.sweep(1, script, &options(1), &StopRequest::new());
        assert_eq!(bench.run(0).manifest().unwrap().unwrap().step, 42);
    }

    #[test]
    fn a_done_run_with_a_damaged_record_is_run_again() {
        let bench = Bench::new();
        bench.sweep(1, "started; finish done", &options(1), &StopRequest::new());
        std::fs::write(bench.run(0).path().join("run.json"), "{").unwrap();
        // A worker that believes the record it finds must find none.
        let outcome = bench.sweep(1, r#"[ -e "$run/run.json" ] && exit 1; started; finish done"#, &options(1), &StopRequest::new());
        assert_eq!((outcome.done, bench.starts().len()), (1, 2));
    }

    #[test]
    fn a_results_folder_that_cannot_be_written_fails_the_run_and_not_the_sweep() {
        let bench = Bench::new();
        // A file where the run's folder should be.
        std::fs::write(bench.store.root().join(format!("runs/linear-{}", id(0))), "").unwrap();
        let outcome = bench.sweep(2, "started; finish done", &options(1), &StopRequest::new());
        assert_eq!((outcome.done, outcome.failed, outcome.exit_code()), (1, 1, 100));
        assert!(outcome.failures[0].reason.contains("os error"), "{}", outcome.failures[0].reason);
    }
}
