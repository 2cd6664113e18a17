//! What people are told when they make the mistakes people make. The snapshots are the specification of the messages.

use super::grid_tests::{facts, grid};
use super::*;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

pub(super) fn print(errors: &dyn Diagnostic) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut out = String::new();
    handler.render_report(&mut out, errors).unwrap();
    let out = format!("Error:\n{out}");
    out.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

pub(super) fn told(text: &str, overrides: &[&str]) -> String {
    match grid(text, overrides) {
        Ok(grid) => panic!("accepted: {}", grid.arithmetic),
        Err(errors) => print(&errors),
    }
}

#[test]
fn a_mistyped_key_and_a_mistyped_value_are_told_together() {
    let text = r#"[base]
train.lrr = 1e-3

[grid]
diffusion.schedule = ["linear", "cosin"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × unknown key `train.lrr`
       ╭─[experiments/test.toml:2:7]
     1 │ [base]
     2 │ train.lrr = 1e-3
       ·       ─┬─
       ·        ╰── no such key
     3 │
       ╰────
      help: did you mean `train.lr`?

    Error:
      × `diffusion.schedule` cannot be "cosin"
       ╭─[experiments/test.toml:5:33]
     4 │ [grid]
     5 │ diffusion.schedule = ["linear", "cosin"]
       ·                                 ───┬───
       ·                                    ╰── must be "linear", "linear_scaled", "quadratic", "cosine", "sigmoid", "jsd", "sqrt", "constant", "warmup10", "warmup50", "laplace", "logsnr_linear" or "explicit"
       ╰────
      help: did you mean "cosine"?
    "#);
}

#[test]
fn keys_and_sections_outside_their_tables() {
    let text = "lr = 1e-3
[train]
steps = 5
[gird]
loss = ['vlb']
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × unknown key `lr`
       ╭─[experiments/test.toml:1:1]
     1 │ lr = 1e-3
       · ─┬
       ·  ╰── no such key
     2 │ [train]
       ╰────
      help: did you mean `train.lr`, in [base] or [grid]?

    Error:
      × unknown key `train`
       ╭─[experiments/test.toml:2:2]
     1 │ lr = 1e-3
     2 │ [train]
       ·  ──┬──
       ·    ╰── no such key
     3 │ steps = 5
       ╰────
      help: constants stand in [base.train], axes in [grid.train]

    Error:
      × unknown key `gird`
       ╭─[experiments/test.toml:4:2]
     3 │ steps = 5
     4 │ [gird]
       ·  ──┬─
       ·    ╰── no such key
     5 │ loss = ['vlb']
       ╰────
      help: did you mean `grid`?
    "#);
}

#[test]
fn wrong_types_and_values_out_of_range() {
    let text = "[base]
train.steps = 1e5
train.lr = -1
train.ema = 1.0
data = 3
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 faults in experiments/test.toml

    Error:
      × `train.steps` cannot be 100000.0
       ╭─[experiments/test.toml:2:15]
     1 │ [base]
     2 │ train.steps = 1e5
       ·               ─┬─
       ·                ╰── must be a whole number, at least 1
     3 │ train.lr = -1
       ╰────
      help: write 100000, without point or exponent

    Error:
      × `train.lr` cannot be -1
       ╭─[experiments/test.toml:3:12]
     2 │ train.steps = 1e5
     3 │ train.lr = -1
       ·            ─┬
       ·             ╰── must be a number above 0
     4 │ train.ema = 1.0
       ╰────

    Error:
      × `train.ema` cannot be 1.0
       ╭─[experiments/test.toml:4:13]
     3 │ train.lr = -1
     4 │ train.ema = 1.0
       ·             ─┬─
       ·              ╰── must be a number in [0, 1)
     5 │ data = 3
       ╰────

    Error:
      × `data.name` cannot be 3
       ╭─[experiments/test.toml:5:8]
     4 │ train.ema = 1.0
     5 │ data = 3
       ·        ┬
       ·        ╰── must be the name of a built-in data set, or any name for a file
       ╰────
    "#);
}

#[test]
fn axes_that_are_none_empty_or_repeat_themselves() {
    let text = "[grid]
train.lr = 1e-3
loss.variant = []
model.channels = [32, 64]
train.steps = [10, 20, 10]
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 faults in experiments/test.toml

    Error:
      × `train.lr` is an axis of [grid], so it must be an array of values
       ╭─[experiments/test.toml:2:12]
     1 │ [grid]
     2 │ train.lr = 1e-3
       ·            ──┬─
       ·              ╰── not an array
     3 │ loss.variant = []
       ╰────
      help: lr = [1e-3], or move it to [base]

    Error:
      × the axis `loss.variant` is empty: there would be nothing to run
       ╭─[experiments/test.toml:3:16]
     2 │ train.lr = 1e-3
     3 │ loss.variant = []
       ·                ─┬
       ·                 ╰── no value
     4 │ model.channels = [32, 64]
       ╰────
      help: give at least one value, or leave the key out: its default is "simple"

    Error:
      × each value of the axis `model.channels` is itself an array
       ╭─[experiments/test.toml:4:18]
     3 │ loss.variant = []
     4 │ model.channels = [32, 64]
       ·                  ────┬───
       ·                      ╰── not an array of arrays
     5 │ train.steps = [10, 20, 10]
       ╰────
      help: channels = [[32, 64]] for one value, or move it to [base]

    Error:
      × the axis `train.steps` has 10 twice
       ╭─[experiments/test.toml:5:24]
     4 │ model.channels = [32, 64]
     5 │ train.steps = [10, 20, 10]
       ·                ─┬      ─┬
       ·                 │       ╰── again here
       ·                 ╰── first here
       ╰────
      help: delete one of them
    "#);
}

#[test]
fn one_key_in_base_and_in_grid() {
    let text = r#"[base]
loss.variant = "vlb"

[grid]
loss = ["vlb", "simple"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `loss.variant` stands in [base] and in [grid]
       ╭─[experiments/test.toml:2:16]
     1 │ [base]
     2 │ loss.variant = "vlb"
       ·                ──┬──
       ·                  ╰── a constant here
     3 │
     4 │ [grid]
     5 │ loss = ["vlb", "simple"]
       ·         ──┬──
       ·           ╰── and an axis here
       ╰────
      help: delete one of them
    "#);
}

#[test]
fn broken_toml_does_not_hide_a_typo_elsewhere() {
    let text = "[base]
train.lr = 
train.stepps = 5
train.ema = 0.9
train.ema = 0.99
";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × not valid TOML
       ╭─[experiments/test.toml:2:11]
     1 │ [base]
     2 │ train.lr =
       ·           ┬
       ·           ╰── string values must be quoted, expected literal string
     3 │ train.stepps = 5
       ╰────

    Error:
      × unknown key `train.stepps`
       ╭─[experiments/test.toml:3:7]
     2 │ train.lr =
     3 │ train.stepps = 5
       ·       ───┬──
       ·          ╰── no such key
     4 │ train.ema = 0.9
       ╰────
      help: did you mean `train.steps`?

    Error:
      × not valid TOML
       ╭─[experiments/test.toml:5:7]
     4 │ train.ema = 0.9
     5 │ train.ema = 0.99
       ·       ─┬─
       ·        ╰── duplicate key
       ╰────
    "#);
}

#[test]
fn mistakes_on_the_command_line() {
    let text = r#"[grid]
loss.variant = ["simple", "vlb"]
"#;
    insta::assert_snapshot!(told(text, &["train.lr=1e-3,fast", "schedule=cosine", "seeds=0,0", "steps", "data=digits", "data.name=digits"]), @r#"
    Error:
      × 5 faults in experiments/test.toml

    Error:
      × `train.lr` cannot be "fast"
       ╭─[command line:1:15]
     1 │ train.lr=1e-3,fast
       ·               ──┬─
       ·                 ╰── must be a number above 0
     2 │ schedule=cosine
       ╰────

    Error:
      × unknown key `schedule`
       ╭─[command line:2:1]
     1 │ train.lr=1e-3,fast
     2 │ schedule=cosine
       · ────┬───
       ·     ╰── no such key
     3 │ seeds=0,0
       ╰────
      help: did you mean `diffusion.schedule`?

    Error:
      × seed 0 stands twice
       ╭─[command line:3:9]
     2 │ schedule=cosine
     3 │ seeds=0,0
       ·       ┬ ┬
       ·       │ ╰── again here
       ·       ╰── first here
     4 │ steps
       ╰────
      help: delete one of them

    Error:
      × `steps` is not an override
       ╭─[command line:4:1]
     3 │ seeds=0,0
     4 │ steps
       · ──┬──
       ·   ╰── no `=`
     5 │ data=digits
       ╰────
      help: an override is KEY=VALUE, or KEY=a,b for an axis: train.lr=1e-4,1e-3

    Error:
      × `data.name` is given twice
       ╭─[command line:6:1]
     5 │ data=digits
     6 │ data.name=digits
       · ────┬────
       ·     ╰── again here
       ╰────
      help: several values make an axis: data.name=a,b
    "#);
}

#[test]
fn a_file_that_asks_for_nothing() {
    let text = "";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × experiments/test.toml: the experiment file is empty
      help: name at least one axis, for example:
            [grid]
            diffusion.schedule = ["linear", "cosine"]
    "#);
}

#[test]
fn the_top_level() {
    let text = r#"name = "../x"
seeds = 3
run = { jbos = 2 }
[base]
train = 4
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 faults in experiments/test.toml

    Error:
      × `name` cannot be "../x"
       ╭─[experiments/test.toml:1:8]
     1 │ name = "../x"
       ·        ───┬──
       ·           ╰── not a file name
     2 │ seeds = 3
       ╰────
      help: up to 80 letters, digits, `-`, `_` and `.`, beginning with a letter or digit: it names
            files

    Error:
      × `seeds` is a number, but must be an array
       ╭─[experiments/test.toml:2:9]
     1 │ name = "../x"
     2 │ seeds = 3
       ·         ┬
       ·         ╰── not an array
     3 │ run = { jbos = 2 }
       ╰────
      help: for example seeds = [0, 1, 2]

    Error:
      × unknown key `run.jbos`
       ╭─[experiments/test.toml:3:9]
     2 │ seeds = 3
     3 │ run = { jbos = 2 }
       ·         ──┬─
       ·           ╰── no such key
     4 │ [base]
       ╰────
      help: did you mean `run.jobs`?

    Error:
      × `train` is a section, but has a number here
       ╭─[experiments/test.toml:5:9]
     4 │ [base]
     5 │ train = 4
       ·         ┬
       ·         ╰── not a table
       ╰────
      help: `train` has steps, batch_size, micro_batch, optimizer, lr, warmup, weight_decay, beta1,
            beta2, grad_clip, ema, timestep_sampler, dtype
    "#);
}

#[test]
fn files_that_cannot_be_read_are_told_like_other_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("beta_schedules.toml", b"[grid]");
    write("latin1.toml", b"[base]\ndescription = \"caf\xe9\"\n");
    let load = |name: &str| {
        let errors = load(&folder.path().join(name), &[], &facts).unwrap_err();
        print(&errors).replace(&folder.path().display().to_string(), "F").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let missing = load("beta_shedules.toml");
    assert!(missing.contains("F/beta_shedules.toml: the experiment file cannot be read: No such file"), "{missing}");
    assert!(missing.contains("help: did you mean F/beta_schedules.toml?"), "{missing}");
    let other = load("x.toml");
    assert!(other.contains("F has beta_schedules.toml, latin1.toml"), "{other}");
    let latin1 = load("latin1.toml");
    assert!(latin1.contains("not UTF-8 text: line 2") && latin1.contains("save the file as UTF-8"), "{latin1}");
    assert!(load("").contains("this is a folder, not an experiment file"));
}
