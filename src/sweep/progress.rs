//! Showing a sweep while it goes on: bars for people, lines for logs, JSON for programs.
//!
//! Start at [`Progress::new`]. Nothing here can end a sweep: an output that is closed is not written to again.
//! No colors, so nothing to switch off; bars are drawn on standard error and only where that is a terminal.

use super::lines::{Phase, Totals, WIDTH, fit, log_line, run_line, short, total_line, wrap};
use super::outcome::{Outcome, RunEnd};
use super::plan::{Plan, is_to_run};
use super::stop::StopReason;
use crate::named::NamedEnum;
use crate::named_enum;
use crate::record::Event;
use crate::store::RunState;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

named_enum! {
    /// How a sweep shows its progress.
    pub enum ProgressMode {
        /// Bars on a terminal, lines elsewhere.
        Auto = "auto",
        Bar = "bar",
        Plain = "plain",
        Json = "json",
    }
}

/// Shows one sweep.
pub struct Progress {
    view: View,
    out: Output,
    rows: Vec<Row>,
    totals: Totals,
    began: Instant,
    /// Steps done since `began`, and steps still to do.
    steps_now: u64,
    steps_left: u64,
}

enum View {
    Bars(Bars),
    Plain,
    Json,
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    runs: BTreeMap<usize, ProgressBar>,
}

/// One run of the plan.
struct Row {
    id: String,
    name: String,
    /// The name in little room: values without their keys.
    short_name: String,
    step: u32,
    steps: u32,
    phase: Phase,
    bits: Option<f64>,
    /// Its steps are among `steps_left`.
    counted: bool,
    running: bool,
}

/// A writer that is left alone after its first error.
struct Output {
    to: Box<dyn Write + Send>,
    open: bool,
}

impl Output {
    fn line(&mut self, line: &str) {
        if self.open {
            self.open = writeln!(self.to, "{line}").and_then(|()| self.to.flush()).is_ok();
        }
    }
}

impl Progress {
    /// `terminal`: whether standard error is one. `out` gets the lines, the JSON, and under bars the summary.
    pub fn new(mode: ProgressMode, terminal: bool, out: Box<dyn Write + Send>) -> Self {
        let bars = match mode {
            ProgressMode::Auto => terminal,
            ProgressMode::Bar => true,
            ProgressMode::Plain | ProgressMode::Json => false,
        };
        let view = match mode {
            ProgressMode::Json => View::Json,
            _ if bars => View::Bars(Bars::new(ProgressDrawTarget::stderr_with_hz(8))),
            _ => View::Plain,
        };
        let totals = Totals { seconds_left: f64::NAN, ..Totals::default() };
        let out = Output { to: out, open: true };
        Self { view, out, rows: Vec::new(), totals, began: Instant::now(), steps_now: 0, steps_left: 0 }
    }

    pub(super) fn begin(&mut self, plan: &Plan, jobs: usize, retry_failed: bool) {
        self.began = Instant::now();
        self.totals.runs = plan.entries.len();
        for entry in &plan.entries {
            let ended = !is_to_run(entry.state, retry_failed);
            self.totals.done += (entry.state == RunState::Done) as usize;
            self.totals.diverged += (entry.state == RunState::Diverged) as usize;
            self.totals.failed += (ended && entry.state == RunState::Failed) as usize;
            let row = Row {
                id: entry.run.id.clone(),
                name: entry.run.name(),
                short_name: entry.run.short_name(),
                step: entry.step.min(entry.run.steps),
                steps: entry.run.steps,
                phase: Phase::Starting,
                bits: None,
                counted: !ended,
                running: false,
            };
            self.steps_left += if ended { 0 } else { u64::from(row.steps - row.step) };
            self.rows.push(row);
        }
        let counts = plan.counts();
        match &self.view {
            View::Json => {
                let states = RunState::ALL.iter().map(|state| {
                    let n = plan.entries.iter().filter(|entry| entry.state == *state).count();
                    (state.name().to_string(), json!(n))
                });
                let states: serde_json::Map<String, Value> = states.collect();
                self.out.line(&json!({"event": "sweep_started", "runs": plan.entries.len(), "jobs": jobs, "states": states}).to_string());
            }
            View::Plain | View::Bars(_) => {
                let parts = [
                    (counts.done, "done"),
                    (counts.diverged, "diverged"),
                    (counts.failed, "failed"),
                    (counts.running, "running elsewhere"),
                    (counts.resumable, "to resume"),
                    (counts.pending, "to start"),
                ];
                let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
                self.say(&format!("{} runs: {}; {jobs} at once", plan.entries.len(), parts.join(", ")));
                let damaged = plan.entries.iter().filter_map(|entry| entry.damage.as_ref());
                damaged.for_each(|damage| self.say(&format!("run again: {damage}")));
            }
        }
        self.redraw_total();
    }

    /// A worker was started; it says itself when training begins.
    pub(super) fn launched(&mut self, index: usize) {
        self.rows[index].running = true;
        self.totals.running += 1;
        if let View::Bars(bars) = &mut self.view {
            bars.runs.insert(index, bars.all.insert_before(&bars.total, plain_bar()));
        }
        self.redraw(index);
        self.redraw_total();
    }

    pub(super) fn event(&mut self, index: usize, event: &Event) {
        self.take_note(index, event);
        let row = &self.rows[index];
        match &self.view {
            View::Json => {
                let mut line = json!({"run_id": row.id});
                if let (Value::Object(line), Ok(Value::Object(event))) = (&mut line, serde_json::to_value(event)) {
                    line.extend(event);
                }
                self.out.line(&line.to_string());
            }
            View::Plain | View::Bars(_) => {
                let what = match event {
                    Event::Started { step: 0, steps, device, .. } => Some(format!("started, {steps} steps on {device}")),
                    Event::Started { step, steps, device, .. } => Some(format!("goes on at step {step} of {steps} on {device}")),
                    Event::Evaluated { evaluation: e } => Some(format!(
                        "step {}: {} {} {} ± {} bits/dim",
                        e.step,
                        e.split,
                        e.weights,
                        short(e.bits_per_dim),
                        short(e.bits_per_dim_se)
                    )),
                    Event::Notice { .. } | Event::Progress { .. } | Event::Evaluating { .. } => None,
                    Event::Checkpointed { .. } | Event::Failed { .. } => None,
                };
                // Bars show the rest by themselves; a line for each event would push them off the screen.
                let shown = matches!(self.view, View::Plain);
                if let Some(what) = what.filter(|_| shown) {
                    let line = log_line(index, self.totals.runs, &what, &row.name);
                    self.out.line(&line);
                }
                if let Event::Notice { text } = event {
                    let line = log_line(index, self.totals.runs, "notice", &row.name);
                    self.raw(&line);
                    wrap(text, WIDTH - 4).iter().for_each(|line| self.raw(&format!("    {line}")));
                }
            }
        }
        self.redraw(index);
        self.redraw_total();
    }

    fn take_note(&mut self, index: usize, event: &Event) {
        let row = &mut self.rows[index];
        match event {
            Event::Started { step, .. } => {
                // Where it really begins, which may not be where the plan saw it.
                let step = (*step).min(row.steps);
                self.steps_left = (self.steps_left + u64::from(row.step)).saturating_sub(u64::from(step));
                row.step = step;
                row.phase = Phase::Starting;
            }
            Event::Progress { step, loss, steps_per_second } => {
                row.phase = Phase::Training { loss: *loss, steps_per_second: *steps_per_second };
                self.advance(index, *step);
            }
            Event::Evaluating { done, total } => row.phase = Phase::Evaluating { done: *done, total: *total },
            Event::Evaluated { evaluation } => row.bits = Some(evaluation.bits_per_dim),
            Event::Checkpointed { step } => self.advance(index, *step),
            Event::Notice { .. } | Event::Failed { .. } => {}
        }
        let rate = self.steps_now as f64 / self.began.elapsed().as_secs_f64();
        self.totals.seconds_left = if self.steps_now > 0 { self.steps_left as f64 / rate } else { f64::NAN };
    }

    /// A run has come to `step`, by whatever it was heard: those before it are done.
    fn advance(&mut self, index: usize, step: u32) {
        let row = &mut self.rows[index];
        let step = step.min(row.steps);
        let advance = u64::from(step.saturating_sub(row.step));
        row.step = row.step.max(step);
        self.steps_now += advance;
        self.steps_left = self.steps_left.saturating_sub(advance);
    }

    /// The run turned out to be another process's.
    pub(super) fn passed_over(&mut self, index: usize) {
        self.stopped_running(index);
        match &self.view {
            View::Json => {
                let line = json!({"run_id": self.rows[index].id, "event": "held_elsewhere"});
                self.out.line(&line.to_string());
            }
            View::Plain | View::Bars(_) => {
                let line = log_line(index, self.totals.runs, "is run by another process", &self.rows[index].name);
                self.raw(&line);
            }
        }
        self.redraw_total();
    }

    pub(super) fn ended(&mut self, index: usize, end: &RunEnd) {
        self.stopped_running(index);
        match end {
            RunEnd::Done => self.totals.done += 1,
            RunEnd::Diverged => self.totals.diverged += 1,
            RunEnd::Failed(_) => self.totals.failed += 1,
            RunEnd::Interrupted => self.totals.interrupted += 1,
        }
        let row = &mut self.rows[index];
        if std::mem::take(&mut row.counted) {
            self.steps_left = self.steps_left.saturating_sub(u64::from(row.steps.saturating_sub(row.step)));
        }
        let row = &self.rows[index];
        if matches!(self.view, View::Json) {
            let mut line = json!({"run_id": row.id, "event": "ended", "result": end.name()});
            if let RunEnd::Failed(reason) = end {
                line["reason"] = json!(reason);
            }
            self.out.line(&line.to_string());
            return;
        }
        let what = match (end, row.bits) {
            (RunEnd::Done, Some(bits)) => format!("done, {} bits/dim", short(bits)),
            (RunEnd::Interrupted, _) => format!("interrupted at step {}", row.step),
            _ => end.name().to_string(),
        };
        let line = log_line(index, self.totals.runs, &what, &row.name);
        self.raw(&line);
        if let RunEnd::Failed(reason) = end {
            let mut reason = reason.lines();
            let cause = wrap(reason.next().unwrap_or_default(), WIDTH - 4);
            cause.iter().for_each(|line| self.raw(&format!("    {line}")));
            reason.for_each(|line| self.raw(&format!("    | {}", fit(line, WIDTH - 6))));
        }
        self.redraw_total();
    }

    /// The sweep was asked to stop, with so many workers still writing their checkpoints.
    pub(super) fn stopping(&mut self, reason: StopReason, active: usize) {
        if matches!(self.view, View::Json) {
            self.out.line(&json!({"event": "stopping", "reason": reason.to_string(), "running": active}).to_string());
        } else {
            self.say(&format!("stopping ({reason}): {active} running runs write a checkpoint; a second Ctrl-C ends them at once"));
        }
    }

    pub(super) fn finish(&mut self, outcome: &Outcome, resume_with: &str) {
        if matches!(self.view, View::Json) {
            let line = json!({
                "event": "sweep_ended", "done": outcome.done, "diverged": outcome.diverged, "failed": outcome.failed,
                "interrupted": outcome.interrupted, "not_started": outcome.not_started, "exit_code": outcome.exit_code(),
            });
            return self.out.line(&line.to_string());
        }
        if let View::Bars(bars) = &self.view {
            bars.total.finish_and_clear();
            // What stays on the screen is the worst that can come of it.
            _ = bars.all.clear();
        }
        self.out.line(&outcome.summary());
        for failure in &outcome.failures {
            let cause = failure.reason.lines().next().unwrap_or_default();
            self.out.line(&fit(&format!("failed: {} {}", failure.run_id, failure.name), WIDTH));
            wrap(cause, WIDTH - 4).iter().for_each(|line| self.out.line(&format!("    {line}")));
        }
        if outcome.interrupted + outcome.not_started > 0 {
            // Not cut: it is there to be copied.
            self.out.line(&format!("resume with: {resume_with}"));
        }
    }

    fn stopped_running(&mut self, index: usize) {
        if std::mem::take(&mut self.rows[index].running) {
            self.totals.running -= 1;
        }
        if let View::Bars(bars) = &mut self.view
            && let Some(bar) = bars.runs.remove(&index)
        {
            bar.finish_and_clear();
            bars.all.remove(&bar);
        }
    }

    /// A sentence about the sweep, over as many lines as it needs.
    fn say(&mut self, text: &str) {
        wrap(text, WIDTH).iter().for_each(|line| self.raw(line));
    }

    /// A line of the log; above the bars where there are some.
    fn raw(&mut self, line: &str) {
        match &self.view {
            // A terminal that is gone is no reason to stop.
            View::Bars(bars) => _ = bars.all.println(line),
            View::Plain | View::Json => self.out.line(line),
        }
    }

    fn redraw(&self, index: usize) {
        if let View::Bars(bars) = &self.view
            && let Some(bar) = bars.runs.get(&index)
        {
            let row = &self.rows[index];
            bar.set_message(run_line(&row.short_name, row.step, row.steps, &row.phase));
        }
    }

    fn redraw_total(&self) {
        if let View::Bars(bars) = &self.view {
            bars.total.set_message(total_line(&self.totals));
        }
    }
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let total = all.add(plain_bar());
        Self { all, total, runs: BTreeMap::new() }
    }
}

/// A bar that shows its message only, cut to the terminal; `lines` makes the message.
fn plain_bar() -> ProgressBar {
    // `with_template` fails only for a template that does not parse, and this one does.
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ResultsStore;
    use crate::store::testing::evaluation;
    use crate::sweep::plan::PlannedRun;
    use std::sync::{Arc, Mutex};

    /// An output that can be read while it is written, and closed.
    #[derive(Clone, Default)]
    pub(crate) struct Shared {
        text: Arc<Mutex<Vec<u8>>>,
        closed: bool,
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.closed {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.text.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn plan(root: &std::path::Path) -> Plan {
        let run = |i: usize| PlannedRun {
            id: format!("r{i:012x}"),
            slug: "linear".into(),
            config_toml: String::new(),
            cell: "diffusion.schedule = linear_scaled, loss.variant = hybrid, diffusion.timesteps = 4000".into(),
            axes: vec![],
            seed: i as i64,
            steps: 1000,
        };
        Plan::new(&ResultsStore::open(root).unwrap(), (0..3).map(run).collect()).unwrap()
    }

    /// A whole sweep as the executor reports it.
    fn play(progress: &mut Progress, plan: &Plan) {
        progress.begin(plan, 2, false);
        progress.launched(0);
        progress.launched(1);
        progress.event(0, &Event::Started { step: 0, steps: 1000, parameters: 7, device: "cpu".into() });
        progress.event(1, &Event::Started { step: 400, steps: 1000, parameters: 7, device: "cpu".into() });
        progress.event(0, &Event::Progress { step: 500, loss: 0.03, steps_per_second: 9.0 });
        progress.event(1, &Event::Progress { step: 5000, loss: f64::NAN, steps_per_second: f64::NAN });
        progress.event(0, &Event::Evaluating { done: 120, total: 1000 });
        progress.event(0, &Event::Evaluated { evaluation: evaluation(1000, 3.4) });
        progress.event(0, &Event::Checkpointed { step: 1000 });
        progress.ended(0, &RunEnd::Done);
        progress.ended(1, &RunEnd::Failed(format!("the worker was killed by SIGKILL; its log ends:\n{}\nlast", "x".repeat(200))));
        progress.launched(2);
        progress.passed_over(2);
        progress.stopping(StopReason::Signal(2), 0);
        let failures = vec![crate::sweep::Failure { run_id: "r1".into(), name: "n".repeat(99), reason: "why ".repeat(60) }];
        progress.finish(&Outcome { done: 1, failed: 1, not_started: 1, failures, ..Outcome::default() }, "ddpm-lab sweep x.toml");
    }

    fn shown(mode: ProgressMode) -> String {
        let dir = tempfile::tempdir().unwrap();
        let out = Shared::default();
        play(&mut Progress::new(mode, false, Box::new(out.clone())), &plan(dir.path()));
        String::from_utf8(out.text.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn plain_lines_tell_starts_evaluations_and_ends_in_eighty_columns_without_escapes() {
        let text = shown(ProgressMode::Plain);
        for line in text.lines() {
            assert!(line.chars().count() < 80 && !line.contains('\x1b'), "{line}");
        }
        let has = |what: &str| assert!(text.contains(what), "{what} is not in\n{text}");
        has("3 runs: 3 to start; 2 at once");
        has("[1/3] started, 1000 steps on cpu");
        has("[2/3] goes on at step 400 of 1000");
        has("[1/3] step 1000: test ema 3.4000 ± 0.1250 bits/dim");
        has("[1/3] done, 3.4000 bits/dim");
        has("[2/3] failed");
        has("    | last");
        has("resume with: ddpm-lab sweep x.toml");
    }

    #[test]
    fn auto_is_plain_where_there_is_no_terminal() {
        assert_eq!(shown(ProgressMode::Auto), shown(ProgressMode::Plain));
    }

    #[test]
    fn json_is_one_object_a_line_with_the_run_it_speaks_of() {
        let text = shown(ProgressMode::Json);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events[..4], ["sweep_started", "started", "started", "progress"]);
        assert_eq!(events.last(), Some(&"sweep_ended"));
        assert_eq!(lines[1]["run_id"], "r000000000000");
        let failed = lines.iter().find(|line| line["result"] == "failed").unwrap();
        assert!(failed["reason"].as_str().unwrap().contains("SIGKILL"));
    }

    #[test]
    fn a_closed_output_and_a_missing_terminal_stop_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for mode in ProgressMode::ALL {
            let closed = Shared { closed: true, ..Shared::default() };
            play(&mut Progress::new(*mode, false, Box::new(closed)), &plan(dir.path()));
        }
    }

    #[test]
    fn the_time_left_follows_the_steps_done_and_is_never_negative() {
        let dir = tempfile::tempdir().unwrap();
        let mut progress = Progress::new(ProgressMode::Plain, false, Box::new(std::io::sink()));
        let plan = plan(dir.path());
        progress.begin(&plan, 1, false);
        assert!(progress.totals.seconds_left.is_nan());
        assert_eq!(progress.steps_left, 3000);
        progress.event(0, &Event::Started { step: 400, steps: 1000, parameters: 1, device: "cpu".into() });
        assert_eq!(progress.steps_left, 2600);
        progress.event(0, &Event::Progress { step: 700, loss: 0.1, steps_per_second: 1.0 });
        assert_eq!((progress.steps_now, progress.steps_left), (300, 2300));
        assert!(progress.totals.seconds_left > 0.0);
        progress.event(0, &Event::Checkpointed { step: 800 });
        assert_eq!((progress.steps_now, progress.steps_left), (400, 2200), "a checkpoint tells of steps too");
        progress.ended(0, &RunEnd::Diverged);
        assert_eq!(progress.steps_left, 2000, "a run that ended early has no steps left");
        progress.event(1, &Event::Progress { step: 1, loss: 0.1, steps_per_second: 1.0 });
        progress.event(1, &Event::Progress { step: 0, loss: 0.1, steps_per_second: 1.0 });
        assert_eq!(progress.steps_left, 1999);
        progress.event(1, &Event::Progress { step: 5000, loss: 0.1, steps_per_second: 1.0 });
        assert_eq!((progress.steps_now, progress.steps_left), (1400, 1000), "a run cannot do more steps than it has");
    }
}
