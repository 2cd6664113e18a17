//! Memory that keeps its place on the device: what the host writes before a step, and what a step leaves.
//!
//! Recorded work ([`Recorder`](super::Recorder)) reads and writes at the addresses it was recorded with, so what changes from
//! step to step lies in memory that stays.

use super::buffer::{Buffer, address};
use super::driver;
use super::launch::Arg;
use candle_core::{DType, Device, Result, Shape, Tensor, WithDType, bail};

/// A tensor whose numbers are replaced where they lie.
pub struct Fed(Tensor);

impl Fed {
    /// Zeros at first.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        Ok(Self(Tensor::zeros(shape.into(), dtype, device)?))
    }

    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    pub(super) fn address(&self) -> Result<Arg> {
        address(&self.0)
    }

    /// Replaces all of it, after the work before and before what follows.
    ///
    /// # Errors
    /// If these are not as many numbers, of that type, or the device fails.
    pub fn write<T: WithDType>(&self, numbers: &[T]) -> Result<()> {
        if T::DTYPE != self.0.dtype() || numbers.len() != self.0.elem_count() {
            bail!("{} numbers in {:?} do not fit into {:?} in {:?}", numbers.len(), T::DTYPE, self.0.dims(), self.0.dtype())
        }
        awake(self.0.device(), "takes")?;
        let to = place(&self.0)?;
        match self.0.device() {
            Device::Cuda(device) => driver::upload(device, to, numbers),
            // SAFETY: as many numbers of this type lie there, and nobody holds a reference to them meanwhile.
            _ => unsafe {
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), to as *mut T, numbers.len());
                Ok(())
            },
        }
    }

    /// Replaces all of it by what is no number, so that work which is not done shows. (Integers become the largest.)
    ///
    /// # Errors
    /// If the device fails, or is recording.
    pub fn forget(&self) -> Result<()> {
        awake(self.0.device(), "forgets")?;
        let (at, bytes) = (place(&self.0)?, self.0.elem_count() * self.0.dtype().size_in_bytes());
        match self.0.device() {
            Device::Cuda(device) => driver::fill_with_ones(device, at, bytes),
            // SAFETY: so many bytes lie there, every pattern of them is a number or none, and nobody holds a reference to them.
            _ => unsafe {
                std::ptr::write_bytes(at as *mut u8, 0xFF, bytes);
                Ok(())
            },
        }
    }

    /// Replaces all of it by the numbers of a contiguous tensor.
    ///
    /// # Errors
    /// If `from` is another size or type, or the device fails.
    pub fn copy_from(&self, from: &Tensor) -> Result<()> {
        copy(from, &self.0)
    }

    /// Copies all of it to a contiguous tensor of as many numbers.
    ///
    /// # Errors
    /// If `to` is another size or type, or the device fails.
    pub fn copy_to(&self, to: &Tensor) -> Result<()> {
        copy(&self.0, to)
    }
}

/// Numbers of the host as a tensor of the device, which asks no more of the host's.
///
/// # Errors
/// If they are not as many as the shape has, or the device fails or is recording.
pub fn sent<T: WithDType>(numbers: &[T], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let Device::Cuda(cuda) = device else { return Tensor::from_slice(numbers, shape, device) };
    if shape.elem_count() != numbers.len() {
        bail!("{} numbers do not fit into {shape:?}", numbers.len())
    }
    awake(device, "takes")?;
    let sent = Buffer::new(device, shape, T::DTYPE)?.tensor();
    driver::upload(cuda, place(&sent)?, numbers)?;
    Ok(sent)
}

/// The numbers of a tensor, on the host.
///
/// # Errors
/// If the device fails, or is recording: what is asked of it then is not done.
pub fn home<T: WithDType>(x: &Tensor) -> Result<Vec<T>> {
    awake(x.device(), "gives")?;
    let Device::Cuda(device) = x.device() else { return x.flatten_all()?.to_vec1() };
    if x.dtype() != T::DTYPE {
        bail!("numbers in {:?} were asked for in {:?}", x.dtype(), T::DTYPE)
    }
    // Held until the copy is done.
    let x = x.contiguous()?;
    let mut numbers = vec![T::from_f64(f64::NAN); x.elem_count()];
    driver::download(device, place(&x)?, &mut numbers)?;
    Ok(numbers)
}

/// # Errors
/// If the device is recording: what is asked of it then is not done, but becomes part of the recording.
fn awake(device: &Device, does: &str) -> Result<()> {
    let recording = driver::is_recording(device)?;
    #[cfg(test)]
    let recording = recording || super::emulator::is_recording();
    if recording {
        bail!("a device that records {does} no numbers")
    }
    Ok(())
}

fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    if to.dtype() != from.dtype() || to.elem_count() != from.elem_count() {
        bail!("{:?} in {:?} cannot be copied to {:?} in {:?}", from.dims(), from.dtype(), to.dims(), to.dtype())
    }
    let (at, to, bytes) = (place(from)?, place(to)?, from.elem_count() * from.dtype().size_in_bytes());
    match from.device() {
        Device::Cuda(device) => driver::copy(device, to, at, bytes),
        // SAFETY: both hold so many bytes; they are different tensors.
        _ => unsafe {
            std::ptr::copy_nonoverlapping(at as *const u8, to as *mut u8, bytes);
            Ok(())
        },
    }
}

fn place(x: &Tensor) -> Result<u64> {
    let Arg::Address(at) = address(x)? else { unreachable!("address gives an address") };
    Ok(at)
}
