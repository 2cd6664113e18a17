//! Work that a device does many times over: told kernel by kernel at first, then as one recording.

use super::driver::{Recording, is_recording, record, rehearse};
use candle_core::{Device, Result, bail};

/// How the device is told of one piece of work, whose tensors keep their places ([`Fed`](super::Fed)).
pub struct Recorder(Told);

enum Told {
    /// Kernel by kernel, so many times.
    Rehearsed(u32),
    AsOne(Recording),
    /// Kernel by kernel for good.
    OneByOne,
}

/// Times that work is told kernel by kernel before it is recorded: by then every kernel is loaded and every size is known.
const REHEARSALS: u32 = 2;

impl Default for Recorder {
    fn default() -> Self {
        // For those who look for a kernel at fault: one that is launched by itself names itself.
        Self(if std::env::var_os("DDPM_LAB_KERNEL_BY_KERNEL").is_some() { Told::OneByOne } else { Told::Rehearsed(0) })
    }
}

impl Recorder {
    /// Has the device do `work`. Once it is recorded, `recorded` hears what `work` returned, and from then on only "again" is
    /// said.
    ///
    /// # Errors
    /// Those of `work` and `recorded`.
    pub fn run<T>(&mut self, device: &Device, work: impl Fn() -> Result<T>, recorded: impl FnOnce(T) -> Result<()>) -> Result<()> {
        match &self.0 {
            Told::AsOne(recording) => return recording.replay(),
            Told::Rehearsed(times) if *times < REHEARSALS => {
                let times = times + 1;
                rehearse(device, || work().map(drop))?;
                self.0 = Told::Rehearsed(times);
                return Ok(());
            }
            Told::OneByOne => return work().map(drop),
            Told::Rehearsed(_) => {}
        }
        #[cfg(test)]
        super::emulator::as_if_recording();
        let mut result = None;
        let recording = record(device, || {
            result = Some(work()?);
            Ok(())
        });
        match (recording, result) {
            (Ok(Some(recording)), Some(result)) => {
                recorded(result)?;
                recording.replay()?;
                self.0 = Told::AsOne(recording);
                Ok(())
            }
            (recording, _) => {
                if let Err(error) = recording {
                    tracing::warn!("the device cannot record this network, and is told kernel by kernel: {error}");
                }
                if is_recording(device)? {
                    bail!("the device does not end a recording")
                }
                self.0 = Told::OneByOne;
                work().map(drop)
            }
        }
    }
}
