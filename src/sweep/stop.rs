//! Asking a sweep to stop: the first signal politely, the second at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Signals that mean "stop with a checkpoint". Batch systems send USR1 or USR2 ahead of a time limit.
pub const SIGNALS: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];

/// One request may arrive as several signals (to the process, then to its group): later ones count only after this.
const ECHO: Duration = Duration::from_millis(300);

/// Why a sweep stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The signal's number.
    Signal(i32),
    /// `--stop-after` ran out.
    Deadline,
    /// A run failed under `--fail-fast`.
    FailFast,
}

impl StopReason {
    /// 128 + N for INT, TERM and HUP; 75, "resumable", for what a batch system or a deadline asks.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Signal(signal @ (SIGINT | SIGTERM | SIGHUP)) => 128 + signal as u8,
            Self::Signal(_) | Self::Deadline => 75,
            Self::FailFast => 100,
        }
    }
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(&signal_name(*signal)),
            Self::Deadline => f.write_str("the time given by --stop-after is over"),
            Self::FailFast => f.write_str("a run failed and --fail-fast is on"),
        }
    }
}

/// `SIGKILL` for 9, and so on.
pub fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_string)
}

/// Shared between the sweep and whoever asks it to stop.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    first: Option<(i32, Instant)>,
    again: bool,
}

impl StopRequest {
    /// A request that nothing triggers but [`StopRequest::signal`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that this process's signals trigger from now on. For the main program, once.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn from_signals() -> std::io::Result<Self> {
        let request = Self::new();
        let mut signals = signal_hook::iterator::Signals::new(SIGNALS)?;
        let to = request.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(|signal| to.signal(signal)))?;
        Ok(request)
    }

    /// As [`from_signals`](Self::from_signals), for work that looks at a flag: it is set by the first signal, and a second one
    /// ends the process at once.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn with_flag() -> std::io::Result<(Self, Arc<AtomicBool>)> {
        let (request, flag) = (Self::new(), Arc::new(AtomicBool::new(false)));
        let mut signals = signal_hook::iterator::Signals::new(SIGNALS)?;
        let (to, set) = (request.clone(), flag.clone());
        let listen = move || {
            for signal in signals.forever() {
                set.store(true, Ordering::SeqCst);
                to.signal(signal);
                if to.insisted() {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen)?;
        Ok((request, flag))
    }

    /// Takes note of one signal.
    pub fn signal(&self, signal: i32) {
        let mut seen = self.lock();
        match seen.first {
            None => seen.first = Some((signal, Instant::now())),
            Some((_, at)) if at.elapsed() > ECHO => seen.again = true,
            Some(_) => {}
        }
    }

    /// The first signal, if any came.
    pub fn requested(&self) -> Option<i32> {
        self.lock().first.map(|(signal, _)| signal)
    }

    /// Whether a second signal asked for an end at once.
    pub fn insisted(&self) -> bool {
        self.lock().again
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Nobody panics while holding it; and if, what was seen is still what was seen.
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_of_the_first_signal_is_not_a_second_one() {
        let stop = StopRequest::new();
        assert_eq!(stop.requested(), None);
        stop.signal(SIGTERM);
        stop.signal(SIGTERM);
        assert_eq!((stop.requested(), stop.insisted()), (Some(SIGTERM), false));
        std::thread::sleep(ECHO + Duration::from_millis(20));
        stop.signal(SIGINT);
        assert_eq!((stop.requested(), stop.insisted()), (Some(SIGTERM), true));
    }

    #[test]
    fn exit_codes_are_those_that_shells_and_batch_systems_expect() {
        let codes: Vec<u8> = SIGNALS.iter().map(|s| StopReason::Signal(*s).exit_code()).collect();
        assert_eq!(codes, [130, 143, 129, 75, 75]);
        assert_eq!((StopReason::Deadline.exit_code(), StopReason::FailFast.exit_code()), (75, 100));
        assert_eq!(signal_name(9), "SIGKILL");
    }
}
