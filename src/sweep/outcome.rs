//! How runs and sweeps end, and the exit code that says so.

use super::stop::StopReason;

/// How one run ended in this sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    Done,
    Diverged,
    /// Stopped with a checkpoint, or before its first one.
    Interrupted,
    /// The cause in a line, then the end of the run's log.
    Failed(String),
}

impl RunEnd {
    /// One word for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Diverged => "diverged",
            Self::Interrupted => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

/// A run that failed, now or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub run_id: String,
    /// Cell and seed.
    pub name: String,
    pub reason: String,
}

/// Where every run of the sweep stands at its end, whoever ran it and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: usize,
    pub diverged: usize,
    pub failed: usize,
    pub interrupted: usize,
    /// Neither started nor finished by anyone.
    pub not_started: usize,
    /// Runs that this sweep itself brought to `done` or `diverged`.
    pub finished_now: usize,
    pub failures: Vec<Failure>,
    /// A diverged run is the result that was asked for.
    pub allow_diverged: bool,
    /// Why the sweep ended early, if it did.
    pub stop: Option<StopReason>,
}

impl Outcome {
    /// 0 all done; 100 some failed or diverged; 75 or 128 + N where something is left to go on with.
    pub fn exit_code(&self) -> u8 {
        let left = self.interrupted + self.not_started > 0;
        match self.stop {
            Some(stop) if left => stop.exit_code(),
            _ if self.failed > 0 || (self.diverged > 0 && !self.allow_diverged) => 100,
            _ if left => 75,
            _ => 0,
        }
    }

    /// `12 done, 1 failed`: what there is none of is left out.
    pub fn summary(&self) -> String {
        let counts = [
            (self.done, "done"),
            (self.diverged, "diverged"),
            (self.failed, "failed"),
            (self.interrupted, "interrupted"),
            (self.not_started, "not started"),
        ];
        let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if parts.is_empty() { "nothing to run".to_string() } else { parts.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_what_is_left() {
        let done = Outcome { done: 3, ..Outcome::default() };
        let stop = Some(StopReason::Signal(2));
        assert_eq!(done.exit_code(), 0);
        assert_eq!(Outcome { stop, ..done.clone() }.exit_code(), 0, "a stop that came after the last run left nothing");
        assert_eq!(Outcome { diverged: 1, ..done.clone() }.exit_code(), 100);
        assert_eq!(Outcome { diverged: 1, allow_diverged: true, ..done.clone() }.exit_code(), 0);
        assert_eq!(Outcome { failed: 1, allow_diverged: true, ..done.clone() }.exit_code(), 100);
        assert_eq!(Outcome { failed: 1, ..done.clone() }.exit_code(), 100);
        assert_eq!(Outcome { interrupted: 1, ..done.clone() }.exit_code(), 75);
        assert_eq!(Outcome { failed: 1, not_started: 2, stop, ..done.clone() }.exit_code(), 130);
        assert_eq!(Outcome { failed: 1, not_started: 2, stop: Some(StopReason::FailFast), ..done }.exit_code(), 100);
    }
}
