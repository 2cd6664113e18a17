//! How the operations are checked: against their reference, and against finite differences of themselves in f64.

use super::record;
use crate::rng::{Purpose, stream};
use candle_core::{DType, Device, Result, Tensor, Var};

/// Standard normals in f64.
pub(crate) fn random(shape: &[usize], lane: u32) -> Tensor {
    let mut x = vec![0.0; shape.iter().product()];
    stream(17, Purpose::ToyData, 1).lane(lane).normals(0, &mut x);
    Tensor::from_vec(x, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

pub(crate) fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over the largest magnitude.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (numbers(a), numbers(b));
    let largest = b.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0_f64, |m, (x, y)| if x.is_finite() { m.max((x - y).abs()) } else { f64::INFINITY }) / largest
}

/// Output of `f` and the gradients of a fixed linear functional of it.
fn value_and_gradients(inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.copy().unwrap()).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tracked).unwrap();
    let store = functional(&y).backward().unwrap();
    (y.detach(), vars.iter().map(|v| store.get(v).expect("every input has a gradient").clone()).collect())
}

/// The same by the tape, as training has it.
fn gradients_by_tape(inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.copy().unwrap()).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let (y, tape) = record(|| f(&tracked)).unwrap();
    let slopes = tape.backward(&y, random(y.dims(), 999).to_dtype(y.dtype()).unwrap()).unwrap();
    vars.iter().map(|v| slopes.get(v).expect("every input has a gradient").clone()).collect()
}

fn functional(y: &Tensor) -> Tensor {
    let weights = random(y.dims(), 999).to_dtype(y.dtype()).unwrap();
    (y * weights).unwrap().sum_all().unwrap()
}

/// Demands that `f` and its gradients agree with `reference` in f64 and f32, and its gradients with central differences.
pub(crate) fn agree(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>, reference: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        let cast: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(dtype).unwrap()).collect();
        let (y, grads) = value_and_gradients(&cast, &f);
        let (y_ref, grads_ref) = value_and_gradients(&cast, &reference);
        assert!(distance(&y, &y_ref) < tolerance, "{dtype:?}: output is {} off the reference", distance(&y, &y_ref));
        for (i, (tape, candle)) in gradients_by_tape(&cast, &f).iter().zip(&grads).enumerate() {
            assert!(distance(tape, candle) < 1e-3 * tolerance, "{dtype:?}: gradient of input {i} is another on the tape");
        }
        for (i, (g, r)) in grads.iter().zip(&grads_ref).enumerate() {
            assert!(distance(g, r) < tolerance, "{dtype:?}: gradient of input {i} is {} off the reference", distance(g, r));
        }
    }
    differences(inputs, f);
}

/// The same of an operation that is one on a tape only.
pub(crate) fn agree_on_tape(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>, reference: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        let cast: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(dtype).unwrap()).collect();
        let (y_ref, grads_ref) = value_and_gradients(&cast, &reference);
        // Of constants, and recorded.
        for y in [f(&cast).unwrap(), record(|| f(&cast)).unwrap().0] {
            assert!(distance(&y, &y_ref) < tolerance, "{dtype:?}: output is {} off the reference", distance(&y, &y_ref));
        }
        for (i, (g, r)) in gradients_by_tape(&cast, &f).iter().zip(&grads_ref).enumerate() {
            assert!(distance(g, r) < tolerance, "{dtype:?}: gradient of input {i} is {} off the reference", distance(g, r));
        }
    }
    slopes_agree(inputs, &gradients_by_tape(inputs, &f), f);
}

/// Demands that the gradients of `f` agree with central differences in f64, at up to 60 elements of each input.
pub(crate) fn differences(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    slopes_agree(inputs, &value_and_gradients(inputs, &f).1, f);
}

fn slopes_agree(inputs: &[Tensor], grads: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for (i, (x, g)) in inputs.iter().zip(grads).enumerate() {
        assert_eq!(x.dims(), g.dims());
        let (x0, g) = (numbers(x), numbers(g));
        let largest = g.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
        let step = x0.len().div_ceil(60).max(1) | 1;
        for j in (0..x0.len()).step_by(step) {
            let at = |h: f64| {
                let mut moved = x0.clone();
                moved[j] += h;
                let mut all = inputs.to_vec();
                all[i] = Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap();
                functional(&f(&all).unwrap()).to_scalar::<f64>().unwrap()
            };
            let h = 1e-5;
            let slope = (at(h) - at(-h)) / (2.0 * h);
            assert!((slope - g[j]).abs() < 1e-6 * largest, "input {i}, element {j}: gradient {} but slope {slope}", g[j]);
        }
    }
}
