//! Memory that kernels fill, and how it becomes a tensor with a place on the tape.

use super::driver;
use super::launch::{Arg, Grid, int, launch};
use crate::ops::tape::{is_recording, note, tracked};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cpu_backend::CpuDevice;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor, bail};

/// Device memory of some shape that is no tensor yet.
pub(super) struct Buffer {
    storage: Storage,
    shape: Shape,
    device: Device,
}

impl Buffer {
    /// Memory whose contents are unspecified: the caller launches what fills all of it.
    pub fn new(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        // SAFETY: every bit pattern is a number of these types; a kernel that follows on the same stream writes all of it
        // before anything reads it.
        let storage = unsafe {
            match device {
                Device::Cpu => Storage::Cpu(CpuDevice.alloc_uninit(&shape, dtype)?),
                Device::Cuda(cuda) => Storage::Cuda(cuda.alloc_uninit(&shape, dtype)?),
                Device::Metal(_) => bail!("Metal is no CUDA device"),
            }
        };
        Ok(Self { storage, shape, device: device.clone() })
    }

    /// Memory for something of the shape and type of `x`.
    pub fn like(x: &Tensor) -> Result<Self> {
        Self::new(x.device(), x.shape(), x.dtype())
    }

    /// `a · b` for matrices, or batches of them; either may be a transposed view.
    pub fn product(a: &Tensor, b: &Tensor) -> Result<Self> {
        let (&[ref batch @ .., m, k], &[ref batch_b @ .., k_b, n]) = (a.dims(), b.dims()) else { bail!("a product is of matrices") };
        if batch != batch_b || k != k_b {
            bail!("matrices {:?} and {:?} have no product", a.dims(), b.dims())
        }
        let sizes = (batch.iter().product(), m, n, k);
        let ((storage_a, layout_a), (storage_b, layout_b)) = (a.storage_and_layout(), b.storage_and_layout());
        let storage = match (&*storage_a, &*storage_b) {
            (Storage::Cpu(x), Storage::Cpu(y)) => Storage::Cpu(x.matmul(y, sizes, layout_a, layout_b)?),
            (Storage::Cuda(x), Storage::Cuda(y)) => Storage::Cuda(x.matmul(y, sizes, layout_a, layout_b)?),
            _ => bail!("a product's factors are on different devices"),
        };
        let shape = Shape::from([batch, &[m, n]].concat());
        Ok(Self { storage, shape, device: a.device().clone() })
    }

    /// The same memory in another shape.
    pub fn reshaped(self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.elem_count() != self.shape.elem_count() {
            bail!("{} numbers cannot have shape {shape:?}", self.len())
        }
        Ok(Self { shape, ..self })
    }

    pub fn len(&self) -> usize {
        self.shape.elem_count()
    }

    pub fn address(&self) -> Result<Arg> {
        address_in(&self.storage, 0)
    }

    /// Runs a kernel over a thread for each number of this buffer; `args` follow that count.
    pub fn fill(self, dtype: DType, kernel: &'static str, args: &[Arg]) -> Result<Self> {
        let all = [&[int(self.len())?], args].concat();
        launch(&self.device, dtype, kernel, Grid::elements(self.len()), &all)?;
        Ok(self)
    }

    pub fn tensor(self) -> Tensor {
        Tensor::from_storage(self.storage, self.shape, BackpropOp::none(), false)
    }
}

/// Where a contiguous tensor begins.
pub(super) fn address(x: &Tensor) -> Result<Arg> {
    let (storage, layout) = x.storage_and_layout();
    match layout.contiguous_offsets() {
        Some((start, _)) => address_in(&storage, start),
        None => bail!("a CUDA kernel was given a tensor that is not contiguous: {layout:?}"),
    }
}

fn address_in(storage: &Storage, start: usize) -> Result<Arg> {
    let base = match storage {
        Storage::Cuda(s) => driver::address(s)?,
        Storage::Cpu(CpuStorage::F32(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::F64(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::BF16(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U8(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::I32(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U32(v)) => v.as_ptr() as u64,
        Storage::Cpu(CpuStorage::I64(v)) => v.as_ptr() as u64,
        _ => bail!("a CUDA kernel was given a tensor of another device or type"),
    };
    Ok(Arg::Address(base + (start * storage.dtype().size_in_bytes()) as u64))
}

/// What a backward pass is given: the inputs, contiguous and outside any graph, and whose gradients are wanted.
pub(super) struct Inputs<const N: usize> {
    pub tensors: [Tensor; N],
    pub wanted: [bool; N],
}

impl<const N: usize> Inputs<N> {
    fn new(tensors: [&Tensor; N]) -> Result<Self> {
        let wanted = tensors.map(tracked);
        let detached = tensors.map(|t| t.detach().contiguous());
        let mut ok = Vec::with_capacity(N);
        for t in detached {
            ok.push(t?);
        }
        Ok(Self { tensors: ok.try_into().expect("N tensors"), wanted })
    }
}

/// `result` as a function of `inputs`, whose gradients `backward` gives from them and that of the result.
pub(super) fn attach<const N: usize>(
    result: Buffer,
    inputs: [&Tensor; N],
    backward: impl FnOnce(Inputs<N>, &Tensor) -> Result<[Option<Tensor>; N]> + 'static,
) -> Result<Tensor> {
    let y = result.tensor();
    if is_recording() {
        let kept = inputs.map(Tensor::clone);
        note(inputs, &y, move |dy| backward(Inputs::new(kept.each_ref())?, &dy.contiguous()?))?;
    }
    Ok(y)
}
