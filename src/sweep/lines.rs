//! The text of progress: pure functions from numbers to lines of at most [`WIDTH`] columns.

use super::duration::format_duration;

/// Lines fit terminals of 80 columns with a column to spare.
pub const WIDTH: usize = 79;

/// `text` in at most `room` columns, the middle replaced by `…`: the end of a name is what tells seeds apart.
pub fn fit(text: &str, room: usize) -> String {
    let chars: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.len() <= room {
        return chars.into_iter().collect();
    }
    let tail = room / 3;
    let head = room.saturating_sub(tail + 1);
    let kept = chars[..head].iter().chain(['…'].iter()).chain(&chars[chars.len() - tail..]);
    kept.take(room).collect()
}

/// `text` broken at spaces into lines of at most `width` columns; a longer word stands alone, cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace().map(|word| fit(word, width)) {
        let line = lines.last_mut().expect("starts with one line");
        if line.is_empty() {
            *line = word;
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

/// A bar of `width` columns.
pub fn bar(done: f64, total: f64, width: usize) -> String {
    let share = if total > 0.0 { (done / total).clamp(0.0, 1.0) } else { 0.0 };
    let full = (share * width as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// Four digits that matter.
pub fn short(x: f64) -> String {
    match x.abs() {
        a if !a.is_finite() => "nan".to_string(),
        0.0 => "0".to_string(),
        1e-3..1e4 => format!("{x:.4}"),
        _ => format!("{x:.2e}"),
    }
}

/// What a run does now.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Phase {
    #[default]
    Starting,
    Training {
        loss: f64,
        steps_per_second: f64,
    },
    Evaluating {
        done: u64,
        total: u64,
    },
}

/// The line of a running run: name, bar, step, loss, speed, time left.
pub fn run_line(name: &str, step: u32, steps: u32, phase: &Phase) -> String {
    let (done, total, text) = match phase {
        Phase::Starting => (step as f64, steps as f64, "starting".to_string()),
        Phase::Evaluating { done, total } => (*done as f64, *total as f64, format!("evaluating {done}/{total}")),
        Phase::Training { loss, steps_per_second: rate } => {
            let left = format_duration(f64::from(steps.saturating_sub(step)) / rate);
            (step as f64, steps as f64, format!("{step}/{steps} loss {} {}/s {left} left", short(*loss), speed(*rate)))
        }
    };
    fit(&format!("{:<22} {} {text}", fit(name, 22), bar(done, total, 8)), WIDTH)
}

fn speed(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// Where a sweep stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    pub runs: usize,
    pub done: usize,
    pub diverged: usize,
    pub failed: usize,
    pub interrupted: usize,
    pub running: usize,
    /// Seconds left; NaN where not known yet.
    pub seconds_left: f64,
}

impl Totals {
    fn ended(&self) -> usize {
        self.done + self.diverged + self.failed + self.interrupted
    }
}

/// The last line of the bars: runs by how they ended, and the time left.
pub fn total_line(totals: &Totals) -> String {
    let mut text = format!("{}/{} done", totals.done, totals.runs);
    for (n, what) in [(totals.diverged, "diverged"), (totals.failed, "failed"), (totals.running, "running")] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    if totals.seconds_left.is_finite() {
        text.push_str(&format!(", {} left", format_duration(totals.seconds_left)));
    }
    fit(&format!("{:<22} {} {text}", "all", bar(totals.ended() as f64, totals.runs as f64, 8)), WIDTH)
}

/// A line of the plain log: which run of how many, what happened, and the run's name in what room is left.
pub fn log_line(index: usize, runs: usize, what: &str, name: &str) -> String {
    let digits = runs.to_string().len();
    let head = format!("[{:>digits$}/{runs}] {what}", index + 1);
    let room = WIDTH.saturating_sub(head.chars().count() + 2);
    if room < 8 { fit(&head, WIDTH) } else { format!("{head}  {}", fit(name, room)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "diffusion.schedule = linear_scaled, loss.variant = hybrid, diffusion.timesteps = 4000, seed 12";

    #[test]
    fn every_line_fits_eighty_columns_whatever_the_numbers() {
        let width = |line: &str| line.chars().count();
        let phases = [
            Phase::Starting,
            Phase::Training { loss: f64::NAN, steps_per_second: 0.0 },
            Phase::Training { loss: -1.2345e300, steps_per_second: 123_456.0 },
            Phase::Training { loss: 0.03124, steps_per_second: f64::NAN },
            Phase::Evaluating { done: u64::MAX, total: 0 },
        ];
        for phase in &phases {
            for (step, steps) in [(0, 0), (7, 20_000), (u32::MAX, 1)] {
                let line = run_line(LONG, step, steps, phase);
                assert!(width(&line) < 80, "{line}");
            }
        }
        let totals = Totals { runs: 99_999, done: 11_111, diverged: 2222, failed: 33_333, interrupted: 0, running: 64, seconds_left: 9e8 };
        assert!(width(&total_line(&totals)) < 80);
        assert!(width(&log_line(9_998, 10_000, "step 2000000: val ema 3.4123 ± 0.0101 bits/dim", LONG)) < 80);
        assert!(width(&log_line(0, 1, LONG, LONG)) < 80);
        assert!(wrap(LONG, 40).iter().all(|line| width(line) <= 40));
    }

    #[test]
    fn a_cut_name_keeps_its_seed() {
        assert_eq!(fit("short", 10), "short");
        let cut = fit(LONG, 30);
        assert!(cut.starts_with("diffusion.schedule") && cut.contains('…') && cut.ends_with("seed 12"), "{cut}");
        assert_eq!(cut.chars().count(), 30);
        assert_eq!(fit("ab\x1b[0m\n", 20), "ab [0m ", "no control character reaches a terminal");
        assert_eq!(fit(LONG, 0), "");
    }

    #[test]
    fn a_training_run_shows_step_loss_speed_and_time_left() {
        let line = run_line("linear, seed 0", 500, 1000, &Phase::Training { loss: 0.0312, steps_per_second: 2.5 });
        assert_eq!(line, "linear, seed 0         ████░░░░ 500/1000 loss 0.0312 2.5/s 3m 20s left");
        let line = run_line("linear, seed 0", 500, 1000, &Phase::Evaluating { done: 120, total: 1000 });
        assert!(line.ends_with("evaluating 120/1000"), "{line}");
    }

    #[test]
    fn the_total_names_only_what_there_is() {
        let totals = Totals { runs: 48, done: 12, running: 3, seconds_left: f64::NAN, ..Totals::default() };
        assert!(total_line(&totals).ends_with("12/48 done, 3 running"));
        let totals = Totals { failed: 1, seconds_left: 3700.0, ..totals };
        assert!(total_line(&totals).ends_with("12/48 done, 1 failed, 3 running, 1h 01m left"));
    }
}
