//! The U-Net against diffusers (fixtures of `tests/reference/unet2d.py`), against differences, and its refusals.

use super::super::check::{Fixture, agrees_with_differences, agrees_with_fixture};
use super::super::{Init, Model, ModelKind, TimeEmbedding};
use super::*;
use crate::ops::check::{distance, numbers, random};
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use candle_core::{DType, Device};

fn spec(channels: &[u32]) -> ModelSpec {
    ModelSpec {
        kind: ModelKind::UNet2d,
        channels: channels.to_vec(),
        patch: 1,
        depth: 1,
        mlp_ratio: 1,
        fourier: 0,
        layers_per_block: 1,
        attention: vec![],
        mid_attention: true,
        head_channels: 0,
        norm_groups: 2,
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

fn refusal(spec: &ModelSpec, shape: Shape) -> String {
    Model::new(spec, shape, 1).map(|_| ()).unwrap_err().to_string()
}

fn agrees_with_diffusers(file: &str, spec: &ModelSpec, shape: Shape, out: usize) {
    agrees_with_fixture(file, &build(spec, shape, out));
}

#[test]
fn ddpm_style_network_computes_and_differentiates_as_diffusers_does() {
    let spec = ModelSpec { layers_per_block: 2, attention: vec![4], ..spec(&[4, 8]) };
    agrees_with_diffusers("unet2d_ddpm.safetensors", &spec, shape(8, 8, 1), 1);
}

#[test]
fn default_style_network_computes_and_differentiates_as_diffusers_does() {
    let spec = ModelSpec {
        attention: vec![8],
        head_channels: 4,
        norm_eps: 1e-5,
        downsample_padding: 1,
        time_embedding: TimeEmbedding::Improved,
        ..spec(&[8, 8])
    };
    agrees_with_diffusers("unet2d_default.safetensors", &spec, shape(8, 12, 2), 4);
}

#[test]
fn network_without_attention_computes_and_differentiates_as_diffusers_does() {
    let spec = ModelSpec { mid_attention: false, norm_groups: 4, ..spec(&[4, 8, 4]) };
    agrees_with_diffusers("unet2d_plain.safetensors", &spec, shape(8, 8, 1), 1);
}

#[test]
fn options_that_change_the_function_change_the_output() {
    let fixture = Fixture::read("unet2d_ddpm.safetensors");
    let right = ModelSpec { layers_per_block: 2, attention: vec![4], ..spec(&[4, 8]) };
    let x = fixture.image("x");
    let t = [0, 36, 998].map(Timestep::from_index);
    let run = |spec: &ModelSpec| {
        let model = build(spec, shape(8, 8, 1), 1);
        let flat = model.layout().from_disk(|name| fixture.get(&format!("param.{name}"))).unwrap();
        model.forward(&model.layout().tensors(&flat, &Device::Cpu, false).unwrap(), &x, &t, None).unwrap()
    };
    let y = run(&right);
    for wrong in [
        ModelSpec { downsample_padding: 1, ..right.clone() },
        ModelSpec { head_channels: 2, ..right.clone() },
        ModelSpec { norm_groups: 4, ..right.clone() },
        ModelSpec { norm_eps: 0.1, ..right.clone() },
        ModelSpec { time_embedding: TimeEmbedding::Improved, ..right.clone() },
    ] {
        assert!(distance(&run(&wrong), &y) > 1e-3, "{wrong:?}");
    }
}

#[test]
fn parameter_counts_are_those_of_published_networks() {
    let published = |channels: &[u32], attention: &[u32], image: usize| {
        let spec = ModelSpec { layers_per_block: 2, attention: attention.to_vec(), norm_groups: 32, ..spec(channels) };
        let model = build(&spec, shape(image, image, 3), 3);
        (model.layout().len(), model.layout().total())
    };
    // google/ddpm-cifar10-32 and google/ddpm-cat-256.
    assert_eq!(published(&[128, 256, 256, 256], &[16], 32), (328, 35_746_307));
    assert_eq!(published(&[128, 128, 256, 256, 512, 512], &[16], 256), (450, 113_673_219));
    assert_eq!(published(&[32, 64, 64, 64], &[16], 32).1, 2_245_763);
    assert_eq!(published(&[64, 128, 128, 128], &[16], 32).1, 8_952_067);
    assert_eq!(published(&[32, 64], &[16], 32).1, 1_002_883);
}

/// A network in which everything occurs, small enough to check in f64.
fn small() -> (Model, Shape) {
    let spec = ModelSpec { attention: vec![4], head_channels: 2, dropout: 0.2, init: Init::Torch, ..spec(&[4, 6]) };
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
}

#[test]
fn output_starts_at_exactly_zero_under_ddpm() {
    let model = build(&ModelSpec { attention: vec![4], ..spec(&[4, 6]) }, shape(8, 8, 3), 6);
    let params = model.layout().tensors(&model.layout().init(9), &Device::Cpu, false).unwrap();
    let x = random(&[2, 8, 8, 3], 1).to_dtype(DType::F32).unwrap();
    let y = model.forward(&params, &x, &[Timestep::FIRST; 2], None).unwrap();
    assert_eq!(y.dims(), [2, 8, 8, 6]);
    assert!(numbers(&y).iter().all(|v| *v == 0.0));
}

#[test]
fn starting_values_have_the_bounds_of_each_style() {
    let bound = |init: Init, name: &str| {
        let model = build(&ModelSpec { init, attention: vec![4], ..spec(&[4, 6]) }, shape(8, 8, 1), 1);
        let flat = model.layout().init(1);
        let spec = model.layout().specs().iter().find(|s| s.name == name).unwrap();
        f64::from(flat[spec.range()].iter().fold(0.0_f32, |m, v| m.max(v.abs())))
    };
    for name in ["conv_out.weight", "mid_block.resnets.1.conv2.weight", "mid_block.attentions.0.to_out.0.weight", "conv_in.bias"] {
        assert_eq!(bound(Init::Ddpm, name), 0.0, "{name}");
        assert!(bound(Init::Torch, name) > 0.0, "{name}");
    }
    let near = |got: f64, want: f64| assert!(got <= want && got > 0.8 * want, "{got} is not just below {want}");
    near(bound(Init::Ddpm, "down_blocks.1.resnets.0.conv1.weight"), (6.0_f64 / (9.0 * (4.0 + 6.0))).sqrt());
    near(bound(Init::Torch, "down_blocks.1.resnets.0.conv1.weight"), 1.0 / 6.0);
    assert_eq!(bound(Init::Torch, "conv_norm_out.weight"), 1.0);
}

#[test]
fn operations_are_counted() {
    // FLOPs of a forward pass of the network whose step was profiled: 26.7 GFLOP for 32 images.
    let spec = ModelSpec { layers_per_block: 2, attention: vec![16], norm_groups: 8, ..spec(&[32, 64, 64]) };
    let model = build(&spec, shape(32, 32, 1), 1);
    let per_batch = 32.0 * model.forward_flops() as f64;
    assert!((per_batch / 26.7e9 - 1.0).abs() < 0.01, "{per_batch}");
}

#[test]
fn impossible_options_are_refused_with_what_is_allowed() {
    let square = shape(8, 8, 1);
    for (spec, shape, words) in [
        (spec(&[4, 6, 8]), shape(6, 8, 1), ["model.channels", "cannot be divided by 4"]),
        (spec(&[6, 5]), square, ["model.norm_groups", "5 channels"]),
        (spec(&[5]), square, ["model.channels", "even"]),
        (ModelSpec { attention: vec![16], ..spec(&[4, 6]) }, square, ["model.attention", "[8, 4]"]),
        (ModelSpec { norm_groups: 4, ..spec(&[4, 6]) }, square, ["model.norm_groups", "6 channels of `down_blocks.1"]),
        (ModelSpec { norm_groups: 0, ..spec(&[4]) }, square, ["model.norm_groups", "divide"]),
        (ModelSpec { head_channels: 4, ..spec(&[4, 6]) }, square, ["model.head_channels", "divide the 6 channels"]),
        (ModelSpec { layers_per_block: 0, ..spec(&[4]) }, square, ["model.layers_per_block", "at least 1"]),
        (ModelSpec { dropout: 1.0, ..spec(&[4]) }, square, ["model.dropout", "below 1"]),
        (ModelSpec { norm_eps: f64::NAN, ..spec(&[4]) }, square, ["model.norm_eps", "positive"]),
        (ModelSpec { downsample_padding: 2, ..spec(&[4]) }, square, ["model.downsample_padding", "0 (right and bottom)"]),
    ] {
        let message = refusal(&spec, shape);
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    }
    let model = build(&spec(&[4]), square, 1);
    let params = model.layout().tensors(&model.layout().init(0), &Device::Cpu, false).unwrap();
    let x = random(&[2, 8, 4, 1], 1).to_dtype(DType::F32).unwrap();
    assert!(model.forward(&params, &x, &[Timestep::FIRST; 2], None).unwrap_err().to_string().contains("[2, 8, 8, 1]"));
}
