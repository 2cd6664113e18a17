//! How the networks are checked: against another program's numbers (`tests/reference`), and against finite differences.

use super::{Dropout, Model};
use crate::ops::check::{differences, distance, random};
use crate::ops::record;
use crate::units::Timestep;
use candle_core::{Device, Tensor};
use std::path::Path;

/// A fixture's tensors by name: a file of `tests/reference`.
pub(super) struct Fixture(Vec<u8>);

impl Fixture {
    pub(super) fn read(name: &str) -> Self {
        Self(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)).unwrap())
    }

    pub(super) fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).ok()?;
        let four_bytes = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        let eight_bytes = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap()) as f32;
        let numbers = match view.dtype() {
            safetensors::Dtype::F32 => view.data().chunks(4).map(four_bytes).collect(),
            safetensors::Dtype::I64 => view.data().chunks(8).map(eight_bytes).collect(),
            other => panic!("{other:?}"),
        };
        Some((view.shape().to_vec(), numbers))
    }

    /// An image tensor, from NCHW to NHWC.
    pub(super) fn image(&self, name: &str) -> Tensor {
        let (shape, numbers) = self.get(name).unwrap();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    }
}

fn relative_l2(got: &[f32], want: &[f32], floor: f64) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / (norm(&mut want.iter().map(|v| f64::from(*v))) + floor)
}

/// Demands the parameters, the output and the gradients of a fixture.
pub(super) fn agrees_with_fixture(file: &str, model: &Model) {
    let fixture = Fixture::read(file);
    let layout = model.layout();
    let flat = layout.from_disk(|name| fixture.get(&format!("param.{name}"))).unwrap();
    let in_file = safetensors::SafeTensors::deserialize(&fixture.0).unwrap().names().iter().filter(|n| n.starts_with("param.")).count();
    assert_eq!(layout.len(), in_file, "the network has the reference's parameters and no others");

    let params = layout.tensors(&flat, &Device::Cpu, true).unwrap();
    let x = candle_core::Var::from_tensor(&fixture.image("x")).unwrap();
    let t: Vec<Timestep> = fixture.get("t").unwrap().1.iter().map(|t| Timestep::from_index(*t as usize)).collect();
    let y = model.forward(&params, &x, &t, None).unwrap();
    let off = distance(&y, &fixture.image("y"));
    assert!(off < 1e-5, "output is {off} off");

    let grads = (y * fixture.image("weight")).unwrap().sum_all().unwrap().backward().unwrap();
    let off = distance(grads.get(&x).unwrap(), &fixture.image("grad_x"));
    assert!(off < 1e-4, "gradient of the input is {off} off");
    // Those of the parameters as training has them.
    let (y, tape) = record(|| model.forward(&params, &fixture.image("x"), &t, None)).unwrap();
    let slopes = tape.backward(&y, fixture.image("weight")).unwrap();
    let mut got = vec![0.0_f32; layout.total()];
    layout.add_gradients(&params, &slopes, &mut got).unwrap();
    let want = layout.from_disk(|name| fixture.get(&format!("grad.{name}"))).unwrap();
    // A gradient that is 0 but for rounding (of the keys' bias) is compared with the size of the whole.
    let floor = 1e-2 * want.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() / (layout.len() as f64).sqrt();
    for spec in layout.specs() {
        let off = relative_l2(&got[spec.range()], &want[spec.range()], floor);
        assert!(off < 1e-4, "gradient of {} is {off} off", spec.name);
    }
}

/// Demands that the gradients of the input and of three elements of each parameter agree with central differences in f64.
pub(super) fn agrees_with_differences(model: &Model, x: &Tensor, t: &[Timestep], dropout: Option<Dropout>) {
    let layout = model.layout();
    let flat: Vec<f64> = layout.init(1).iter().map(|v| f64::from(*v)).collect();
    let detached = layout.tensors(&flat, &Device::Cpu, false).unwrap();
    differences(std::slice::from_ref(x), |x| model.forward(&detached, &x[0], t, dropout));

    let loss = |flat: &[f64]| {
        let params = layout.tensors(flat, &Device::Cpu, false).unwrap();
        let y = model.forward(&params, x, t, dropout).unwrap();
        (&y * random(y.dims(), 5)).unwrap().sum_all().unwrap()
    };
    let params = layout.tensors(&flat, &Device::Cpu, true).unwrap();
    let (y, tape) = record(|| model.forward(&params, x, t, dropout)).unwrap();
    let mut grad = vec![0.0; flat.len()];
    layout.add_gradients(&params, &tape.backward(&y, random(y.dims(), 5)).unwrap(), &mut grad).unwrap();
    // Three elements of each parameter.
    for spec in layout.specs() {
        let len = spec.len();
        for i in [0, len / 2, len - 1].map(|i| spec.offset + i) {
            let at = |h: f64| {
                let mut moved = flat.clone();
                moved[i] += h;
                loss(&moved).to_scalar::<f64>().unwrap()
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - grad[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{}: {} but {slope}", spec.name, grad[i]);
        }
    }
}
