//! Drawing again while runs go on.
//!
//! Start at [`follow`]. It looks at the files, draws where they changed, and ends when the runs have, or when it is asked to:
//! the last page is the one that `report` writes, without a word of having been live.

use crate::store::{LOSSES, ResultsStore, RunState, StoreError, fs};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the files are looked at.
pub const EVERY: Duration = Duration::from_secs(2);
/// How often the page loads itself again.
pub const RELOAD_SECONDS: u32 = 5;
/// Drawing takes at most this share of the time, so that the runs get the rest.
const SHARE: f64 = 0.1;
const SLICE: Duration = Duration::from_millis(50);

type Seen = (u64, Option<f64>);

/// What the files of some sweeps look like from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// By id: the state, and of each file its length and when it was last written.
    runs: BTreeMap<String, (RunState, Vec<Seen>)>,
}

impl Look {
    /// # Errors
    /// If a sweep is unknown, or the store cannot be read.
    pub fn at(store: &ResultsStore, names: &[String]) -> Result<Self, StoreError> {
        let folders = store.runs_by_id()?;
        let mut runs = BTreeMap::new();
        for name in names {
            for run in store.read_sweep(name)?.runs {
                let Some(dir) = folders.get(&run.run_id) else {
                    runs.insert(run.run_id, (RunState::Pending, Vec::new()));
                    continue;
                };
                // A record that cannot be read is told by the report; here it is a run that has come to an end.
                let state = dir.state().unwrap_or(RunState::Failed);
                let files = ["run.json", "metrics.jsonl", LOSSES].map(|file| dir.path().join(file));
                let seen = files.iter().map(|path| Ok((fs::length(path)?, fs::modified(path)))).collect::<Result<_, StoreError>>()?;
                runs.insert(run.run_id, (state, seen));
            }
        }
        Ok(Self { runs })
    }

    /// Whether no run is left to go on.
    pub fn ended(&self) -> bool {
        self.runs.values().all(|(state, _)| matches!(state, RunState::Done | RunState::Diverged | RunState::Failed))
    }
}

/// Draws (`draw(true)`) whenever the look of things changes, and once more (`draw(false)`) at the end: when no run is left to go
/// on, or `stop` says so. What `draw` says goes to `told`, but for the last time: a file may be caught half written.
///
/// # Errors
/// If the files cannot be looked at, or of the last drawing.
pub fn follow<E: From<StoreError>>(
    every: Duration,
    mut look: impl FnMut() -> Result<Look, StoreError>,
    mut draw: impl FnMut(bool) -> Result<(), E>,
    stop: impl Fn() -> bool,
    mut told: impl FnMut(E),
) -> Result<(), E> {
    let mut drawn: Option<Look> = None;
    loop {
        // Before drawing: what changes meanwhile is seen the next time.
        let now = look()?;
        if now.ended() || stop() {
            return draw(false);
        }
        let mut pause = every;
        if drawn.as_ref() != Some(&now) {
            let began = Instant::now();
            if let Err(error) = draw(true) {
                told(error);
            }
            pause = pause.max(began.elapsed().div_f64(SHARE));
            drawn = Some(now);
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !stop() {
            std::thread::sleep(SLICE.min(pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    fn look(state: RunState, length: u64) -> Look {
        Look { runs: [("r0".to_string(), (state, vec![(length, None)]))].into() }
    }

    #[test]
    fn it_draws_what_changed_and_ends_with_the_runs() {
        let looks = [(RunState::Running, 1), (RunState::Running, 1), (RunState::Running, 2), (RunState::Done, 2), (RunState::Done, 2)];
        let at = Cell::new(0);
        let drawn = RefCell::new(Vec::new());
        let next = || {
            let (state, length) = looks[at.get()];
            at.set(at.get() + 1);
            Ok(look(state, length))
        };
        let draw = |live| -> Result<(), StoreError> {
            drawn.borrow_mut().push((at.get(), live));
            Ok(())
        };
        follow(Duration::from_millis(1), next, draw, || false, |e| panic!("{e}")).unwrap();
        assert_eq!(*drawn.borrow(), [(1, true), (3, true), (4, false)]);
    }

    #[test]
    fn it_ends_when_asked_and_an_error_in_between_is_told_and_not_the_end() {
        let (stop, draws, told) = (Cell::new(false), Cell::new(0), Cell::new(0));
        let lengths = Cell::new(0);
        let next = || {
            lengths.set(lengths.get() + 1);
            Ok(look(RunState::Running, lengths.get()))
        };
        let draw = |live: bool| {
            draws.set(draws.get() + 1);
            stop.set(draws.get() == 3);
            if live && draws.get() < 3 { Err(StoreError::Corrupt { path: "x".into(), what: "torn".into() }) } else { Ok(()) }
        };
        follow(Duration::from_millis(1), next, draw, || stop.get(), |_| told.set(told.get() + 1)).unwrap();
        assert_eq!((draws.get(), told.get()), (4, 2), "three while it lived, and the last");
    }
}
