//! The operations for CUDA against their references: on the host through the emulator, and on a GPU where the build and the
//! machine have one (`just test-cuda`).

use super::super::check::{distance, random};
use super::super::{Activation, ConvKind, DownsamplePadding};
use super::emulator::{stand_aside, standing_in};
use super::{DeviceExamples, DeviceProcess, DeviceWeights, Placed};
use crate::data::{Shape, Stored};
use crate::diffusion::Coefficients;
use crate::ops;
use crate::optim::{AdamW, Weights};
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use candle_core::{DType, Device, Result, Shape as TensorShape, Tensor, Var};

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
    for shape in [vec![3, 5, 7], vec![2, 4, 33], vec![300, 5], vec![40], vec![1, 600]] {
        let c = shape[shape.len() - 1];
        let inputs = vec![random(&shape, 1), random(&[c], 2), random(&[c], 3)];
        case(format!("layer_norm {shape:?}"), inputs, Box::new(|t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)));
    }
    for (b, n, c) in [(3, 5, 7), (1, 1, 2), (2, 16, 33)] {
        let inputs = vec![random(&[b, n, c], 1), random(&[b, c], 2), random(&[n + 1, c], 3)];
        case(format!("tokens {:?}", (b, n, c)), inputs, Box::new(|t| ops::tokens(&t[0], &t[1], &t[2])));
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
    // So many tiles that a GPU takes the kernels that a small image leaves to cuDNN.
    let [b, h, w, c_in, c_out] = [33, 9, 17, 36, 40];
    let inputs = vec![random(&[b, h, w, c_in], 1), random(&[c_out, 3, 3, c_in], 2), random(&[c_out], 3)];
    case("conv2d of many tiles".into(), inputs, Box::new(|t| ops::conv2d(&t[0], &t[1], &t[2], ConvKind::Same)));
    cases
}

/// The output and the gradients of a fixed linear functional of it, in f64 on the host.
fn value_and_gradients(inputs: &[Tensor], device: &Device, dtype: DType, f: &Function) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap().to_device(device).unwrap()).unwrap()).collect();
    let (y, tape) = ops::record(|| f(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>())).unwrap();
    let weights = random(y.dims(), 999).to_dtype(dtype).unwrap().to_device(device).unwrap();
    let grads = tape.backward(&y, weights).unwrap();
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

fn draw(process: &DeviceProcess, examples: &DeviceExamples, samples: &[Placed]) -> Result<super::Drawn> {
    process.draw(examples, &Tensor::from_vec(process.places(examples, samples)?, (samples.len(), 8), examples.device())?)
}

fn noise_has_the_bits_of_the_host(device: &Device) {
    for (samples, shape, levels) in [(1, (1, 1, 1), 0), (3, (1, 1, 2), 0), (5, (41, 11, 3), 17), (2, (4, 5, 3), 256)] {
        let shape = Shape { height: shape.0, width: shape.1, channels: shape.2 };
        let dims = shape.dims();
        let scaled: Vec<f32> = (0..levels).map(|v| 2.0 * v as f32 / (levels - 1) as f32 - 1.0).collect();
        let bytes: Vec<u8> = (0..7 * dims).map(|i| (i * 37 % levels.max(1)) as u8).collect();
        let reals: Vec<f32> = (0..7 * dims).map(|i| (i as f32).sin()).collect();
        let stored = if levels > 0 { Stored::Levels { bytes: &bytes, scaled: &scaled } } else { Stored::Real(&reals) };
        let pairs: Vec<[f32; 2]> = (0..9).map(|t| [0.1 + 0.17 * t as f32, 0.9 - 0.05 * t as f32]).collect();
        let rows = vec![[0.0; Coefficients::ROW]; 9];
        let process =
            DeviceProcess::new(device, Coefficients { pairs: pairs.clone(), rows, learned: false, levels: 0, erf: false, clip: false })
                .unwrap();
        let placed: Vec<Placed> = (0..samples)
            .map(|i| Placed {
                example: 6 - i,
                mirrored: i % 2 == 1,
                t: Timestep::from_index(2 * i),
                stream: stream(9 << 40 | 5, Purpose::Noise, 77 + i as u32).lane(3),
                sample: 20 + i as u32,
            })
            .collect();
        let batch = draw(&process, &DeviceExamples::new(device, shape, stored).unwrap(), &placed).unwrap();
        let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let home = |t: &Tensor| bits(&t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let (mut x_0, mut noise, mut x_t) = (vec![], vec![], vec![]);
        for s in &placed {
            let at = s.example * dims..(s.example + 1) * dims;
            let mut x = if levels > 0 { bytes[at].iter().map(|&v| scaled[usize::from(v)]).collect() } else { reals[at].to_vec() };
            if s.mirrored {
                crate::data::mirror(shape, &mut x);
            }
            let mut e = vec![0.0; dims];
            s.stream.normals(s.sample, &mut e);
            let [a, b] = pairs[s.t.index()];
            x_t.extend(x.iter().zip(&e).map(|(x, e)| a * x + b * e));
            x_0.extend(x);
            noise.extend(e);
        }
        assert!(home(&batch.noise) == bits(&noise), "noise of {samples} × {dims}");
        assert!(home(&batch.x_0) == bits(&x_0), "examples of {samples} × {dims}");
        assert!(home(&batch.x_t) == bits(&x_t), "x_t of {samples} × {dims}");
        let beyond = Placed { example: 7, ..placed[0] };
        assert!(draw(&process, &DeviceExamples::new(device, shape, stored).unwrap(), &[beyond]).is_err());
    }
}

#[test]
fn emulated_updates_are_those_of_the_host() {
    standing_in(|| updates_are_those_of_the_host(&Device::Cpu, DType::F32));
    standing_in(|| updates_are_those_of_the_host(&Device::Cpu, DType::BF16));
}

/// Several updates by the same gradients (rounded to bf16 where the network computes in it), one of which is not finite.
fn updates_are_those_of_the_host(device: &Device, dtype: DType) {
    let shapes: Vec<TensorShape> = [vec![3, 5], vec![1], vec![2500], vec![7, 1, 1, 3]].into_iter().map(TensorShape::from).collect();
    let total: usize = shapes.iter().map(TensorShape::elem_count).sum();
    let numbers = |lane| random(&[total], lane).to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let adamw = AdamW { lr: 0.1, warmup: 3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1, grad_clip: 40.0, ema: 0.5 };
    let mut host = Weights::new(numbers(1));
    let buffers = [&host.raw, &host.ema, &host.first_moment, &host.second_moment].map(|b| b.as_slice());
    let ours = DeviceWeights::new(device, dtype, &shapes, buffers).unwrap();
    let norms = Tensor::zeros(7, DType::F64, device).unwrap();
    for step in 0..7 {
        let mut gradient: Vec<f32> = numbers(2 + step).iter().map(|g| g * (1.0 + step as f32 / 4.0)).collect();
        gradient = Tensor::new(gradient, &Device::Cpu).unwrap().to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
        gradient[15] = 0.0; // The whole of the second parameter: the loss does not depend on it.
        if step == 4 {
            gradient[16] = f32::NAN;
        }
        let (mut parts, mut place) = (vec![], 0);
        for (i, shape) in shapes.iter().enumerate() {
            let part = Tensor::from_slice(&gradient[place..place + shape.elem_count()], shape, device).unwrap().to_dtype(dtype).unwrap();
            parts.push((i != 1).then_some(part));
            place += shape.elem_count();
        }
        ours.set_constants(&adamw.constants(step + 1)).unwrap();
        ours.update(adamw.grad_clip, &parts, &norms.narrow(0, step as usize, 1).unwrap()).unwrap();
        // The host stops there; what a device was told to do afterwards changes nothing.
        let norm = if host.step == step { host.update(&adamw, &gradient) } else { f64::INFINITY };
        let said = norms.to_vec1::<f64>().unwrap()[step as usize];
        assert!(
            step > 4 || (step == 4 && !said.is_finite() && !norm.is_finite()) || (said / norm - 1.0).abs() < 1e-12,
            "{step}: {said} {norm}"
        );
    }
    assert_eq!(host.step, 4);
    let theirs = [&host.raw, &host.ema, &host.first_moment, &host.second_moment];
    for (which, (a, b)) in ours.download().unwrap().iter().zip(theirs).enumerate() {
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(0.1)).fold(0.0, f32::max);
        assert!(off < 1e-6, "buffer {which} is {off} off");
    }
    let working = Tensor::cat(&ours.working().iter().map(|w| w.flatten_all().unwrap()).collect::<Vec<_>>(), 0).unwrap();
    let working = working.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let rounded = Tensor::new(host.raw.clone(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
    let tolerance = if dtype == DType::BF16 { 8e-3 } else { 1e-6 };
    for (a, b) in working.iter().zip(rounded.to_vec1::<f32>().unwrap()) {
        assert!((a - b).abs() <= tolerance * b.abs().max(0.1), "what the network reads: {a} {b}");
    }
}

/// Needs NVRTC, no GPU.
#[cfg(feature = "cuda")]
#[test]
fn every_module_compiles_for_the_capabilities_of_ten_years() {
    // The oldest that CUDA 13 knows, A100, H100, and the newest with desktop cards.
    for capability in [(7, 5), (8, 0), (9, 0), (12, 0)] {
        for (module, (dtype, ..)) in super::source::MODULES.iter().enumerate() {
            for (unit, (name, texts)) in super::source::UNITS.iter().enumerate() {
                let ptx = super::driver::compile(unit, module, capability)
                    .unwrap_or_else(|log| panic!("{name} in {dtype} for {capability:?}:\n{log}"));
                for (kernel, _) in texts.iter().flat_map(|text| super::source::kernels(text)) {
                    assert!(ptx.contains(&format!(".entry {kernel}(")), "{name} in {dtype} for {capability:?} lacks {kernel}");
                }
            }
        }
    }
}

/// `just test-cuda`: the same on a GPU.
#[cfg(feature = "cuda")]
mod on_a_gpu {
    use super::*;

    fn device() -> Device {
        super::super::open(0).unwrap_or_else(|e| panic!("these tests need a GPU: {e}"))
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_operations_agree_with_those_of_the_cpu() {
        // cuBLAS and cuDNN sum in their own order.
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-5), (DType::BF16, 4e-2)] {
            agree_on(&device(), dtype, tolerance);
        }
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_gives_the_same_bits_twice() {
        let device = device();
        for (name, inputs, f) in cases() {
            let [a, b] = [(); 2].map(|()| value_and_gradients(&inputs, &device, DType::F32, &f));
            assert!(a.iter().zip(&b).all(|(a, b)| distance(a, b) == 0.0), "{name}");
        }
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_noise_has_the_bits_of_the_host() {
        noise_has_the_bits_of_the_host(&device());
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_updates_are_those_of_the_host() {
        let device = device();
        updates_are_those_of_the_host(&device, DType::F32);
        updates_are_those_of_the_host(&device, DType::BF16);
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_rounds_to_tf32_where_allowed() {
        let device = device();
        let [a, b] = [1, 2].map(|lane| random(&[256, 256], lane).to_dtype(DType::F32).unwrap().to_device(&device).unwrap());
        let product = || a.matmul(&b).unwrap().to_device(&Device::Cpu).unwrap();
        super::super::allow_tf32(true);
        let rounded = product();
        super::super::allow_tf32(false);
        let exact = product();
        let off = distance(&rounded, &exact);
        assert!(off > 1e-5 && off < 1e-2, "{off}");
    }
}
