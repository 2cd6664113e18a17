//! What the tables of an experiment file combine to: cells, their order and names, the arithmetic, references.

use super::grid_tests::valid;
use super::*;

fn cells(grid: &Grid) -> Vec<String> {
    let mut cells: Vec<String> = Vec::new();
    for run in &grid.runs {
        if cells.last() != Some(&run.cell) {
            cells.push(run.cell.clone());
        }
    }
    cells
}

fn value(grid: &Grid, i: usize, key: &str) -> String {
    super::value::plain(&grid.runs[i].config.get(key).unwrap())
}

const TABLE_2: &str = r#"
[base]
train = { steps = 50, lr = 1e-4 }
model.dropout = 0.1

[[case]]
name = "1k-linear-simple"
diffusion = { timesteps = 1000, schedule = "linear_scaled", variance = "fixed_large" }

[[case]]
name = "4k-cosine-hybrid"
diffusion = { timesteps = 4000, schedule = "cosine", variance = "learned_range" }
loss.variant = "hybrid"
model.dropout = 0.3

[[case]]
name = "4k-cosine-vlb"
diffusion = { timesteps = 4000, schedule = "cosine", variance = "learned_range" }
loss = "vlb"
model.dropout = 0.3

[reference."4k-cosine-vlb"]
bits_per_dim = 2.94
fid = 11.47
source = "Nichol & Dhariwal 2021, Table 2"
"#;

#[test]
fn cases_are_cells_called_by_their_names() {
    let grid = valid(TABLE_2, &["seeds=0,1"]);
    assert_eq!(grid.arithmetic, "3 cells × 2 seeds = 6 runs");
    assert_eq!(cells(&grid), ["1k-linear-simple", "4k-cosine-hybrid", "4k-cosine-vlb"]);
    assert_eq!(grid.runs[4].axes, [("case".to_owned(), "4k-cosine-vlb".to_owned())]);
    assert_eq!(grid.axes[0].values.len(), 3);
    let config = &grid.runs[4].config;
    assert_eq!((config.diffusion.timesteps, config.model.dropout, config.train.lr), (4000, 0.3, 1e-4));
    assert_eq!(grid.runs[0].config.model.dropout, 0.1, "a case without the key has the constant");
    // A case is nothing but its keys: the same cell written as constants is the same run.
    let alone = "[base]\ntrain = { steps = 50, lr = 1e-4 }\nmodel.dropout = 0.3\nloss = 'vlb'\n[base.diffusion]\n\
                 timesteps = 4000\nschedule = 'cosine'\nvariance = 'learned_range'";
    assert_eq!(valid(alone, &["seeds=0"]).runs[0].id, grid.runs[4].id);
}

#[test]
fn cases_are_one_axis_that_the_grid_multiplies_in_the_order_of_the_file() {
    let text = "[[case]]\nname = 'a'\n[[case]]\nname = 'b'\ndiffusion.schedule = 'cosine'\n[grid]\ntrain.lr = [1e-3, 1e-4]\n";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "2 × 2 = 4 cells × 1 seed = 4 runs");
    assert_eq!(cells(&grid), ["a, lr = 0.001", "a, lr = 0.0001", "b, lr = 0.001", "b, lr = 0.0001"]);
    assert_eq!(grid.runs[3].axes, [("case".to_owned(), "b".to_owned()), ("train.lr".to_owned(), "0.0001".to_owned())]);
    let text = "[grid]\ntrain.lr = [1e-3, 1e-4]\n[[case]]\nname = 'a'\nloss = 'vlb'\n[[case]]\nname = 'b'\n";
    assert_eq!(cells(&valid(text, &[])), ["lr = 0.001, a", "lr = 0.001, b", "lr = 0.0001, a", "lr = 0.0001, b"]);
    // The command line replaces what cases say, and cases that it makes equal are merged.
    let grid = valid("[[case]]\nname = 'a'\n[[case]]\nname = 'b'\ndiffusion.schedule = 'cosine'\n", &["diffusion.schedule=sigmoid"]);
    assert_eq!(grid.arithmetic, "2 cells × 1 seed = 1 run (1 equal to another, merged)");
    assert_eq!((value(&grid, 0, "diffusion.schedule").as_str(), grid.runs[0].cell.as_str()), ("sigmoid", "a"));
}

#[test]
fn references_find_the_cells_they_are_for() {
    let grid = valid(TABLE_2, &[]);
    let reference = &grid.references[0];
    assert_eq!((reference.name.as_str(), reference.cells.as_slice()), ("4k-cosine-vlb", ["4k-cosine-vlb".to_owned()].as_slice()));
    assert_eq!((reference.values["bits_per_dim"], reference.values["fid"]), (2.94, 11.47));
    assert_eq!(reference.source, "Nichol & Dhariwal 2021, Table 2");
    let text = "[grid]\ndiffusion.schedule = ['linear', 'cosine']\nloss = ['simple', 'vlb']\n\
                [[reference]]\nname = 'cos'\nbits_per_dim = 3\nsource = 'A'\nwhere = { diffusion.schedule = 'cosine' }\n\
                [[reference]]\nname = 'everything'\nbits_per_dim = 1.5\nsource = 'B'\nnote = 'elsewhere'\n";
    let grid = valid(text, &[]);
    assert_eq!(grid.references[0].cells, ["schedule = cosine, loss = simple", "schedule = cosine, loss = vlb"]);
    assert!(grid.references[1].cells.is_empty() && grid.references[1].note == "elsewhere");
    // What the command line takes away, a reference may still name; it is then for nobody.
    assert_eq!(valid(text, &["diffusion.schedule=linear"]).references.len(), 1);
    // The shortest form, of the whole sweep.
    let grid = valid("grid.loss = ['simple', 'vlb']\n[reference]\nbits_per_dim = 3.7\nsource = 'Ho, Table 1'", &[]);
    assert_eq!((grid.references[0].name.as_str(), grid.references[0].cells.len()), ("Ho, Table 1", 0));
    // A default is a value too.
    let grid = valid("[[case]]\nname = 'a'\n[[reference]]\nfid = 3\nsource = 'C'\nwhere = { case = 'a', loss = 'simple' }", &[]);
    assert_eq!(grid.references[0].cells, ["a"]);
}

#[test]
fn a_title_and_the_limit_are_settings() {
    let grid = valid("grid.loss = ['simple', 'vlb']\nreport.title = 'Losses'\nrun.max_runs = 2", &[]);
    assert_eq!((grid.report.title.as_str(), grid.run.max_runs), ("Losses", 2));
}

#[test]
fn zipped_axes_advance_together() {
    let text = "[[zip]]\ndiffusion.timesteps = [100, 400]\ntrain.lr = [1e-3, 1e-4]\n[grid]\nloss = ['simple', 'vlb']";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "2 × 2 = 4 cells × 1 seed = 4 runs");
    assert_eq!(cells(&grid)[1..3], ["timesteps = 100, lr = 0.001, loss = vlb", "timesteps = 400, lr = 0.0001, loss = simple"]);
    // One table, one group; two tables multiply.
    let text =
        "[[zip]]\ntrain.lr = [1e-3, 1e-4]\nmodel.dropout = [0, 0.1]\n[[zip]]\ntrain.steps = [10, 20]\ntrain.warmup = { range = [1, 3] }";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "2 × 2 = 4 cells × 1 seed = 4 runs");
    assert_eq!((value(&grid, 1, "train.steps"), value(&grid, 1, "train.warmup")), ("20".to_owned(), "2".to_owned()));
    // A key that the command line sets leaves the group; the others go on together.
    let grid = valid(text, &["train.lr=1"]);
    assert_eq!(cells(&grid)[0], "dropout = 0.0, steps = 10, warmup = 1");
}

#[test]
fn exclusions_take_cells_out_and_the_arithmetic_says_so() {
    let text = "seeds = [0, 1, 2]\n[grid]\ndiffusion.schedule = ['linear', 'cosine', 'sigmoid', 'quadratic']\nloss = ['simple', 'vlb']\ntrain.lr = [1e-3, 1e-4]\n\
                [[exclude]]\ndiffusion.schedule = 'linear'\nloss = 'vlb'\n";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "(4 × 2 − 1) × 2 = 14 cells × 3 seeds = 42 runs");
    assert!(!cells(&grid).iter().any(|cell| cell.starts_with("schedule = linear, loss = vlb")));
    // Several values, and what is not written has its default.
    let text = "[grid]\ndiffusion.schedule = ['linear', 'cosine', 'sigmoid']\n[[exclude]]\ndiffusion.schedule = ['linear', 'sigmoid']\nloss = 'simple'";
    assert_eq!(cells(&valid(text, &[])), ["schedule = cosine"]);
    assert_eq!(valid(text, &[]).arithmetic, "3 − 2 = 1 cell × 1 seed = 1 run");
    // One array can be one value.
    let text = "[grid]\nmodel.channels = [[32], [32, 64]]\n[[exclude]]\nmodel.channels = [32]";
    assert_eq!(cells(&valid(text, &[])), ["channels = [32, 64]"]);
    // An exclusion that the command line makes idle is no mistake.
    assert_eq!(valid(text, &["model.channels=[64]"]).runs.len(), 1);
}

#[test]
fn blocks_are_alternatives_that_share_what_stands_outside_them() {
    let text = "[base]\ntrain.steps = 50\n[grid]\ndiffusion.schedule = ['linear', 'cosine']\n\
                [[block]]\nset = { loss = 'vlb', train.lr = 1e-4 }\n\
                [[block]]\nset.diffusion.variance = 'learned_range'\nset.loss.variant = 'hybrid'\ngrid.loss.vlb_weight = { logspace = [1e-4, 1e-2], num = 3 }\n";
    let grid = valid(text, &[]);
    assert_eq!(grid.arithmetic, "2 + 2 × 3 = 8 cells × 1 seed = 8 runs");
    assert_eq!(cells(&grid)[0], "loss = vlb, lr = 0.0001, schedule = linear");
    assert_eq!(cells(&grid)[7], "variance = learned_range, loss = hybrid, schedule = cosine, vlb_weight = 0.01");
    assert_eq!(
        grid.axes.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(),
        ["loss.variant", "train.lr", "diffusion.schedule", "diffusion.variance", "loss.vlb_weight"]
    );
    // Equal cells of two blocks are one.
    let text = "[[block]]\ngrid.train.lr = [1e-3, 1e-4]\n[[block]]\ngrid.diffusion.schedule = ['linear', 'cosine']";
    assert_eq!(valid(text, &[]).arithmetic, "2 + 2 = 4 cells × 1 seed = 3 runs (1 equal to another, merged)");
    // A block overrides a constant, and may have zips.
    let text = "base.train.lr = 1e-3\n[[block]]\nset.train.lr = 1e-2\n[[block.zip]]\ntrain.steps = [10, 20]\ntrain.warmup = [1, 2]\n[[block]]\n[block.grid]\nloss = ['vlb', 'simple']";
    let grid = valid(text, &[]);
    assert_eq!((grid.runs.len(), value(&grid, 1, "train.warmup"), value(&grid, 1, "train.lr")), (4, "2".into(), "0.01".into()));
    assert_eq!(value(&grid, 3, "train.lr"), "0.001");
}

#[test]
fn rules_give_the_runs_that_the_written_numbers_give() {
    let ids = |text: &str| valid(text, &[]).runs.into_iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids("grid.train.lr = { logspace = [1e-4, 1e-2], num = 3 }"), ids("grid.train.lr = [1e-4, 1e-3, 1e-2]"));
    assert_eq!(ids("grid.model.dropout = { linspace = [0, 0.3], num = 4 }"), ids("grid.model.dropout = [0, 0.1, 0.2, 0.3]"));
    assert_eq!(ids("grid.train.steps = { linspace = [100, 200], num = 3 }"), ids("grid.train.steps = [100, 150, 200]"));
    assert_eq!(ids("grid.train.steps = { range = [100, 400], step = 100 }"), ids("grid.train.steps = [100, 200, 300]"));
    assert_eq!(ids("[grid.train]\nlr = { range = [0.1, 0.4], step = 0.1 }"), ids("grid.train.lr = [0.1, 0.2, 0.3]"));
    assert_eq!(ids("seeds = { range = [0, 3] }\nbase.loss = 'vlb'"), ids("seeds = [0, 1, 2]\nbase.loss = 'vlb'"));
    let seeds = |over: &str| valid("base.loss = 'vlb'", &[over]).runs.into_iter().map(|r| r.seed).collect::<Vec<_>>();
    assert_eq!((seeds("seeds=2..5"), seeds("seeds={ range = [4, 0], step = -2 }")), (vec![2, 3, 4], vec![4, 2]));
    let grid = valid("base.loss = 'vlb'", &["train.lr={ logspace = [1e-4, 1e-2], num = 3 }"]);
    assert_eq!(cells(&grid)[1], "lr = 0.001");
}

#[test]
fn a_part_of_a_grid_is_picked_by_axes_cases_and_seeds() {
    let text = "seeds = [0, 1]\n[[case]]\nname = 'a'\n[[case]]\nname = 'b'\ntrain.steps = 70\n[grid]\ndiffusion.schedule = ['linear', 'cosine']\nmodel.channels = [[32], [32, 64]]";
    let picked = |only: &[&str]| {
        let mut grid = valid(text, &[]);
        grid.pick(&only.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(grid.runs.len(), 16, "the grid stays whole");
        grid.runs.iter().filter(|run| run.picked).map(|run| format!("{} s{}", run.cell, run.seed)).collect::<Vec<_>>()
    };
    assert_eq!(picked(&[]).len(), 16);
    assert_eq!(
        picked(&["case=b", "schedule=cosine", "seed=1"]),
        ["b, schedule = cosine, channels = [32] s1", "b, schedule = cosine, channels = [32, 64] s1"]
    );
    assert_eq!(picked(&["diffusion.schedule=cosine,linear"]).len(), 16);
    assert_eq!(picked(&["model.channels=[32]"]).len(), 8);
    assert_eq!(picked(&["train.steps=70"]).len(), 8, "what a case sets can be named");
    assert_eq!(picked(&["loss=simple"]).len(), 16, "and so can a default");
    let refused = |only: &[&str]| {
        let mut grid = valid(text, &[]);
        let errors = grid.pick(&only.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap_err();
        let fault = &errors.faults()[0];
        format!("{} / {}", fault.message, fault.help.clone().unwrap_or_default())
    };
    assert_eq!(refused(&["case=c"]), "no run has `case` = c / there are a, b");
    assert_eq!(refused(&["schedule=cosin"]).split(" / ").next().unwrap(), "`diffusion.schedule` cannot be \"cosin\"");
    assert_eq!(refused(&["schedule=sigmoid"]), "no run has `schedule` = sigmoid / there are linear, cosine");
    assert_eq!(refused(&["shedule=cosine"]).split(" / ").next().unwrap(), "there is no axis `shedule`");
    assert_eq!(refused(&["case"]).split(" / ").next().unwrap(), "`case` picks nothing");
    assert!(refused(&["case=a", "train.steps=70"]).starts_with("experiments/test.toml: no run has case=a and train.steps=70 at once"));
}
