//! The operations for CUDA against their references: on the host through the emulator, and on a GPU where the build and the
//! machine have one (`just test-cuda`).

use super::super::check::{distance, numbers, random};
use super::super::{Activation, ConvKind, DownsamplePadding};
use super::emulator::{stand_aside, standing_in};
use super::training::{DeviceWeights, Update, diffuse, simple_slope};
use crate::ops;
use crate::optim::{AdamW, Weights};
use crate::rng::{Purpose, stream};
use candle_core::{DType, Device, Result, Shape, Tensor, Var};

const KINDS: [ConvKind; 4] =
    [ConvKind::Pointwise, ConvKind::Same, ConvKind::Down(DownsamplePadding::AllRound), ConvKind::Down(DownsamplePadding::BottomRight)];

type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Every differentiable operation with inputs that find its corners.
fn cases() -> Vec<(String, Vec<Tensor>, Function)> {
    let mut cases: Vec<(String, Vec<Tensor>, Function)> = Vec::new();
    let mut case = |name: String, inputs: Vec<Tensor>, f: Function| cases.push((name, inputs, f));
    for shape in [vec![1], vec![3, 5, 7, 2], vec![4, 133]] {
        case(format!("silu {shape:?}"), vec![random(&shape, 1)], Box::new(|t| ops::silu(&t[0])));
        case(
            format!("dropout {shape:?}"),
            vec![random(&shape, 1)],
            Box::new(|t| ops::dropout(&t[0], 0.3, stream(3, Purpose::Dropout, 5).lane(2), 4)),
        );
    }
    for (shape, c) in [(vec![3, 5, 7, 3], 3), (vec![2, 17], 17), (vec![1, 4, 4, 40], 40), (vec![2, 300, 2], 2)] {
        let inputs = vec![random(&shape, 1), random(&[shape[0], c], 2)];
        case(format!("add_channels {shape:?}"), inputs, Box::new(|t| ops::add_channels(&t[0], &t[1])));
    }
    for (front, c_a, c_b) in [(vec![3, 5, 7], 3, 2), (vec![1, 2], 16, 33), (vec![4], 1, 1)] {
        let shape = |c: usize| [front.clone(), vec![c]].concat();
        let inputs = vec![random(&shape(c_a), 1), random(&shape(c_b), 2)];
        case(format!("concat {front:?} {c_a} {c_b}"), inputs, Box::new(|t| ops::concat(&t[0], &t[1])));
    }
    case("concat with itself".into(), vec![random(&[2, 3, 4], 1)], Box::new(|t| ops::concat(&t[0], &t[0])));
    for shape in [[3, 5, 7, 3], [1, 1, 2, 17], [2, 4, 4, 16]] {
        case(format!("upsample2x {shape:?}"), vec![random(&shape, 1)], Box::new(|t| ops::upsample2x(&t[0])));
    }
    for activation in [Activation::None, Activation::Silu] {
        for (shape, groups) in
            [(vec![3, 5, 7, 6], 3), (vec![2, 4, 3, 40], 8), (vec![1, 9, 20], 1), (vec![2, 3, 2, 24], 24), (vec![5, 1, 33], 1)]
        {
            let c = shape[shape.len() - 1];
            let inputs = vec![random(&shape, 1), random(&[c], 2), random(&[c], 3)];
            case(
                format!("group_norm {shape:?} {groups} {activation:?}"),
                inputs,
                Box::new(move |t| ops::group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation)),
            );
        }
        for (shape, n_out) in [(vec![3, 5, 7, 3], 6), (vec![1, 17], 33), (vec![4], 2), (vec![9, 16], 1)] {
            let n_in = shape[shape.len() - 1];
            let inputs = vec![random(&shape, 1), random(&[n_out, n_in], 2), random(&[n_out], 3)];
            case(
                format!("linear {shape:?} {n_out} {activation:?}"),
                inputs,
                Box::new(move |t| ops::linear(&t[0], &t[1], &t[2], activation)),
            );
        }
    }
    for (shape, heads) in [(vec![3, 5, 7, 6], 1), (vec![2, 19, 12], 3), (vec![1, 4, 4, 16], 2), (vec![2, 1, 3], 1), (vec![1, 300, 2], 1)] {
        let inputs = vec![random(&shape, 1), random(&shape, 2), random(&shape, 3)];
        case(format!("attention {shape:?} {heads}"), inputs, Box::new(move |t| ops::attention(&t[0], &t[1], &t[2], heads)));
    }
    case("attention of itself".into(), vec![random(&[2, 5, 8], 1)], Box::new(|t| ops::attention(&t[0], &t[0], &t[0], 2)));
    for kind in KINDS {
        for [b, h, w, c_in, c_out] in [[3, 5, 7, 3, 5], [1, 8, 4, 16, 17], [2, 3, 2, 1, 4], [5, 6, 4, 2, 1]] {
            for per_sample in [false, true] {
                let k = if kind == ConvKind::Pointwise { 1 } else { 3 };
                let bias = if per_sample { vec![b, c_out] } else { vec![c_out] };
                let inputs = vec![random(&[b, h, w, c_in], 1), random(&[c_out, k, k, c_in], 2), random(&bias, 3)];
                case(
                    format!("conv2d {kind:?} {:?} {per_sample}", [b, h, w, c_in, c_out]),
                    inputs,
                    Box::new(move |t| ops::conv2d(&t[0], &t[1], &t[2], kind)),
                );
            }
        }
    }
    cases
}

/// The output and the gradients of a fixed linear functional of it, in f64 on the host.
fn value_and_gradients(inputs: &[Tensor], device: &Device, dtype: DType, f: &Function) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap().to_device(device).unwrap()).unwrap()).collect();
    let y = f(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>()).unwrap();
    let weights = random(y.dims(), 999).to_dtype(dtype).unwrap().to_device(device).unwrap();
    let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let home = |t: &Tensor| t.detach().to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    std::iter::once(home(&y)).chain(vars.iter().map(|v| home(grads.get(v).expect("every input has a gradient")))).collect()
}

fn agree_on(device: &Device, dtype: DType, tolerance: f64) {
    for (name, inputs, f) in cases() {
        let ours = value_and_gradients(&inputs, device, dtype, &f);
        let cpu = stand_aside(|| value_and_gradients(&inputs, &Device::Cpu, DType::F64, &f));
        for (i, (a, b)) in ours.iter().zip(&cpu).enumerate() {
            let off = distance(a, b);
            assert!(
                off < tolerance,
                "{name}, {dtype:?}: {} is {off} off the CPU's",
                if i == 0 { "the output".into() } else { format!("gradient {i}") }
            );
        }
    }
}

/// The types and how far they may be off the CPU's f64: rounding of a few hundred sums and, in bf16, of every result.
const TYPES: [(DType, f64); 3] = [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::BF16, 4e-2)];

#[test]
fn emulated_operations_agree_with_those_of_the_cpu() {
    standing_in(|| TYPES.iter().for_each(|&(dtype, tolerance)| agree_on(&Device::Cpu, dtype, tolerance)));
}

#[test]
fn emulated_noise_has_the_bits_of_the_host() {
    standing_in(|| noise_has_the_bits_of_the_host(&Device::Cpu));
}

fn noise_has_the_bits_of_the_host(device: &Device) {
    for (samples, dims) in [(1, 1), (3, 2), (5, 4099)] {
        let normals = stream(9 << 40 | 5, Purpose::Noise, 77).lane(3);
        let mut want = vec![0.0_f32; samples * dims];
        for (sample, want) in (20..).zip(want.chunks_exact_mut(dims)) {
            normals.normals(sample, want);
        }
        let x_0 = random(&[samples, dims], 1).to_dtype(DType::F32).unwrap();
        let pairs: Vec<f32> = (0..2 * samples).map(|i| 0.1 + 0.17 * i as f32).collect();
        let on_device = |t: &Tensor| t.to_device(device).unwrap();
        let table = Tensor::from_slice(&pairs, (samples, 2), device).unwrap();
        let diffused = diffuse(&on_device(&x_0), &table, normals, 20).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&diffused.noise) == want.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), "noise of {samples} × {dims}");
        let x_0 = x_0.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let x_t: Vec<u32> =
            (0..want.len()).map(|i| (pairs[2 * (i / dims)] * x_0[i] + pairs[2 * (i / dims) + 1] * want[i]).to_bits()).collect();
        assert!(bits(&diffused.x_t) == x_t, "x_t of {samples} × {dims}");
    }
}
