//! The transformer against plain PyTorch (fixtures of `tests/reference/transformer.py`), against differences, and its
//! refusals.

use super::super::check::{Fixture, agrees_with_differences, agrees_with_fixture};
use super::super::{Init, Model, ModelKind, TimeEmbedding};
use super::*;
use crate::ops::check::{distance, numbers, random};
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use candle_core::{DType, Device};

fn spec(width: u32, patch: u32, depth: u32) -> ModelSpec {
    ModelSpec {
        kind: ModelKind::Transformer,
        channels: vec![width],
        patch,
        depth,
        mlp_ratio: 2,
        fourier: 0,
        layers_per_block: 1,
        attention: vec![],
        mid_attention: false,
        head_channels: 4,
        norm_groups: 1,
        norm_eps: 1e-6,
        dropout: 0.0,
        downsample_padding: 0,
        time_embedding: TimeEmbedding::Ddpm,
        init: Init::Ddpm,
    }
}

fn shape(height: usize, width: usize, channels: usize) -> Shape {
    Shape { height, width, channels }
}

fn build(spec: &ModelSpec, shape: Shape, out: usize) -> Model {
    Model::new(spec, shape, out).unwrap()
}

/// The network of `transformer_odd.safetensors`.
fn odd() -> ModelSpec {
    spec(12, 2, 5)
}

#[test]
fn network_of_odd_depth_computes_and_differentiates_as_pytorch_does() {
    agrees_with_fixture("transformer_odd.safetensors", &build(&odd(), shape(8, 8, 1), 1));
}

#[test]
fn network_of_even_depth_computes_and_differentiates_as_pytorch_does() {
    let spec = ModelSpec { mlp_ratio: 3, head_channels: 0, norm_eps: 1e-3, time_embedding: TimeEmbedding::Improved, ..spec(8, 4, 4) };
    agrees_with_fixture("transformer_even.safetensors", &build(&spec, shape(4, 8, 3), 6));
}

#[test]
fn options_that_change_the_function_change_the_output() {
    let fixture = Fixture::read("transformer_odd.safetensors");
    let x = fixture.image("x");
    let t = [0, 36, 998].map(Timestep::from_index);
    let run = |spec: &ModelSpec| {
        let model = build(spec, shape(8, 8, 1), 1);
        let flat = model.layout().from_disk(|name| fixture.get(&format!("param.{name}"))).unwrap();
        model.forward(&model.layout().tensors(&flat, &Device::Cpu, false).unwrap(), &x, &t, None).unwrap()
    };
    let y = run(&odd());
    for wrong in [
        ModelSpec { head_channels: 0, ..odd() },
        ModelSpec { norm_eps: 0.1, ..odd() },
        ModelSpec { time_embedding: TimeEmbedding::Improved, ..odd() },
    ] {
        assert!(distance(&run(&wrong), &y) > 1e-3, "{wrong:?}");
    }
}

#[test]
fn blocks_of_the_second_half_see_their_partners_and_no_others() {
    let skips = |depth: u32| -> Vec<usize> {
        let model = build(&spec(8, 2, depth), shape(4, 4, 1), 1);
        let has = |i: &usize| model.layout().specs().iter().any(|s| s.name == format!("blocks.{i}.skip.weight"));
        (0..depth as usize).filter(has).collect()
    };
    for (depth, expected) in [(1, vec![]), (2, vec![]), (3, vec![2]), (4, vec![3]), (5, vec![3, 4]), (6, vec![4, 5])] {
        assert_eq!(skips(depth), expected, "{depth} blocks");
    }
}

/// A network in which everything occurs, small enough to check in f64.
fn small() -> (Model, Shape) {
    let spec = ModelSpec { dropout: 0.2, init: Init::Torch, ..spec(8, 2, 3) };
    let shape = shape(4, 6, 1);
    (build(&spec, shape, 2), shape)
}

#[test]
fn gradients_of_the_whole_network_agree_with_differences() {
    let (model, s) = small();
    let x = random(&[2, s.height, s.width, 1], 1);
    let dropout = Dropout { stream: stream(1, Purpose::Dropout, 1), first_sample: 2 };
    agrees_with_differences(&model, &x, &[3, 700].map(Timestep::from_index), Some(dropout));
}

#[test]
fn a_sample_does_not_depend_on_its_micro_batch() {
    let (model, s) = small();
    let params = model.layout().tensors(&model.layout().init(1), &Device::Cpu, false).unwrap();
    let x = random(&[5, s.height, s.width, 1], 1).to_dtype(DType::F32).unwrap();
    let t: Vec<Timestep> = (0..5).map(|i| Timestep::from_index(i * 100)).collect();
    let run = |from: usize, n: usize| {
        let dropout = Dropout { stream: stream(1, Purpose::Dropout, 1), first_sample: 20 + from as u32 };
        model.forward(&params, &x.narrow(0, from, n).unwrap(), &t[from..from + n], Some(dropout)).unwrap()
    };
    let whole = run(0, 5);
    for (from, n) in [(0, 2), (2, 2), (4, 1)] {
        assert!(distance(&run(from, n), &whole.narrow(0, from, n).unwrap()) < 1e-6);
    }
    assert!(distance(&model.forward(&params, &x, &t, None).unwrap(), &whole) > 1e-3, "nothing was dropped");
}

#[test]
fn output_starts_at_exactly_zero_under_ddpm_and_not_under_torch() {
    let x = random(&[2, 8, 8, 3], 1).to_dtype(DType::F32).unwrap();
    for (init, zero) in [(Init::Ddpm, true), (Init::Torch, false)] {
        let model = build(&ModelSpec { init, ..spec(8, 4, 3) }, shape(8, 8, 3), 6);
        let params = model.layout().tensors(&model.layout().init(9), &Device::Cpu, false).unwrap();
        let y = model.forward(&params, &x, &[Timestep::FIRST; 2], None).unwrap();
        assert_eq!(y.dims(), [2, 8, 8, 6]);
        assert_eq!(numbers(&y).iter().all(|v| *v == 0.0), zero);
    }
}

#[test]
fn starting_values_have_the_bounds_of_each_style() {
    let bound = |init: Init, name: &str| {
        let model = build(&ModelSpec { init, ..spec(32, 2, 3) }, shape(8, 8, 1), 1);
        let flat = model.layout().init(1);
        let spec = model.layout().specs().iter().find(|s| s.name == name).unwrap();
        f64::from(flat[spec.range()].iter().fold(0.0_f32, |m, v| m.max(v.abs())))
    };
    for name in ["out.weight", "blocks.1.attn.to_out.weight", "blocks.2.mlp.fc2.weight", "blocks.0.mlp.fc1.bias"] {
        assert_eq!(bound(Init::Ddpm, name), 0.0, "{name}");
        assert!(bound(Init::Torch, name) > 0.0, "{name}");
    }
    let near = |got: f64, want: f64| assert!(got <= want && got > 0.9 * want, "{got} is not just below {want}");
    near(bound(Init::Ddpm, "blocks.2.skip.weight"), (6.0_f64 / 96.0).sqrt());
    near(bound(Init::Torch, "blocks.2.skip.weight"), 1.0 / 8.0);
    near(bound(Init::Ddpm, "pos_embed"), 0.02 * 3.0_f64.sqrt());
    assert_eq!(bound(Init::Torch, "norm_out.weight"), 1.0);
}

#[test]
fn operations_are_those_of_the_matrices() {
    // 2 × 3 patches of 2 × 2 pixels and the timestep: 7 tokens.
    let model = build(&spec(8, 2, 3), shape(4, 6, 3), 6);
    let block = 7 * 8 * 8 * (4 + 2 * 2) + 2 * 7 * 7 * 8;
    let ends = 8 * 32 + 32 * 8 + 6 * 12 * 8 + 7 * 8 * 24;
    assert_eq!(model.forward_flops(), 2 * (3 * block + 7 * 16 * 8 + ends));
}

#[test]
fn impossible_options_are_refused_with_what_is_allowed() {
    let square = shape(8, 8, 1);
    let refused = |spec: ModelSpec, shape: Shape, words: [&str; 2]| {
        let message = Model::new(&spec, shape, 1).map(|_| ()).unwrap_err().to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    };
    refused(spec(8, 2, 3), shape(1, 1, 2), ["model.kind", "points"]);
    refused(ModelSpec { channels: vec![8, 8], ..spec(8, 2, 3) }, square, ["model.channels", "one width"]);
    refused(ModelSpec { channels: vec![], ..spec(8, 2, 3) }, square, ["model.channels", "positive widths"]);
    refused(spec(9, 2, 3), square, ["model.channels", "even"]);
    refused(spec(2, 2, 3), square, ["model.channels", "at least 4"]);
    refused(spec(8, 3, 3), square, ["model.patch", "8 × 8"]);
    refused(spec(8, 2, 3), shape(4, 7, 1), ["model.patch", "4 × 7"]);
    refused(spec(8, 0, 3), square, ["model.patch", "divide"]);
    refused(spec(8, 2, 0), square, ["model.depth", "at least 1"]);
    refused(ModelSpec { mlp_ratio: 0, ..spec(8, 2, 3) }, square, ["model.mlp_ratio", "at least 1"]);
    refused(ModelSpec { head_channels: 3, ..spec(8, 2, 3) }, square, ["model.head_channels", "width of 8"]);
    refused(ModelSpec { norm_eps: f64::NAN, ..spec(8, 2, 3) }, square, ["model.norm_eps", "positive"]);
    refused(ModelSpec { dropout: 1.0, ..spec(8, 2, 3) }, square, ["model.dropout", "below 1"]);

    let model = build(&spec(8, 2, 3), square, 1);
    let params = model.layout().tensors(&model.layout().init(0), &Device::Cpu, false).unwrap();
    let x = random(&[2, 8, 4, 1], 1).to_dtype(DType::F32).unwrap();
    assert!(model.forward(&params, &x, &[Timestep::FIRST; 2], None).unwrap_err().to_string().contains("[2, 8, 8, 1]"));
}
