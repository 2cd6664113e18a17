//! A backward pass that moves gradients instead of adding each to zeros.
//!
//! candle's gives every gradient a slot of zeros and adds to it: four passes over memory for each activation, a third of a
//! GPU's step. Between [`record`] and [`Tape::backward`] the operations of this folder note themselves here, not in candle's
//! graph, and a gradient becomes that of the operation before; only what was used twice is added. Outside, the operations
//! are candle's, and the tests hold this pass against candle's own.
//!
//! A tape belongs to the thread that records it. What is made of its tensors by other means than these operations is a
//! constant to it; so [`add`], [`reshape`] and their like stand here too, and an operation refuses a tensor that it would
//! have to copy.

use candle_core::{CustomOp1, CustomOp2, CustomOp3, DType, Result, Shape, Tensor, TensorId, bail};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// The operations of a forward pass, in their order.
#[derive(Default)]
pub struct Tape {
    notes: Vec<Note>,
    /// The results that depend on a variable.
    tracked: HashSet<TensorId>,
    /// While it is walked backwards, nothing is noted.
    walked: bool,
}

/// Gradients of the inputs from that of the result.
type Backward = Box<dyn FnOnce(&Tensor) -> Result<[Option<Tensor>; MOST_INPUTS]>>;

/// No operation takes more tensors.
const MOST_INPUTS: usize = 4;

struct Note {
    result: TensorId,
    /// Those whose gradient somebody waits for.
    inputs: [Option<TensorId>; MOST_INPUTS],
    backward: Backward,
}

/// The gradients of the variables.
#[derive(Default)]
pub struct Slopes(HashMap<TensorId, Tensor>);

thread_local!(static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) });

/// Runs a forward pass and returns what it noted.
///
/// # Errors
/// Those of `forward`.
pub fn record<R>(forward: impl FnOnce() -> Result<R>) -> Result<(R, Tape)> {
    let before = TAPE.replace(Some(Tape::default()));
    let result = forward();
    let Some(tape) = TAPE.replace(before) else { bail!("a forward pass lost its tape") };
    Ok((result?, tape))
}

impl Tape {
    /// The gradients of the variables, where that in `result` is `slope`.
    ///
    /// # Errors
    /// If `result` was not recorded or `slope` is not one for it; else those of the operations.
    pub fn backward(self, result: &Tensor, slope: Tensor) -> Result<Slopes> {
        if !self.tracked.contains(&result.id()) {
            bail!("the result of a forward pass is not on its tape")
        }
        if result.shape() != slope.shape() || result.dtype() != slope.dtype() {
            bail!("the slope is {:?} in {:?} where the result is {:?} in {:?}", slope.dims(), slope.dtype(), result.dims(), result.dtype())
        }
        let Self { notes, tracked, .. } = self;
        // The operations ask for whom they work.
        let before = TAPE.replace(Some(Self { notes: Vec::new(), tracked, walked: true }));
        let slopes = walk(notes, HashMap::from([(result.id(), slope)]));
        TAPE.replace(before);
        slopes.map(Slopes)
    }
}

fn walk(notes: Vec<Note>, mut slopes: HashMap<TensorId, Tensor>) -> Result<HashMap<TensorId, Tensor>> {
    for note in notes.into_iter().rev() {
        let Some(slope) = slopes.remove(&note.result) else { continue };
        for (input, slope) in note.inputs.into_iter().zip((note.backward)(&slope)?) {
            let (Some(input), Some(slope)) = (input, slope) else { continue };
            match slopes.entry(input) {
                Entry::Vacant(place) => drop(place.insert(slope)),
                Entry::Occupied(mut sum) => *sum.get_mut() = (sum.get() + slope)?,
            }
        }
    }
    Ok(slopes)
}

impl Slopes {
    /// That of a variable; `None` where the result does not depend on it.
    pub fn get(&self, variable: &Tensor) -> Option<&Tensor> {
        self.0.get(&variable.id())
    }

    /// candle's, of these variables.
    #[cfg(test)]
    pub(crate) fn of_candle(gradients: &candle_core::backprop::GradStore, variables: &[&Tensor]) -> Self {
        Self(variables.iter().filter_map(|v| Some((v.id(), gradients.get(v)?.clone()))).collect())
    }
}

/// Whether somebody waits for the gradient of `x`: candle, or the tape.
pub(super) fn tracked(x: &Tensor) -> bool {
    x.track_op() || TAPE.with_borrow(|tape| tape.as_ref().is_some_and(|tape| tape.tracked.contains(&x.id())))
}

pub(super) fn is_recording() -> bool {
    TAPE.with_borrow(|tape| tape.as_ref().is_some_and(|tape| !tape.walked))
}

/// `x` in one piece.
///
/// # Errors
/// If it is on a tape and in several: a copy would not be.
pub(super) fn whole(x: &Tensor) -> Result<Tensor> {
    if !x.is_contiguous() && is_recording() && tracked(x) {
        bail!("a tensor of shape {:?} is on a tape and not in one piece: rearrange it with an operation", x.dims())
    }
    x.contiguous()
}

/// Notes `result` as a function of `inputs`, whose gradients `backward` gives, if somebody waits for one of them.
///
/// # Errors
/// If an input is neither a variable nor the tape's, and yet depends on a variable.
pub(super) fn note<const N: usize>(
    inputs: [&Tensor; N],
    result: &Tensor,
    backward: impl FnOnce(&Tensor) -> Result<[Option<Tensor>; N]> + 'static,
) -> Result<()> {
    if let Some(x) = inputs.iter().find(|x| x.track_op() && !x.is_variable()) {
        bail!("a tensor of shape {:?} was made of variables by something that a tape does not see", x.dims())
    }
    const { assert!(N <= MOST_INPUTS) };
    let mut waiting = [None; MOST_INPUTS];
    for (to, input) in waiting.iter_mut().zip(inputs) {
        *to = tracked(input).then(|| input.id());
    }
    if waiting.iter().all(Option::is_none) {
        return Ok(());
    }
    let backward: Backward = Box::new(move |slope| {
        let mut all = [const { None }; MOST_INPUTS];
        backward(slope)?.into_iter().zip(&mut all).for_each(|(from, to)| *to = from);
        Ok(all)
    });
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.tracked.insert(result.id());
            tape.notes.push(Note { result: result.id(), inputs: waiting, backward });
        }
    });
    Ok(())
}

/// An operation on one tensor.
pub(super) fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    let x = whole(x)?;
    if !is_recording() {
        return x.apply_op1(op);
    }
    let y = x.apply_op1_no_bwd(&op)?;
    let kept = [x.clone(), y.clone()];
    note([&x], &y, move |dy| Ok([op.bwd(&kept[0], &kept[1], dy)?]))?;
    Ok(y)
}

/// An operation on two.
pub(super) fn apply2(a: &Tensor, b: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    let (a, b) = (whole(a)?, whole(b)?);
    if !is_recording() {
        return a.apply_op2(&b, op);
    }
    let y = a.apply_op2_no_bwd(&b, &op)?;
    let kept = [a.clone(), b.clone(), y.clone()];
    note([&a, &b], &y, move |dy| op.bwd(&kept[0], &kept[1], &kept[2], dy).map(<[_; 2]>::from))?;
    Ok(y)
}

/// An operation on three.
pub(super) fn apply3(a: &Tensor, b: &Tensor, c: &Tensor, op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    let (a, b, c) = (whole(a)?, whole(b)?, whole(c)?);
    if !is_recording() {
        return a.apply_op3(&b, &c, op);
    }
    let y = a.apply_op3_no_bwd(&b, &c, &op)?;
    let kept = [a.clone(), b.clone(), c.clone(), y.clone()];
    note([&a, &b, &c], &y, move |dy| op.bwd(&kept[0], &kept[1], &kept[2], &kept[3], dy).map(<[_; 3]>::from))?;
    Ok(y)
}

/// `a + b`, of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !is_recording() {
        return a + b;
    }
    let y = (a.detach() + b.detach())?;
    note([a, b], &y, |dy| Ok([Some(dy.clone()), Some(dy.clone())]))?;
    Ok(y)
}

/// The same numbers in another shape.
///
/// # Errors
/// If they are not as many.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    if !is_recording() {
        return x.reshape(shape);
    }
    let (y, back) = (whole(x)?.detach().reshape(shape)?, x.shape().clone());
    note([x], &y, move |dy| Ok([Some(dy.reshape(back)?)]))?;
    Ok(y)
}

/// The axes in another order: axis i of the result is axis `axes[i]` of `x`.
///
/// # Errors
/// If `axes` are not those of `x`.
pub fn permute(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    if !is_recording() {
        return x.permute(axes)?.contiguous();
    }
    let y = x.detach().permute(axes)?.contiguous()?;
    let mut inverse = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    note([x], &y, move |dy| Ok([Some(dy.permute(inverse)?.contiguous()?)]))?;
    Ok(y)
}

/// `length` places of an axis, from `start` on.
///
/// # Errors
/// If the axis has not so many.
pub fn narrow(x: &Tensor, axis: usize, start: usize, length: usize) -> Result<Tensor> {
    if !is_recording() {
        return x.narrow(axis, start, length)?.contiguous();
    }
    let y = x.detach().narrow(axis, start, length)?.contiguous()?;
    let rest = x.dim(axis)? - start - length;
    note([x], &y, move |dy| Ok([Some(dy.pad_with_zeros(axis, start, rest)?)]))?;
    Ok(y)
}

/// The same numbers in another type.
///
/// # Errors
/// If the device fails.
pub fn to_dtype(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if !is_recording() || x.dtype() == dtype {
        return x.to_dtype(dtype);
    }
    let (y, back) = (x.detach().to_dtype(dtype)?, x.dtype());
    note([x], &y, move |dy| Ok([Some(dy.to_dtype(back)?)]))?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::super::check::{distance, random};
    use super::super::{Activation, concat, linear, silu};
    use super::*;
    use candle_core::Var;

    fn var(shape: &[usize], seed: u32) -> Tensor {
        Var::from_tensor(&random(shape, seed)).unwrap().into_inner()
    }

    /// Every way a tensor can be used: once, twice, not at all, rearranged, as a constant.
    fn forward(x: &Tensor, [w, b, unused]: [&Tensor; 3]) -> Result<Tensor> {
        let _ = silu(unused)?;
        let h = linear(x, w, b, Activation::Silu)?;
        let h = add(&h, &linear(&h, w, b, Activation::None)?)?;
        let h = concat(&h, &silu(&h)?)?;
        let h = permute(&reshape(&h, (2, 3, 2, 4))?, &[0, 2, 1, 3])?;
        let h = to_dtype(&to_dtype(&narrow(&h, 2, 1, 2)?, DType::F32)?, DType::F64)?;
        linear(&h, w, b, Activation::None)
    }

    #[test]
    fn gradients_are_candles() {
        let (x, w, b, unused) = (random(&[2, 3, 4], 1), var(&[4, 4], 2), var(&[4], 3), var(&[4], 4));
        let slope = random(&[2, 2, 2, 4], 5);
        let (y, tape) = record(|| forward(&x, [&w, &b, &unused])).unwrap();
        let ours = tape.backward(&y, slope.clone()).unwrap();
        let y_by_candle = forward(&x, [&w, &b, &unused]).unwrap();
        assert_eq!(distance(&y, &y_by_candle), 0.0);
        let candles = (y_by_candle * slope).unwrap().sum_all().unwrap().backward().unwrap();
        for v in [&w, &b] {
            assert!(distance(ours.get(v).unwrap(), candles.get(v).unwrap()) < 1e-14);
        }
        assert!(ours.get(&unused).is_none() && ours.get(&x).is_none());
        // Nothing is left behind: outside, candle has its graph again.
        assert!(!is_recording() && silu(&w).unwrap().track_op());
    }

    #[test]
    fn a_tape_within_a_walk_is_its_own() {
        let w = var(&[3], 1);
        let (y, tape) = record(|| silu(&w)).unwrap();
        let (z, inner) = record(|| silu(&w)).unwrap();
        let slope = random(&[3], 2);
        let [a, b] = [(y, tape), (z, inner)].map(|(y, tape)| tape.backward(&y, slope.clone()).unwrap());
        assert_eq!(distance(a.get(&w).unwrap(), b.get(&w).unwrap()), 0.0);
    }

    #[test]
    fn what_would_lose_a_gradient_is_refused() {
        let w = var(&[2, 3], 1);
        // A view is a constant to the tape, so the end has no gradient.
        let (y, tape) = record(|| silu(&silu(&w)?.t()?)).unwrap();
        assert!(tape.backward(&y, y.clone()).err().unwrap().to_string().contains("not on its tape"));
        let (y, tape) = record(|| silu(&w)).unwrap();
        assert!(tape.backward(&y, random(&[3, 2], 1)).err().unwrap().to_string().contains("[3, 2]"));
        assert!(record(|| silu(&w.t()?)).is_err(), "a variable in several pieces");
        assert!(record(|| silu(&(&w + &w)?)).is_err(), "a sum by candle");
    }
}
