//! Memory that kernels fill, and how it becomes a tensor with a backward pass.

use super::driver;
use super::launch::{Arg, Grid, int, launch};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cpu_backend::CpuDevice;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::Mutex;

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
        let wanted = tensors.map(Tensor::track_op);
        let detached = tensors.map(|t| t.detach().contiguous());
        let mut ok = Vec::with_capacity(N);
        for t in detached {
            ok.push(t?);
        }
        Ok(Self { tensors: ok.try_into().expect("N tensors"), wanted })
    }
}

type Backward<const N: usize> = Box<dyn Fn(Inputs<N>, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync>;

/// An operation whose forward pass has been computed already; candle asks it for the result once.
struct Computed<const N: usize> {
    name: &'static str,
    result: Mutex<Option<(Storage, Shape)>>,
    backward: Backward<N>,
}

impl<const N: usize> Computed<N> {
    fn new(
        name: &'static str,
        result: Buffer,
        backward: impl Fn(Inputs<N>, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Self {
        Self { name, result: Mutex::new(Some((result.storage, result.shape))), backward: Box::new(backward) }
    }

    fn take(&self) -> Result<(Storage, Shape)> {
        match self.result.lock().expect("nobody panics while holding it").take() {
            Some(result) => Ok(result),
            None => bail!("{}: the forward pass was asked for twice", self.name),
        }
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: the result is on another device than the input", self.name),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: the result is on another device than the input", self.name),
        }
    }

    fn bwd(&self, inputs: [&Tensor; N], dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        (self.backward)(Inputs::new(inputs)?, &dy.contiguous()?)
    }
}

/// `result` as a function of `x`, whose gradient `backward` gives from x and that of the result.
pub(super) fn attach1(
    name: &'static str,
    result: Buffer,
    x: &Tensor,
    backward: impl Fn(Inputs<1>, &Tensor) -> Result<[Option<Tensor>; 1]> + Send + Sync + 'static,
) -> Result<Tensor> {
    x.apply_op1(Computed::new(name, result, backward))
}

/// `result` as a function of two tensors.
pub(super) fn attach2(
    name: &'static str,
    result: Buffer,
    [a, b]: [&Tensor; 2],
    backward: impl Fn(Inputs<2>, &Tensor) -> Result<[Option<Tensor>; 2]> + Send + Sync + 'static,
) -> Result<Tensor> {
    a.apply_op2(b, Computed::new(name, result, backward))
}

/// `result` as a function of three tensors.
pub(super) fn attach3(
    name: &'static str,
    result: Buffer,
    [a, b, c]: [&Tensor; 3],
    backward: impl Fn(Inputs<3>, &Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
) -> Result<Tensor> {
    a.apply_op3(b, c, Computed::new(name, result, backward))
}

impl CustomOp1 for Computed<1> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [dx] = self.bwd([x], dy)?;
        Ok(dx)
    }
}

impl CustomOp2 for Computed<2> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [da, db] = self.bwd([a, b], dy)?;
        Ok((da, db))
    }
}

impl CustomOp3 for Computed<3> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [da, db, dc] = self.bwd([a, b, c], dy)?;
        Ok((da, db, dc))
    }
}
