//! What an experiment file expands to: counts, order, identities, round trips; and that the shipped ones are sound.

use super::*;
use crate::data::{DataInfo, DataSpec, Encoding, Shape};
use crate::model::ModelKind;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

/// Facts of a few data sets without the data: built-in names, and any `.h5` as Fashion-MNIST.
pub(super) fn facts(spec: &DataSpec) -> Result<DataInfo, String> {
    let info = |height, channels, encoding, sizes: [usize; 3], fingerprint: &str| DataInfo {
        shape: Shape { height, width: height, channels },
        encoding,
        train: sizes[0],
        val: sizes[1],
        test: sizes[2],
        fingerprint: fingerprint.repeat(32),
    };
    match (&spec.path, spec.name.as_str()) {
        (Some(path), _) if path.extension().is_some_and(|e| e == "h5") => {
            Ok(info(28, 1, Encoding::Discrete { levels: 256 }, [54_000, 6000, 10_000], "f1"))
        }
        (Some(path), _) => Err(format!("{} does not exist", path.display())),
        (None, "digits") => Ok(info(8, 1, Encoding::Discrete { levels: 17 }, [1445, 176, 176], "d0")),
        (None, "heartbeat") => {
            let row = Shape { height: 1, width: 20, channels: 1 };
            Ok(DataInfo { shape: row, ..info(1, 1, Encoding::Discrete { levels: 2 }, [8192, 1024, 2048], "4e") })
        }
        (None, "digits_binary") => Ok(info(8, 1, Encoding::Discrete { levels: 2 }, [1445, 176, 176], "d2")),
        (None, "fashion_mnist_small") => Ok(info(28, 1, Encoding::Discrete { levels: 256 }, [1800, 200, 500], "f0")),
        (None, "swiss_roll" | "swiss_roll_2015") => Ok(info(1, 2, Encoding::Continuous, [8192, 1024, 1024], "50")),
        (None, name) => Err(format!("no built-in data set is called `{name}`; there are digits, swiss_roll")),
    }
}

pub(super) fn grid(text: &str, overrides: &[&str]) -> Result<Grid, ConfigErrors> {
    let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
    from_text(Path::new("experiments/test.toml"), text, &overrides, &facts)
}

pub(super) fn valid(text: &str, overrides: &[&str]) -> Grid {
    grid(text, overrides).unwrap_or_else(|errors| panic!("{errors}: {:#?}", errors.faults()))
}

fn cells(grid: &Grid) -> Vec<&str> {
    grid.runs.iter().map(|run| run.cell.as_str()).collect()
}

#[test]
fn one_axis_and_nothing_else_is_an_experiment_on_the_digits() {
    let grid = valid("grid.diffusion.schedule = ['linear', 'cosine']", &[]);
    assert_eq!(grid.name, "test");
    assert_eq!(grid.arithmetic, "2 cells × 1 seed = 2 runs");
    assert_eq!(cells(&grid), ["schedule = linear", "schedule = cosine"]);
    let config = &grid.runs[0].config;
    assert_eq!(config.data.name, "digits");
    assert_eq!(config.data.fingerprint, "d0".repeat(32));
    assert_eq!((config.model.kind, config.model.channels.as_slice()), (ModelKind::UNet2d, [32, 64].as_slice()));
    assert_eq!((config.train.micro_batch, config.train.warmup, config.eval.images), (16, 100, 64));
    assert!(config.diffusion.clip_x0);
    assert_eq!(grid.runs[1].slug, "digits-unet2d-cosine-t1000-simple-s0");
}

#[test]
fn order_is_that_of_the_file_later_axes_faster_seeds_fastest() {
    // `diffusion.timesteps` comes last in the file although its table began first.
    let text =
        "seeds = [7, 3]\n[grid]\ndiffusion.schedule = ['cosine', 'linear']\nloss = ['vlb', 'simple']\ndiffusion.timesteps = [100, 50]\n";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "2 × 2 × 2 = 8 cells × 2 seeds = 16 runs");
    assert_eq!(grid.axes.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["diffusion.schedule", "loss.variant", "diffusion.timesteps"]);
    assert_eq!(grid.runs.iter().take(3).map(|r| r.seed).collect::<Vec<_>>(), [7, 3, 7]);
    let by_cell: Vec<&str> = cells(&grid).into_iter().step_by(2).take(3).collect();
    assert_eq!(
        by_cell,
        [
            "schedule = cosine, loss = vlb, timesteps = 100",
            "schedule = cosine, loss = vlb, timesteps = 50",
            "schedule = cosine, loss = simple, timesteps = 100"
        ]
    );
    assert_eq!(grid.runs[15].axes[0], ("diffusion.schedule".to_owned(), "linear".to_owned()));
}

#[test]
fn dotted_nested_and_inline_tables_say_the_same() {
    let ids = |text| valid(text, &[]).runs.into_iter().map(|r| r.id).collect::<Vec<_>>();
    let dotted = ids("[base]\ntrain.lr = 1e-4\ntrain.steps = 50\n[grid]\ndiffusion.timesteps = [100, 200]");
    assert_eq!(dotted, ids("base.train = { lr = 0.0001, steps = 50 }\ngrid = { diffusion = { timesteps = [100, 200] } }"));
    assert_eq!(dotted, ids("[grid.diffusion]\ntimesteps = [100, 200]\n[base.train]\nsteps = 50\nlr = 10e-5"));
}

#[test]
fn shorthands_and_array_valued_axes() {
    let grid = valid("[base]\ndata = 'swiss_roll'\nmodel = 'mlp'\n[grid]\nmodel.channels = [[16, 16], [32]]", &[]);
    // TOML itself forbids `model = ..` beside `model.channels` in one table, so here they stand in two.
    assert_eq!(cells(&grid), ["channels = [16, 16]", "channels = [32]"]);
    assert_eq!(grid.runs[0].config.train.micro_batch, 64, "at most the batch");
    assert!(!grid.runs[0].config.diffusion.clip_x0);
}

#[test]
fn defaults_follow_the_data() {
    let config = |text: &str| valid(text, &[]).runs[0].config.clone();
    let fashion = config("base.data = 'fashion_mnist_small'");
    assert_eq!((fashion.model.channels.as_slice(), fashion.train.micro_batch), ([32, 64, 64].as_slice(), 4));
    let transformer = |data: &str, more: &str| config(&format!("[base]\ndata = '{data}'\nmodel = {{ kind = 'transformer' {more} }}")).model;
    let small = transformer("digits", "");
    assert_eq!((small.channels.as_slice(), small.patch, small.depth, small.head_channels), ([128].as_slice(), 2, 5, 64));
    let large = transformer("fashion_mnist_small", "");
    assert_eq!((large.channels.as_slice(), large.patch, large.head_channels), ([192].as_slice(), 4, 64));
    assert_eq!(transformer("digits", ", channels = [100]").head_channels, 50);
    let points = config("base.data = 'swiss_roll'\nbase.train.batch_size = 256");
    assert_eq!((points.model.kind, points.train.micro_batch), (ModelKind::Mlp, 128));
    let file = config("base.data.path = 'data/My Set.h5'\nbase.train.steps = 50");
    assert_eq!((file.data.name.as_str(), file.train.warmup), ("My Set", 5));
    assert_eq!(file.slug(), "my_set-unet2d-linear-t1000-simple-s0");
}

#[test]
fn overrides_set_constants_add_axes_and_replace_either() {
    let text = "seeds = [0, 1]\n[base]\ntrain.lr = 1e-3\n[grid]\ndiffusion.schedule = ['linear', 'cosine']\nloss = ['simple', 'vlb']";
    let axes = |overrides: &[&str]| {
        valid(text, overrides).axes.into_iter().map(|a| format!("{} {}", a.key, a.values.join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(axes(&["diffusion.schedule=sigmoid"]), ["loss.variant simple vlb"]);
    assert_eq!(axes(&["diffusion.schedule=sigmoid, quadratic"]), ["diffusion.schedule sigmoid quadratic", "loss.variant simple vlb"]);
    assert_eq!(axes(&["train.lr=1e-4,1"])[2], "train.lr 0.0001 1.0");
    assert_eq!(axes(&["train.lr=[1e-4, 1]"])[2], "train.lr 0.0001 1.0");
    assert_eq!(axes(&["model.channels=[32],[32, 64]"])[2], "model.channels [32] [32, 64]");
    assert_eq!(axes(&["model.channels=[[32], [32, 64]]"])[2], "model.channels [32] [32, 64]");
    let grid = valid(
        text,
        &["model.channels=[32, 32]", "eval.timesteps=strided:9", "seeds=5", "name=other", "run.jobs=3", "data=digits", "loss=vlb"],
    );
    assert_eq!((grid.name.as_str(), grid.runs.len(), grid.run.jobs), ("other", 2, Some(3)));
    let config = &grid.runs[0].config;
    assert_eq!((config.seed, config.model.channels.as_slice(), config.eval.timesteps), (5, [32, 32].as_slice(), EvalTimesteps::Strided(9)));
    assert_eq!(valid(text, &["seeds=[4, 2]"]).runs[1].seed, 2);
    assert_eq!(valid("base.data.path = 'x.h5'", &["data.path=", "data=digits"]).runs[0].config.data.path, None);
    assert_eq!(grid.text, text, "the file itself is kept as it is");
}

#[test]
fn what_says_where_the_data_lies_is_no_part_of_the_identity_but_its_values_are() {
    let id = |text: &str| valid(text, &[]).runs[0].id.clone();
    let file = id("base.data.path = 'a.h5'");
    assert_eq!(file, id("base.data = { path = 'elsewhere/b.h5', name = 'fashion', dataset = 'images', layout = 'nhwc' }"));
    assert_ne!(file, id("base.data = 'fashion_mnist_small'"));
    assert_eq!(valid("grid.data.path = ['a.h5', 'b.h5']", &[]).arithmetic, "2 cells × 1 seed = 1 run (1 equal to another, merged)");
}

#[test]
fn every_key_changes_the_identity_unless_it_says_where_the_data_lies() {
    let grid = valid("base.train.steps = 500", &[]);
    let base = &grid.runs[0].config;
    for spec in keys::KEYS {
        let candidates = [
            toml::Value::Integer(7),
            toml::Value::Integer(1),
            toml::Value::Float(0.123),
            toml::Value::Boolean(true),
            toml::Value::Boolean(false),
            toml::Value::String("x".to_owned()),
            toml::Value::String("all".to_owned()),
            toml::Value::Array(vec![toml::Value::Integer(48)]),
            toml::Value::Array(vec![toml::Value::Float(0.25)]),
        ];
        let names = (spec.choices)().into_iter().map(|name| toml::Value::String(name.to_owned()));
        let mut changed = 0;
        for value in candidates.into_iter().chain(names) {
            let mut other = base.clone();
            if (spec.set)(&mut other, &value).is_err() || other == *base {
                continue;
            }
            changed += 1;
            let silent = match spec.identity {
                keys::Identity::Never => spec.key != "data.path",
                keys::Identity::Where(decides) => !decides(&other),
                keys::Identity::Always | keys::Identity::BuiltInData => false,
            };
            if silent {
                assert_eq!(other.id(), base.id(), "{}", spec.key);
            } else {
                assert_ne!(other.id(), base.id(), "{}", spec.key);
            }
            assert_eq!(base.diff(&other).into_iter().map(|d| d.0).collect::<Vec<_>>(), [spec.key]);
        }
        let only_one = (spec.choices)().len() == 1;
        assert!(changed > 0 || only_one, "nothing tried changes {}", spec.key);
    }
}

#[test]
fn a_written_configuration_runs_by_itself_and_reads_back_without_the_data() {
    for text in ["base.data = 'swiss_roll'", "base.data.path = 'a.h5'", "base.model = { attention = [4], dropout = 0.1 }\nseeds = [9]"] {
        let run = valid(text, &[]).runs.remove(0);
        let written = run.config.to_toml();
        assert_eq!(RunConfig::from_toml(Path::new("config.toml"), &written).unwrap(), run.config);
        let again = from_text(Path::new("config.toml"), &written, &[], &facts).unwrap();
        assert_eq!((again.runs.len(), &again.runs[0].id, &again.runs[0].config), (1, &run.id, &run.config));
        assert_eq!(again.name, run.slug);
        let incomplete: String = written.lines().filter(|line| !line.starts_with("channels")).map(|line| format!("{line}\n")).collect();
        let error = RunConfig::from_toml(Path::new("config.toml"), &incomplete).unwrap_err();
        assert!(error.to_string().contains("`model.channels` is missing"), "{error}");
    }
}

#[test]
fn an_identity_stays_what_it_was() {
    // Stored results are found by this: a change here orphans every store. Raise CANONICAL_VERSION if it is meant.
    let run = &valid("base.data = 'digits'", &[]).runs[0];
    assert_eq!(run.id.0, "r281bde120b2f");
    insta::assert_snapshot!(run.config.canonical(), @r#"
    ddpm-lab configuration 1
    data.fingerprint = "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0"
    data.flip = false
    data.name = "digits"
    diffusion.clip_x0 = true
    diffusion.decoder_cdf = "tanh"
    diffusion.first_log_variance = "copy"
    diffusion.prediction = "epsilon"
    diffusion.schedule = "linear"
    diffusion.timesteps = 1000
    diffusion.variance = "fixed_large"
    eval.draws = 1
    eval.every = 500
    eval.images = 64
    eval.test_images = 128
    eval.timesteps = "strided:50"
    log.every = 100
    loss.variant = "simple"
    loss.vlb_weight = 0.001
    loss.weighting = "constant"
    model.attention = []
    model.channels = [32, 64]
    model.downsample_padding = 0
    model.dropout = 0.0
    model.head_channels = 0
    model.init = "ddpm"
    model.kind = "unet2d"
    model.layers_per_block = 2
    model.mid_attention = true
    model.norm_eps = 1e-6
    model.norm_groups = 8
    model.time_embedding = "ddpm"
    sample.count = 64
    sample.every = 0
    seed = 0
    train.batch_size = 64
    train.beta1 = 0.9
    train.beta2 = 0.999
    train.dtype = "f32"
    train.ema = 0.995
    train.grad_clip = 1.0
    train.lr = 0.001
    train.micro_batch = 16
    train.optimizer = "adamw"
    train.steps = 2000
    train.timestep_sampler = "uniform"
    train.warmup = 100
    train.weight_decay = 0.0
    "#);
}

#[test]
fn arithmetic_is_part_of_an_identity_and_where_it_is_computed_is_not() {
    let id = |more: &str| valid(&format!("base.data = 'digits'\n{more}"), &[]).runs[0].id.clone();
    let plain = id("");
    assert_eq!(plain, id("base.train.matmul_precision = 'f32'"), "older versions had no such key");
    let others = [id("base.train.matmul_precision = 'tf32'"), id("base.train.dtype = 'bf16'")];
    assert!(others[0] != plain && others[1] != plain && others[0] != others[1]);
}

#[test]
fn the_data_is_looked_at_once_however_many_cells_use_it() {
    let asked = RefCell::new(Vec::new());
    let inspect = |spec: &DataSpec| {
        asked.borrow_mut().push(spec.name.clone());
        facts(spec)
    };
    let text = "[grid]\ntrain.lr = [1e-3, 1e-4]\ndata.name = ['digits', 'fashion_mnist_small']\ndata.flip = [true, false]";
    assert_eq!(from_text(Path::new("x.toml"), text, &[], &inspect).unwrap().runs.len(), 8);
    assert_eq!(*asked.borrow(), ["digits", "fashion_mnist_small"]);
}

#[test]
fn every_shipped_experiment_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let files = [folder.clone(), folder.join("papers")].map(|folder| std::fs::read_dir(folder).unwrap());
    let mut seen = 0;
    for path in files.into_iter().flatten().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let grid = load(&path, &[], &facts).unwrap_or_else(|errors| panic!("{errors}: {:#?}", errors.faults()));
        assert!(!grid.description.is_empty() && grid.runs.len() > 1, "{}", path.display());
        // The commands that a file's own comment gives must work as they stand.
        let comment = grid.text.replace("\\\n#", "");
        for command in comment.lines().filter_map(|line| line.split_once("ddpm-lab sweep ")) {
            let mut words = command.1.split_whitespace();
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(words.next().unwrap());
            let overrides: Vec<String> = words.map(str::to_owned).collect();
            let runs = load(&file, &overrides, &facts).unwrap_or_else(|errors| panic!("{errors}: {:#?}", errors.faults())).runs;
            assert!(!runs.is_empty() && !overrides.is_empty());
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
}

/// An axis or constant of the random experiments: key, and spellings of distinct values.
pub(super) const CHOICES: &[(&str, &[&str])] = &[
    ("diffusion.schedule", &["'linear'", "\"cosine\"", "'sigmoid'", "'quadratic'"]),
    ("diffusion.timesteps", &["50", "100", "1_000", "0x100"]),
    ("loss.variant", &["'simple'", "'vlb'"]),
    ("train.lr", &["1e-3", "0.0001", "1", "2.50e-2"]),
    ("model.channels", &["[32]", "[32, 64]", "[16,16]"]),
    ("train.ema", &["0", "0.99", "9e-1"]),
    ("diffusion.variance", &["'fixed_small'", "'fixed_large'"]),
    ("data.flip", &["true", "false"]),
];

/// For each key of [`CHOICES`]: absent, or how many of its values.
fn plan() -> impl Strategy<Value = (Vec<usize>, Vec<bool>, usize)> {
    let sizes: Vec<_> = CHOICES.iter().map(|(_, values)| 0..=values.len()).collect();
    (sizes, proptest::collection::vec(any::<bool>(), CHOICES.len()), 1_usize..4)
        .prop_filter("small grids", |(sizes, _, _)| sizes.iter().map(|n| (*n).max(1)).product::<usize>() <= 200)
}

fn experiment(sizes: &[usize], as_axis: &[bool], seeds: usize) -> String {
    let (mut base, mut axes) = (String::from("[base]\n"), String::from("[grid]\n"));
    for (i, (key, values)) in CHOICES.iter().enumerate() {
        match sizes[i] {
            0 => {}
            1 if !as_axis[i] => base.push_str(&format!("{key} = {}\n", values[0])),
            n => axes.push_str(&format!("{key} = [{}]\n", values[..n].join(", "))),
        }
    }
    format!("seeds = {:?}\n{base}{axes}", (0..seeds).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_grid_is_the_product_of_its_axes_in_a_stable_order_with_unique_ids((sizes, as_axis, seeds) in plan()) {
        let text = experiment(&sizes, &as_axis, seeds);
        let grid = valid(&text, &[]);
        let product: usize = sizes.iter().map(|n| (*n).max(1)).product();
        prop_assert_eq!(grid.runs.len(), product * seeds);
        let ids: HashSet<_> = grid.runs.iter().map(|r| &r.id).collect();
        prop_assert_eq!(ids.len(), grid.runs.len());
        // Mixed radix: the seed is the last digit, the first axis the first.
        for (i, run) in grid.runs.iter().enumerate() {
            let mut rest = i / seeds;
            prop_assert_eq!(run.seed, (i % seeds) as i64);
            for (axis, (key, value)) in grid.axes.iter().zip(&run.axes).rev() {
                prop_assert_eq!(&axis.key, key);
                prop_assert_eq!(&axis.values[rest % axis.values.len()], value);
                rest /= axis.values.len();
            }
        }
    }

    #[test]
    fn an_identity_ignores_order_comments_spelling_and_written_defaults((sizes, as_axis, seeds) in plan(), pick in any::<prop::sample::Index>()) {
        let grid = valid(&experiment(&sizes, &as_axis, seeds), &[]);
        let run = pick.get(&grid.runs);
        // Every key, defaults too, in the opposite order, floats spelled out, comments between.
        let mut text = format!("seeds = [{}] # one\n[base]\n", run.seed);
        for spec in keys::KEYS.iter().rev().filter(|s| s.key != "seed") {
            let value = match (spec.get)(&run.config) {
                toml::Value::Float(x) => format!("{x:e}"),
                other => value::render(&other),
            };
            text.push_str(&format!("# about {}\n{}   =   {value} # so\n", spec.key, spec.key));
        }
        let again = valid(&text, &[]);
        prop_assert_eq!(&again.runs[0].id, &run.id);
        prop_assert_eq!(&again.runs[0].config, &run.config);
        // And what config.toml says.
        let written = run.config.to_toml();
        let stored = from_text(Path::new("config.toml"), &written, &[], &facts).unwrap();
        prop_assert_eq!(&stored.runs[0].id, &run.id);
        prop_assert_eq!(RunConfig::from_toml(Path::new("config.toml"), &written).unwrap(), run.config.clone());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", more in "[\\[\\]{}=.,'\"# \\nabegirsd0-9-]{0,60}") {
        let _ = grid(&text, &[&more]);
        let _ = grid(&more, &[&text]);
        let _ = grid(&format!("[grid]\ntrain.lr = {more}\n[base]\n{text}"), &[]);
    }
}
