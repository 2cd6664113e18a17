//! What people are told of values that cannot go together, or not with their data. The snapshots are the specification.

use super::grid_tests::grid;
use super::mistakes::told;

#[test]
fn a_pair_that_a_product_makes_impossible() {
    let text = r#"[grid]
diffusion.variance = ["fixed_small", "learned_range"]
loss.variant = ["hybrid", "vlb"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × loss "hybrid" trains a learned variance, but `diffusion.variance` is "fixed_small"
       ╭─[experiments/test.toml:3:17]
     1 │ [grid]
     2 │ diffusion.variance = ["fixed_small", "learned_range"]
       ·                       ──────┬──────
       ·                             ╰── with this `diffusion.variance`
     3 │ loss.variant = ["hybrid", "vlb"]
       ·                 ────┬───
       ·                     ╰── its bound term reaches the variance only
       ╰────
      help: diffusion.variance = "learned_range", or loss.variant = "vlb"
            [grid] is a product: every value of one axis meets every value of the others
    "#);
}

#[test]
fn a_pair_made_impossible_by_a_default() {
    let text = r#"[grid]
loss.variant = ["vlb", "hybrid"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × loss "hybrid" trains a learned variance, but `diffusion.variance` is "fixed_large"
       ╭─[experiments/test.toml:2:24]
     1 │ [grid]
     2 │ loss.variant = ["vlb", "hybrid"]
       ·                        ────┬───
       ·                            ╰── its bound term reaches the variance only
       ╰────
      help: diffusion.variance = "learned_range", or loss.variant = "vlb"
            `diffusion.variance` is not given; its default is "fixed_large"
    "#);
}

#[test]
fn a_learned_variance_that_nothing_trains() {
    let text = r#"[base]
diffusion.variance = "learned_range"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × variance "learned_range" would get no gradient from loss "simple"
       ╭─[experiments/test.toml:2:22]
     1 │ [base]
     2 │ diffusion.variance = "learned_range"
       ·                      ───────┬───────
       ·                             ╰── never trained
       ╰────
      help: loss.variant = "hybrid" (simple, and the bound for the variance), or a fixed variance
            `loss.variant` is not given; its default is "simple"
    "#);
}

#[test]
fn too_few_timesteps_for_the_schedule() {
    let text = r#"[base]
eval.timesteps = "all"
[grid]
diffusion.schedule = ["linear_scaled", "cosine"]
diffusion.timesteps = [10, 100]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × the last beta of "linear_scaled" is 2 with T = 10, but a beta must be below 1
       ╭─[experiments/test.toml:4:23]
     3 │ [grid]
     4 │ diffusion.schedule = ["linear_scaled", "cosine"]
       ·                       ───────┬───────
       ·                              ╰── 0.02 × 1000 / T, with T = 10
     5 │ diffusion.timesteps = [10, 100]
       ·                        ─┬
       ·                         ╰── with this `diffusion.timesteps`
       ╰────
      help: use at least 21 timesteps, or schedule = "cosine"
            [grid] is a product: every value of one axis meets every value of the others
    "#);
}

#[test]
fn a_network_that_does_not_fit_the_data() {
    let text = r#"[base]
data = "fashion_mnist_small"

[base.model]
channels = [32, 64, 64, 64]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 levels halve the image 3 times, but 28 × 28 is not divisible by 8
       ╭─[experiments/test.toml:5:12]
     1 │ [base]
     2 │ data = "fashion_mnist_small"
       ·        ──────────┬──────────
       ·                  ╰── with this `data.name`
     3 │
     4 │ [base.model]
     5 │ channels = [32, 64, 64, 64]
       ·            ────────┬───────
       ·                    ╰── 4 levels
       ╰────
      help: at most 3 levels for this data
    "#);
}

#[test]
fn channels_that_do_not_split_and_attention_that_does_not_occur() {
    let text = "[base.model]
channels = [12, 20]
attention = [16]
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × 12 channels cannot be split into 8 groups
       ╭─[experiments/test.toml:2:12]
     1 │ [base.model]
     2 │ channels = [12, 20]
       ·            ────┬───
       ·                ╰── with this `model.channels`
     3 │ attention = [16]
       ╰────
      help: model.norm_groups = 4, or channels that are multiples of 8
            `model.norm_groups` is not given; its default is 8

    Error:
      × no feature map of this network is 16 high
       ╭─[experiments/test.toml:3:13]
     1 │ [base.model]
     2 │ channels = [12, 20]
       ·            ────┬───
       ·                ╰── with this `model.channels`
     3 │ attention = [16]
       ·             ──┬─
       ·               ╰── does not occur
       ╰────
      help: its heights are 8 and 4
    "#);
}

#[test]
fn images_only_options_on_points() {
    let text = r#"[base]
data.name = "swiss_roll"
data.flip = true
model = "unet2d"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × points cannot be mirrored
       ╭─[experiments/test.toml:3:13]
     1 │ [base]
     2 │ data.name = "swiss_roll"
       ·             ──────┬─────
       ·                   ╰── with this `data.name`
     3 │ data.flip = true
       ·             ──┬─
       ·               ╰── for images only
     4 │ model = "unet2d"
       ╰────
      help: data.flip = false

    Error:
      × a U-Net needs images, and this data is points
       ╭─[experiments/test.toml:4:9]
     1 │ [base]
     2 │ data.name = "swiss_roll"
       ·             ──────┬─────
       ·                   ╰── with this `data.name`
     3 │ data.flip = true
     4 │ model = "unet2d"
       ·         ────┬───
       ·             ╰── for images only
       ╰────
      help: model.kind = "mlp"
    "#);
}

#[test]
fn a_transformer_that_does_not_fit_the_data() {
    let text = r#"[base]
data = "fashion_mnist_small"

[base.model]
kind = "transformer"
channels = [192, 192]
patch = 5
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × a transformer has one width in all its blocks
       ╭─[experiments/test.toml:6:12]
     4 │ [base.model]
     5 │ kind = "transformer"
       ·        ──────┬──────
       ·              ╰── with this `model.kind`
     6 │ channels = [192, 192]
       ·            ─────┬────
       ·                 ╰── 2 widths
     7 │ patch = 5
       ╰────
      help: model.channels = [192], and `model.depth` for the number of blocks

    Error:
      × 28 × 28 cannot be cut into patches of 5 × 5
       ╭─[experiments/test.toml:2:8]
     1 │ [base]
     2 │ data = "fashion_mnist_small"
       ·        ──────────┬──────────
       ·                  ╰── with this `data.name`
     3 │
       ╰────
       ╭─[experiments/test.toml:7:9]
     6 │ channels = [192, 192]
     7 │ patch = 5
       ·         ┬
       ·         ╰── does not divide the image
       ╰────
      help: model.patch = 1, 2, 4, 7, 14 or 28
    "#);
}

#[test]
fn heads_that_do_not_split_a_transformer() {
    let text = r#"[base.model]
kind = "transformer"
head_channels = 48
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 128 channels cannot be split into heads of 48
       ╭─[experiments/test.toml:3:17]
     2 │ kind = "transformer"
     3 │ head_channels = 48
       ·                 ─┬
       ·                  ╰── does not divide 128
       ╰────
      help: a divisor of the channels, or 0 for one head
    "#);
}

#[test]
fn a_transformer_of_odd_width() {
    let text = "[base.model]
kind = 'transformer'
channels = [33]
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × a transformer cannot be 33 wide: sines and cosines of the timestep share its width
       ╭─[experiments/test.toml:3:12]
     1 │ [base.model]
     2 │ kind = 'transformer'
       ·        ──────┬──────
       ·              ╰── with this `model.kind`
     3 │ channels = [33]
       ·            ──┬─
       ·              ╰── must be even, and at least 4
       ╰────
      help: model.channels = [34]
    "#);
}

#[test]
fn a_transformer_of_points() {
    let text = r#"[base]
data.name = "swiss_roll"
model = "transformer"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × a transformer cuts images into patches, and this data is points
       ╭─[experiments/test.toml:3:9]
     1 │ [base]
     2 │ data.name = "swiss_roll"
       ·             ──────┬─────
       ·                   ╰── with this `data.name`
     3 │ model = "transformer"
       ·         ──────┬──────
       ·               ╰── for images only
       ╰────
      help: model.kind = "mlp"
    "#);
}

#[test]
fn keys_that_a_network_has_no_use_for() {
    let text = r#"[base.model]
kind = "transformer"
attention = [8]
norm_groups = 4

[grid]
model.layers_per_block = [1, 2]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × model "transformer" has no use for `model.attention`
       ╭─[experiments/test.toml:3:13]
     1 │ [base.model]
     2 │ kind = "transformer"
       ·        ──────┬──────
       ·              ╰── with this `model.kind`
     3 │ attention = [8]
       ·             ─┬─
       ·              ╰── for "unet2d" only
     4 │ norm_groups = 4
       ╰────
      help: leave `model.attention` out

    Error:
      × model "transformer" has no use for `model.norm_groups`
       ╭─[experiments/test.toml:4:15]
     1 │ [base.model]
     2 │ kind = "transformer"
       ·        ──────┬──────
       ·              ╰── with this `model.kind`
     3 │ attention = [8]
     4 │ norm_groups = 4
       ·               ┬
       ·               ╰── for "unet2d" only
     5 │
       ╰────
      help: leave `model.norm_groups` out

    Error:
      × model "transformer" has no use for `model.layers_per_block`
       ╭─[experiments/test.toml:2:8]
     1 │ [base.model]
     2 │ kind = "transformer"
       ·        ──────┬──────
       ·              ╰── with this `model.kind`
     3 │ attention = [8]
       ╰────
       ╭─[experiments/test.toml:7:27]
     6 │ [grid]
     7 │ model.layers_per_block = [1, 2]
       ·                           ┬
       ·                           ╰── for "unet2d" only
       ╰────
      help: leave `model.layers_per_block` out
    "#);
}

#[test]
fn keys_of_one_network_beside_an_axis_of_networks() {
    let text = r#"[base]
model.depth = 3

[grid]
model.kind = ["transformer", "unet2d"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × model "unet2d" has no use for `model.depth`
       ╭─[experiments/test.toml:2:15]
     1 │ [base]
     2 │ model.depth = 3
       ·               ┬
       ·               ╰── for "transformer" only
     3 │
     4 │ [grid]
     5 │ model.kind = ["transformer", "unet2d"]
       ·                              ────┬───
       ·                                  ╰── with this `model.kind`
       ╰────
      help: leave `model.depth` out
    "#);
}

#[test]
fn counts_beyond_the_data() {
    let text = "[base.train]
batch_size = 4096
micro_batch = 8192

[base.eval]
test_images = 1000
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × a batch of 4096 is more than the 1445 training examples
       ╭─[experiments/test.toml:2:14]
     1 │ [base.train]
     2 │ batch_size = 4096
       ·              ──┬─
       ·                ╰── larger than the data
     3 │ micro_batch = 8192
       ╰────
      help: at most 1445

    Error:
      × a micro-batch of 8192 is more than the batch of 4096
       ╭─[experiments/test.toml:3:15]
     1 │ [base.train]
     2 │ batch_size = 4096
       ·              ──┬─
       ·                ╰── with this `train.batch_size`
     3 │ micro_batch = 8192
       ·               ──┬─
       ·                 ╰── larger than the batch
     4 │
       ╰────
      help: at most 4096

    Error:
      × `test` has 176 examples, not 1000
       ╭─[experiments/test.toml:6:15]
     5 │ [base.eval]
     6 │ test_images = 1000
       ·               ──┬─
       ·                 ╰── more than there are
       ╰────
      help: at most 176, or leave `eval.test_images` out
    "#);
}

#[test]
fn unknown_data() {
    let text = r#"[base]
data = "digit"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × the data cannot be used: no built-in data set is called `digit`; there are digits, swiss_roll
       ╭─[experiments/test.toml:2:8]
     1 │ [base]
     2 │ data = "digit"
       ·        ───────
       ╰────
    "#);
}

#[test]
fn data_that_changed() {
    let text = r#"[base]
data = { name = "digits", fingerprint = "ab12" }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × the data changed: "digits" no longer has the values this configuration was made for
       ╭─[experiments/test.toml:2:41]
     1 │ [base]
     2 │ data = { name = "digits", fingerprint = "ab12" }
       ·                                         ───┬──
       ·                                            ╰── now d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0
       ╰────
      help: restore the data, or delete `data.fingerprint` to run on what is there now, under another
            id
    "#);
}

#[test]
fn an_impossible_pair_of_the_file_and_the_command_line() {
    let text = r#"[grid]
loss.variant = ["simple", "hybrid"]
"#;
    insta::assert_snapshot!(told(text, &["diffusion.variance=fixed_small"]), @r#"
    Error:
      × loss "hybrid" trains a learned variance, but `diffusion.variance` is "fixed_small"
       ╭─[experiments/test.toml:2:27]
     1 │ [grid]
     2 │ loss.variant = ["simple", "hybrid"]
       ·                           ────┬───
       ·                               ╰── its bound term reaches the variance only
       ╰────
      help: diffusion.variance = "learned_range", or loss.variant = "vlb"
            with this `diffusion.variance`: fixed_small (command line)
    "#);
}

#[test]
fn an_impossible_value_is_told_once_however_many_cells_have_it() {
    let text = "[grid]\nloss.variant = ['hybrid']\ntrain.lr = [1, 2, 3]\ndiffusion.schedule = ['linear', 'cosine']";
    assert_eq!(grid(text, &[]).unwrap_err().faults().len(), 1);
}

#[test]
fn limits_are_where_the_messages_say() {
    let accepted = |base: &str| grid(&format!("base = {{ {base} }}"), &[]).is_ok();
    for (inside, outside) in [
        ("diffusion = { schedule = 'linear_scaled', timesteps = 21 }", "diffusion = { schedule = 'linear_scaled', timesteps = 20 }"),
        ("diffusion.timesteps = 2", "diffusion.timesteps = 1"),
        ("diffusion.timesteps = 50, eval.timesteps = 'strided:50'", "diffusion.timesteps = 49, eval.timesteps = 'strided:50'"),
        ("train = { batch_size = 1445 }", "train = { batch_size = 1446 }"),
        ("train = { batch_size = 8, micro_batch = 8 }", "train = { batch_size = 8, micro_batch = 9 }"),
        ("train = { steps = 10, warmup = 10 }", "train = { steps = 10, warmup = 11 }"),
        ("train.ema = 0", "train.ema = 1"),
        ("model.dropout = 0.99", "model.dropout = -0.01"),
        ("model.channels = [8, 8, 8, 8]", "model.channels = [8, 8, 8, 8, 8]"),
        ("model = { channels = [24, 48], norm_groups = 12 }", "model = { channels = [24, 44], norm_groups = 12 }"),
        ("model = { attention = [8, 4], head_channels = 32 }", "model = { attention = [8, 4], head_channels = 64 }"),
        ("model = { head_channels = 64 }", "model = { head_channels = 48 }"),
        ("model.attention = [4]", "model.attention = [2]"),
        ("model = 'mlp'", "model = { kind = 'mlp', attention = [4] }"),
        ("model = { kind = 'mlp', norm_groups = 8 }", "model = { kind = 'mlp', norm_groups = 4 }"),
        ("model = 'unet2d'", "model = { kind = 'unet2d', patch = 4 }"),
        ("model = 'unet2d'", "model = { kind = 'unet2d', mlp_ratio = 2 }"),
        ("model = { kind = 'mlp', fourier = 12 }", "model = { kind = 'mlp', fourier = 13 }"),
        ("model = 'unet2d'", "model = { kind = 'unet2d', fourier = 1 }"),
        ("model = { kind = 'transformer', patch = 8 }", "model = { kind = 'transformer', patch = 16 }"),
        ("model = { kind = 'transformer', patch = 1 }", "model = { kind = 'transformer', patch = 0 }"),
        ("model = { kind = 'transformer', depth = 128 }", "model = { kind = 'transformer', depth = 129 }"),
        ("model = { kind = 'transformer', depth = 1 }", "model = { kind = 'transformer', depth = 0 }"),
        ("model = { kind = 'transformer', channels = [4] }", "model = { kind = 'transformer', channels = [2] }"),
        ("model = { kind = 'transformer', channels = [64] }", "model = { kind = 'transformer', channels = [64, 64] }"),
        ("model = { kind = 'transformer', head_channels = 0 }", "model = { kind = 'transformer', head_channels = 3 }"),
        ("model = { kind = 'transformer', mid_attention = true }", "model = { kind = 'transformer', mid_attention = false }"),
        ("data.name = 'swiss_roll'", "data.name = 'swiss_roll', diffusion.clip_x0 = true"),
        ("data.name = 'swiss_roll', diffusion.decoder_cdf = 'tanh'", "data.name = 'swiss_roll', diffusion.decoder_cdf = 'erf'"),
        ("eval.images = 176", "eval.images = 177"),
        ("diffusion.variance = 'learned_range', loss = 'hybrid'", "diffusion.variance = 'learned_range', loss = 'simple'"),
        ("diffusion.variance = 'learned_range', loss = 'vlb'", "diffusion.variance = 'fixed_small', loss = 'hybrid'"),
        ("train.lr = 5", "train.lr = 0"),
        ("train.steps = 4_294_967_295", "train.steps = 99999999999999999999"),
    ] {
        assert!(accepted(inside), "{inside}");
        assert!(!accepted(outside), "{outside}");
    }
}

#[test]
fn every_rule_names_keys_that_exist() {
    use crate::config::{check::problems, keys};
    use crate::model::ModelKind;
    use crate::named::NamedEnum;
    // A configuration that breaks as many rules as it can, on points and on images.
    let mut config = grid("base.data = 'digits'", &[]).unwrap().runs.remove(0).config;
    let set = |config: &mut super::RunConfig, key: &str, value: toml::Value| (keys::find(key).unwrap().set)(config, &value).unwrap();
    for (key, value) in [
        ("train.batch_size", 9_999),
        ("train.micro_batch", 99_999),
        ("train.warmup", 99_999),
        ("eval.images", 999),
        ("eval.test_images", 999),
    ] {
        set(&mut config, key, toml::Value::Integer(value));
    }
    for (key, value) in [
        ("diffusion.schedule", "linear_scaled"),
        ("loss.variant", "hybrid"),
        ("diffusion.decoder_cdf", "erf"),
        ("eval.timesteps", "strided:99"),
    ] {
        set(&mut config, key, value.into());
    }
    set(&mut config, "diffusion.timesteps", toml::Value::Integer(5));
    set(&mut config, "data.flip", true.into());
    set(&mut config, "model.norm_groups", toml::Value::Integer(7));
    set(&mut config, "model.head_channels", toml::Value::Integer(5));
    set(&mut config, "model.attention", toml::Value::Array(vec![toml::Value::Integer(3)]));
    let facts = |name: &str| grid(&format!("base.data = '{name}'"), &[]).unwrap().runs.remove(0).info;
    set(&mut config, "model.depth", toml::Value::Integer(7));
    let mut found = Vec::new();
    for kind in ModelKind::ALL {
        config.model.kind = *kind;
        found.extend([problems(&config, &facts("digits")), problems(&config, &facts("swiss_roll"))].concat());
    }
    assert!(found.len() >= 50, "{found:#?}");
    for problem in found {
        for key in &problem.keys {
            assert!(keys::find(key).is_some(), "{key}");
        }
        assert!(!problem.help.is_empty() && !problem.message.is_empty());
    }
}

#[test]
fn a_kernel_of_bits_for_grey_levels() {
    let text = r#"[base]
diffusion.kernel = "binomial"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × the Binomial kernel redraws bits, and this data has 17 levels
       ╭─[experiments/test.toml:2:20]
     1 │ [base]
     2 │ diffusion.kernel = "binomial"
       ·                    ─────┬────
       ·                         ╰── for data of two levels only
       ╰────
      help: data.name = "heartbeat" or "digits_binary", a file with `levels = 2`, or diffusion.kernel
            = "gaussian"
    "#);
}

#[test]
fn noise_predicted_where_there_is_none() {
    let text = r#"[base]
data.name = "digits_binary"
diffusion.kernel = "binomial"
[grid]
diffusion.prediction = ["x0", "epsilon"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × bits have no "epsilon": under the Binomial kernel the network predicts x_0, one logit a bit
       ╭─[experiments/test.toml:5:31]
     2 │ data.name = "digits_binary"
     3 │ diffusion.kernel = "binomial"
       ·                    ─────┬────
       ·                         ╰── with this `diffusion.kernel`
     4 │ [grid]
     5 │ diffusion.prediction = ["x0", "epsilon"]
       ·                               ────┬────
       ·                                   ╰── for kernel "gaussian" only
       ╰────
      help: diffusion.prediction = "x0", or leave it out
    "#);
}

#[test]
fn a_variance_of_bits() {
    let text = r#"[base]
data.name = "digits_binary"
diffusion = { kernel = "binomial", variance = "learned_range" }
loss.variant = "hybrid"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × a bit has no variance of its own, so `diffusion.variance` would do nothing
       ╭─[experiments/test.toml:3:47]
     2 │ data.name = "digits_binary"
     3 │ diffusion = { kernel = "binomial", variance = "learned_range" }
       ·                        ─────┬────             ───────┬───────
       ·                             │                        ╰── for kernel "gaussian" only
       ·                             ╰── with this `diffusion.kernel`
     4 │ loss.variant = "hybrid"
       ╰────
      help: leave `diffusion.variance` out

    Error:
      × loss "hybrid" trains a learned variance, and bits have none
       ╭─[experiments/test.toml:4:16]
     2 │ data.name = "digits_binary"
     3 │ diffusion = { kernel = "binomial", variance = "learned_range" }
       ·                        ─────┬────
       ·                             ╰── with this `diffusion.kernel`
     4 │ loss.variant = "hybrid"
       ·                ────┬───
       ·                    ╰── for kernel "gaussian" only
       ╰────
      help: loss.variant = "vlb" (the bound), or "simple" (the cross-entropy of x_0)
    "#);
}

#[test]
fn a_rate_of_redrawn_bits_where_none_are() {
    let text = r#"[base]
data.name = "digits_binary"
diffusion.binomial_pi = 0.2
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × a Gaussian kernel redraws no bits
       ╭─[experiments/test.toml:3:25]
     2 │ data.name = "digits_binary"
     3 │ diffusion.binomial_pi = 0.2
       ·                         ─┬─
       ·                          ╰── for kernel "binomial" only
       ╰────
      help: diffusion.kernel = "binomial", or leave `diffusion.binomial_pi` out
            `diffusion.kernel` is not given; its default is "gaussian"
    "#);
}
