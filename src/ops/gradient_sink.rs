//! Where the gradients of parameters go: straight to their places in a flat buffer.
//!
//! Inside [`Places::collect`] the operations that own weight matrices write their gradients into the flat buffer themselves and
//! return none to the tape, which the trainer would have to copy. A parameter that is used a second time, or that belongs to
//! another operation, goes the tape's way; [`Places::sum`] takes both.

use super::kernel::unspecified;
use super::real::Real;
use super::tape::{Slopes, Tape, tracked};
use candle_core::{Result, Storage, Tensor, TensorId, bail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The places of a network's parameters in a flat buffer.
pub struct Places(Arc<Table>);

struct Table {
    of: HashMap<TensorId, usize>,
    /// Each parameter, and where it lies.
    parameters: Vec<(Tensor, Range<usize>)>,
    total: usize,
}

/// The gradients of one backward pass.
pub struct Gradients {
    flat: Vec<f32>,
    /// Of each parameter, whether its place was written.
    written: Vec<bool>,
    rest: Slopes,
}

thread_local!(static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) });

struct Sink {
    places: Arc<Table>,
    flat: Vec<f32>,
    written: Vec<bool>,
}

impl Places {
    /// Of parameters that lie one behind the other, without gaps between the ranges' ends.
    pub fn new(parameters: Vec<(Tensor, Range<usize>)>) -> Self {
        let of = parameters.iter().enumerate().map(|(i, (tensor, _))| (tensor.id(), i)).collect();
        let total = parameters.iter().map(|(_, range)| range.end).max().unwrap_or(0);
        Self(Arc::new(Table { of, parameters, total }))
    }

    /// The gradients of the parameters, where that in the `result` of a recorded forward pass is `slope`. `buffer` is an
    /// earlier one's, to be used again, or empty.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn collect(&self, tape: Tape, result: &Tensor, slope: Tensor, mut buffer: Vec<f32>) -> Result<Gradients> {
        // What is not written is not read either, so that no buffer needs clearing.
        if buffer.len() != self.0.total {
            buffer = unspecified(self.0.total);
        }
        let sink = Sink { places: self.0.clone(), flat: buffer, written: vec![false; self.0.parameters.len()] };
        let before = SINK.replace(Some(sink));
        let rest = tape.backward(result, slope);
        let sink = SINK.replace(before);
        let Some(Sink { flat, written, .. }) = sink else { bail!("a backward pass lost the place of its gradients") };
        Ok(Gradients { flat, written, rest: rest? })
    }

    /// Adds the gradients to the flat `sum`, and returns their buffer for the next pass. An empty sum becomes the buffer.
    ///
    /// # Errors
    /// If the gradients or `sum` belong to other parameters.
    pub fn sum(&self, gradients: Gradients, sum: &mut Vec<f32>) -> Result<Vec<f32>> {
        let Gradients { mut flat, written, rest } = gradients;
        let Table { parameters, total, .. } = &*self.0;
        let first = sum.is_empty();
        if first {
            std::mem::swap(sum, &mut flat);
        }
        if sum.len() != *total || !first && flat.len() != *total || written.len() != parameters.len() {
            bail!("{} and {} numbers were given for the gradient of a network of {total} parameters", sum.len(), flat.len())
        }
        for ((parameter, range), written) in parameters.iter().zip(&written) {
            match (first, *written) {
                (true, true) | (false, false) => {}
                (true, false) => sum[range.clone()].fill(0.0),
                (false, true) => add(&mut sum[range.clone()], &flat[range.clone()]),
            }
            if let Some(grad) = rest.get(parameter) {
                add_tensor(grad, parameter, &mut sum[range.clone()])?;
            }
        }
        Ok(flat)
    }
}

/// Adds a tensor's numbers to a parameter's part of a flat gradient.
///
/// # Errors
/// If it has another shape than its parameter, or the device fails.
pub fn add_tensor<T: candle_core::WithDType>(grad: &Tensor, parameter: &Tensor, sum: &mut [T]) -> Result<()> {
    if grad.shape() != parameter.shape() || grad.elem_count() != sum.len() {
        bail!("the gradient of a parameter of shape {:?} has shape {:?}", parameter.dims(), grad.dims())
    }
    let grad = grad.contiguous()?;
    let (storage, layout) = grad.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(numbers), Some((start, end))) => add(sum, &numbers.as_slice::<T>()?[start..end]),
        _ => {
            drop(storage);
            add(sum, &grad.flatten_all()?.to_vec1::<T>()?);
        }
    }
    Ok(())
}

fn add<T: candle_core::WithDType>(sum: &mut [T], numbers: &[T]) {
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (sum, x) in sum.iter_mut().zip(numbers) {
                *sum += *x;
            }
        },
    );
}

/// Calls `compute` with the place where the gradient of `parameter` belongs, all of which it overwrites, and returns what is
/// left for the tape: nothing where the place is in a buffer, or nobody asks for this gradient (the slice is empty then).
pub(super) fn into_place<T: Real>(parameter: &Tensor, compute: impl FnOnce(&mut [T])) -> Vec<T> {
    if !tracked(parameter) {
        compute(&mut []);
        return Vec::new();
    }
    // Taken out meanwhile: an operation inside an operation finds no sink and goes the tape's way.
    let mut sink = SINK.take();
    let free = sink.as_mut().and_then(|sink| {
        let index = *sink.places.of.get(&parameter.id())?;
        let place = T::of_f32(&mut sink.flat[sink.places.parameters[index].1.clone()])?;
        (!std::mem::replace(&mut sink.written[index], true)).then_some(place)
    });
    let left = match free {
        Some(place) => {
            compute(place);
            Vec::new()
        }
        None => {
            let mut own = unspecified(parameter.elem_count());
            compute(&mut own);
            own
        }
    };
    SINK.set(sink);
    left
}

#[cfg(test)]
mod tests {
    use super::super::tape::record;
    use super::super::{Activation, linear};
    use super::*;
    use candle_core::{DType, Device, Var};

    fn var(shape: &[usize], seed: u32) -> Tensor {
        Var::from_tensor(&super::super::check::random(shape, seed).to_dtype(DType::F32).unwrap()).unwrap().into_inner()
    }

    #[test]
    fn gradients_are_candles_whether_a_parameter_is_used_once_twice_or_elsewhere() {
        let (x, w, shared, b, unused) = (var(&[5, 4], 1), var(&[4, 4], 2), var(&[4, 4], 3), var(&[4], 4), var(&[3], 5));
        let slope = Tensor::ones((5, 4), DType::F32, &Device::Cpu).unwrap();
        let forward = || {
            let h = linear(&x, &w, &b, Activation::Silu)?;
            let h = linear(&h, &shared, &b, Activation::None)?;
            linear(&h, &shared, &b, Activation::None)
        };
        let places = Places::new(vec![(w.clone(), 0..16), (shared.clone(), 16..32), (b.clone(), 32..36), (unused, 36..39)]);
        let plain = forward().unwrap().sum_all().unwrap().backward().unwrap();
        // Numbers that a buffer holds from before must not show.
        let gradients = |buffer: Vec<f32>| {
            let (y, tape) = record(forward).unwrap();
            let gradients = places.collect(tape, &y, slope.clone(), buffer).unwrap();
            assert_eq!(gradients.written, [true, true, true, false]);
            assert!(gradients.rest.get(&w).is_none() && gradients.rest.get(&shared).is_some());
            gradients
        };
        // The first of a sum, in a new buffer and a used one, and a second.
        let (mut one, mut first) = (Vec::new(), Vec::new());
        assert!(places.sum(gradients(Vec::new()), &mut one).unwrap().is_empty());
        places.sum(gradients(vec![7.0; 39]), &mut first).unwrap();
        assert_eq!(one, first);
        let mut two = one.clone();
        assert_eq!(places.sum(gradients(vec![7.0; 39]), &mut two).unwrap().len(), 39);
        for (parameter, range) in [(&w, 0..16), (&shared, 16..32), (&b, 32..36)] {
            let want = plain.get(parameter).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for ((one, two), want) in one[range.clone()].iter().zip(&two[range]).zip(want) {
                let near = |got: f32, want: f32| (got - want).abs() < 1e-4 * (1.0 + want.abs());
                assert!(near(*one, want) && near(*two, 2.0 * want), "{one} and {two} are not {want} and twice that");
            }
        }
        assert_eq!((&one[36..], &two[36..]), (&[0.0; 3][..], &[0.0; 3][..]));
        assert!(places.sum(gradients(Vec::new()), &mut vec![0.0; 38]).is_err());
        // And outside, nothing is left behind: candle has all of it again.
        assert!(forward().unwrap().sum_all().unwrap().backward().unwrap().get(&w).is_some());
        let zero = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        assert!(add_tensor(&zero, &w, &mut one[..16]).is_err());
    }
}
