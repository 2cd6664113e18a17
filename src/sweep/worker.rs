//! The worker's side of the protocol: when to stop, and how to tell the parent what happens.
//!
//! Start at [`StopFlag::install`]. The other side is `execute`.

use super::stop::{SIGNALS, StopRequest};
use crate::record::Event;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the run should write a checkpoint and end: on a signal, or when standard input ends.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    flag: Arc<AtomicBool>,
}

impl StopFlag {
    /// Watches this process's signals and standard input from now on. A second Ctrl-C ends the process at once.
    ///
    /// # Errors
    /// If the system refuses the handlers or a thread.
    pub fn install() -> std::io::Result<Self> {
        let stop = Self::default();
        stop.watch(std::io::stdin())?;
        let mut signals = signal_hook::iterator::Signals::new(SIGNALS)?;
        let flag = stop.flag();
        let listen = move || {
            let request = StopRequest::new();
            for signal in signals.forever() {
                flag.store(true, Ordering::SeqCst);
                request.signal(signal);
                // A parent that ends at once kills its workers; only Ctrl-C may find a worker without one.
                if signal == signal_hook::consts::SIGINT && request.insisted() {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen)?;
        Ok(stop)
    }

    /// Sets the flag when `input` ends or breaks; what is read is ignored.
    pub fn watch(&self, mut input: impl Read + Send + 'static) -> std::io::Result<()> {
        let flag = self.flag();
        let read = move || {
            let mut buffer = [0; 64];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            flag.store(true, Ordering::SeqCst);
        };
        std::thread::Builder::new().name("stdin".into()).spawn(read).map(|_| ())
    }

    /// What the training loop looks at between steps.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

/// Tells the parent. A parent that is gone is no error here: the end of standard input says so.
pub fn emit(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_flag_is_set_when_the_input_ends_and_not_before() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let stop = StopFlag::default();
        stop.watch(reader).unwrap();
        writer.write_all(b"noise").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!stop.requested());
        drop(writer);
        let before = Instant::now();
        while !stop.requested() {
            assert!(before.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
