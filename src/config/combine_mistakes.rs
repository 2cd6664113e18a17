//! What people are told of the tables that combine axes, of broken files and of files that extend others. The snapshots are
//! the specification of the messages.

use super::grid_tests::facts;
use super::mistakes::{print, told};
use super::*;

#[test]
fn axes_that_advance_together_but_are_of_unequal_length() {
    let text = r#"[[zip]]
diffusion.timesteps = [100, 400, 1000]
train.lr = [1e-3, 1e-4]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `diffusion.timesteps` and `train.lr` advance together, but are of unequal length
       ╭─[experiments/test.toml:3:12]
     1 │ [[zip]]
     2 │ diffusion.timesteps = [100, 400, 1000]
       ·                       ────────┬───────
       ·                               ╰── 3 values here
     3 │ train.lr = [1e-3, 1e-4]
       ·            ──────┬─────
       ·                  ╰── 2 values here
       ╰────
      help: the axes of one [[zip]] have one value for each point; independent axes belong in [grid]
    "#);
}

#[test]
fn a_missing_brace_is_one_fault_and_hides_no_other() {
    let text = r#"[base]
diffusion = { schedule = "cosine", timesteps = 400
train.stepps = 1000

[grid]
loss.variant = ["simple", "vbl"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × not valid TOML: this `{` is not closed
       ╭─[experiments/test.toml:2:13]
     1 │ [base]
     2 │ diffusion = { schedule = "cosine", timesteps = 400
       ·             ┬
       ·             ╰── opened here
     3 │ train.stepps = 1000
       ╰────
      help: put the missing `}` at the end of the value

    Error:
      × unknown key `train.stepps`
       ╭─[experiments/test.toml:3:7]
     2 │ diffusion = { schedule = "cosine", timesteps = 400
     3 │ train.stepps = 1000
       ·       ───┬──
       ·          ╰── no such key
     4 │
       ╰────
      help: did you mean `train.steps`?

    Error:
      × `loss.variant` cannot be "vbl"
       ╭─[experiments/test.toml:6:27]
     5 │ [grid]
     6 │ loss.variant = ["simple", "vbl"]
       ·                           ──┬──
       ·                             ╰── must be "simple", "vlb" or "hybrid"
       ╰────
    "#);
}

#[test]
fn a_wrong_axis_hides_no_impossible_pair() {
    let text = r#"[base]
loss.variant = "hybrid"

[grid]
train.lr = 1e-3
diffusion.timesteps = [100, 2]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × loss "hybrid" trains a learned variance, but `diffusion.variance` is "fixed_large"
       ╭─[experiments/test.toml:2:16]
     1 │ [base]
     2 │ loss.variant = "hybrid"
       ·                ────┬───
       ·                    ╰── its bound term reaches the variance only
     3 │
       ╰────
      help: diffusion.variance = "learned_range", or loss.variant = "vlb"
            `diffusion.variance` is not given; its default is "fixed_large"

    Error:
      × `train.lr` is an axis of [grid], so it must be an array of values
       ╭─[experiments/test.toml:5:12]
     4 │ [grid]
     5 │ train.lr = 1e-3
       ·            ──┬─
       ·              ╰── not an array
     6 │ diffusion.timesteps = [100, 2]
       ╰────
      help: lr = [1e-3], or move it to [base]
    "#);
}

#[test]
fn what_follows_from_a_mistake_is_not_told() {
    // The variance was meant to be written, so that the default cannot be held against the loss.
    let text = r#"[base]
loss.variant = "hybrid"
diffusion.varance = "learned_range"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × unknown key `diffusion.varance`
       ╭─[experiments/test.toml:3:11]
     2 │ loss.variant = "hybrid"
     3 │ diffusion.varance = "learned_range"
       ·           ───┬───
       ·              ╰── no such key
       ╰────
      help: did you mean `diffusion.variance`?
    "#);
}

#[test]
fn cases_without_names_and_with_the_same_one() {
    let text = r#"[[case]]
loss.variant = "vlb"

[[case]]
name = "a"

[[case]]
name = "a"
loss.varient = "vlb"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × this [[case]] has no name
       ╭─[experiments/test.toml:1:1]
     1 │ [[case]]
       · ────┬───
       ·     ╰── no `name`
     2 │ loss.variant = "vlb"
       ╰────
      help: give it one: name = "4k-cosine"; it stands in tables, legends and `ls`

    Error:
      × two cases are called "a"
       ╭─[experiments/test.toml:8:8]
     4 │ [[case]]
     5 │ name = "a"
       ·        ─┬─
       ·         ╰── first here
     6 │
     7 │ [[case]]
     8 │ name = "a"
       ·        ─┬─
       ·         ╰── again here
     9 │ loss.varient = "vlb"
       ╰────
      help: delete one of them

    Error:
      × unknown key `loss.varient`
       ╭─[experiments/test.toml:9:6]
     8 │ name = "a"
     9 │ loss.varient = "vlb"
       ·      ───┬───
       ·         ╰── no such key
       ╰────
      help: did you mean `loss.variant`?
    "#);
}

#[test]
fn references_to_nobody_without_source_and_of_unknown_things() {
    let text = r#"[[case]]
name = "4k-cosine"

[reference."4k-cosin"]
bits_per_dim = 2.94
source = "Table 2"

[reference."4k-cosine"]
bits_per_dims = 2.94
source = "Table 2"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × no case is called "4k-cosin"
       ╭─[experiments/test.toml:4:12]
     3 │
     4 │ [reference."4k-cosin"]
       ·            ─────┬────
       ·                 ╰── no such case
     5 │ bits_per_dim = 2.94
       ╰────
      help: did you mean "4k-cosine"?

    Error:
      × unknown key `bits_per_dims` in a reference
        ╭─[experiments/test.toml:9:1]
      8 │ [reference."4k-cosine"]
      9 │ bits_per_dims = 2.94
        · ──────┬──────
        ·       ╰── no such key
     10 │ source = "Table 2"
        ╰────
      help: did you mean `bits_per_dim`?
    "#);
    let text = r#"[grid]
loss.variant = ["simple", "vlb"]
[[reference]]
bits_per_dim = 3.7
[[reference]]
bits_per_dim = "3.75"
source = "Ho"
[[reference]]
bits_per_dim = 3.75
source = "Ho, Table 1"
where = { loss.variant = "hybrid" }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × this reference has no source
       ╭─[experiments/test.toml:3:1]
     2 │ loss.variant = ["simple", "vlb"]
     3 │ [[reference]]
       · ──────┬──────
       ·       ╰── no `source`
     4 │ bits_per_dim = 3.7
       ╰────
      help: say where the number is printed: source = "Nichol & Dhariwal 2021, Table 2"

    Error:
      × `bits_per_dim` is a string, but must be a number
       ╭─[experiments/test.toml:6:16]
     5 │ [[reference]]
     6 │ bits_per_dim = "3.75"
       ·                ───┬──
       ·                   ╰── not a number
     7 │ source = "Ho"
       ╰────
    "#);
    let text = r#"[grid]
loss.variant = ["simple", "vlb"]
[[reference]]
bits_per_dim = 3.75
source = "Ho, Table 1"
where = { loss.variant = "hybrid" }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × this reference is for no cell of the grid
       ╭─[experiments/test.toml:6:9]
     5 │ source = "Ho, Table 1"
     6 │ where = { loss.variant = "hybrid" }
       ·         ─────────────┬─────────────
       ·                      ╰── no cell has all of this
       ╰────
      help: name values that a cell has, or leave `where` out for the whole sweep
    "#);
}

#[test]
fn exclusions_of_nothing_and_of_everything() {
    let text = r#"[grid]
diffusion.schedule = ["linear", "cosine"]
train.lr = [1e-3, 1e-4]

[[exclude]]
diffusion.schedule = "sigmoid"
train.lr = 1e-4
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × this exclusion excludes nothing
       ╭─[experiments/test.toml:6:22]
     5 │ [[exclude]]
     6 │ diffusion.schedule = "sigmoid"
       ·                      ────┬────
       ·                          ╰── in no cell
     7 │ train.lr = 1e-4
       ╰────
      help: `diffusion.schedule` is linear or cosine
    "#);
    let text = r#"[grid]
diffusion.schedule = ["linear", "cosine"]
[[exclude]]
diffusion.schedule = ["linear", "cosine"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × every cell is excluded: there is nothing to run
       ╭─[experiments/test.toml:4:22]
     3 │ [[exclude]]
     4 │ diffusion.schedule = ["linear", "cosine"]
       ·                      ────────────────────
       ╰────
    "#);
}

#[test]
fn one_key_set_by_two_things_that_are_multiplied() {
    let text = r#"[grid]
loss.variant = ["simple", "vlb"]
train.lr = [1e-3, 1e-4]

[[case]]
name = "a"
loss = "simple"

[[block]]
set.train.lr = 1e-2
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × `loss.variant` is set twice in one cell
       ╭─[experiments/test.toml:2:17]
     1 │ [grid]
     2 │ loss.variant = ["simple", "vlb"]
       ·                 ────┬───
       ·                     ╰── in [grid] here
     3 │ train.lr = [1e-3, 1e-4]
       ╰────
       ╭─[experiments/test.toml:7:8]
     6 │ name = "a"
     7 │ loss = "simple"
       ·        ────┬───
       ·            ╰── in [[case]] here
     8 │
       ╰────
      help: what is multiplied sets different keys: delete one of them

    Error:
      × `train.lr` is set twice in one cell
       ╭─[experiments/test.toml:3:13]
     2 │ loss.variant = ["simple", "vlb"]
     3 │ train.lr = [1e-3, 1e-4]
       ·             ──┬─
       ·               ╰── in [grid] here
     4 │
       ╰────
        ╭─[experiments/test.toml:10:16]
      9 │ [[block]]
     10 │ set.train.lr = 1e-2
        ·                ──┬─
        ·                  ╰── in [block.set] here
        ╰────
      help: what is multiplied sets different keys: delete one of them
    "#);
}

#[test]
fn blocks_with_keys_of_their_own() {
    let text = r#"[[block]]
loss.variant = "vlb"

[[block]]
sets = { train.lr = 1e-4 }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 2 faults in experiments/test.toml

    Error:
      × unknown key `loss` in [[block]]
       ╭─[experiments/test.toml:2:1]
     1 │ [[block]]
     2 │ loss.variant = "vlb"
       · ──┬─
       ·   ╰── no such key
     3 │
       ╰────
      help: constants of a block stand in [block.set]: set.loss = ..

    Error:
      × unknown key `sets` in [[block]]
       ╭─[experiments/test.toml:5:1]
     4 │ [[block]]
     5 │ sets = { train.lr = 1e-4 }
       · ──┬─
       ·   ╰── no such key
       ╰────
      help: did you mean `set`?
    "#);
}

#[test]
fn rules_that_are_none() {
    let text = r#"[grid]
train.lr = { logspace = [-5, -2], num = 4 }
diffusion.timesteps = { logspace = [10, 1000], num = 4 }
model.dropout = { linspace = [0, 0.3], steps = 4 }
train.batch_size = { range = [64, 16], step = 16 }
loss.variant = { linspace = [0, 1], num = 2 }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 5 faults in experiments/test.toml

    Error:
      × `train.lr`: a logspace lies above 0
       ╭─[experiments/test.toml:2:25]
     1 │ [grid]
     2 │ train.lr = { logspace = [-5, -2], num = 4 }
       ·                         ────┬───
       ·                             ╰── gives no values
     3 │ diffusion.timesteps = { logspace = [10, 1000], num = 4 }
       ╰────
      help: its ends are the values themselves, not their logarithms: logspace = [1e-5, 1e-2], not
            [-5, -2]

    Error:
      × `diffusion.timesteps` cannot be 46.4158883361, which this rule gives
       ╭─[experiments/test.toml:3:23]
     2 │ train.lr = { logspace = [-5, -2], num = 4 }
     3 │ diffusion.timesteps = { logspace = [10, 1000], num = 4 }
       ·                       ─────────────────┬────────────────
       ·                                        ╰── must be a whole number, at least 2
     4 │ model.dropout = { linspace = [0, 0.3], steps = 4 }
       ╰────
      help: write the nearest whole numbers out: [10, 46, 215, 1000]

    Error:
      × unknown key `steps` in a linspace
       ╭─[experiments/test.toml:4:40]
     3 │ diffusion.timesteps = { logspace = [10, 1000], num = 4 }
     4 │ model.dropout = { linspace = [0, 0.3], steps = 4 }
       ·                                        ──┬──
       ·                                          ╰── no such key
     5 │ train.batch_size = { range = [64, 16], step = 16 }
       ╰────
      help: a linspace has `linspace` and `num`

    Error:
      × `train.batch_size`: an empty range
       ╭─[experiments/test.toml:5:47]
     4 │ model.dropout = { linspace = [0, 0.3], steps = 4 }
     5 │ train.batch_size = { range = [64, 16], step = 16 }
       ·                                               ─┬
       ·                                                ╰── gives no values
     6 │ loss.variant = { linspace = [0, 1], num = 2 }
       ╰────
      help: the end is not among the values, and the step leads towards it

    Error:
      × `loss.variant` cannot be 0, which this rule gives
       ╭─[experiments/test.toml:6:16]
     5 │ train.batch_size = { range = [64, 16], step = 16 }
     6 │ loss.variant = { linspace = [0, 1], num = 2 }
       ·                ───────────────┬──────────────
       ·                               ╰── must be "simple", "vlb" or "hybrid"
       ╰────
    "#);
}

#[test]
fn more_runs_than_anybody_means() {
    let text = r#"seeds = { range = [0, 100] }

[grid]
train.lr = { logspace = [1e-5, 1e-2], num = 40 }
diffusion.timesteps = { range = [10, 40] }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × too many runs: 40 × 30 = 1200 cells × 100 seeds = 120000 runs, but at most 10000
       ╭─[experiments/test.toml:4:12]
     3 │ [grid]
     4 │ train.lr = { logspace = [1e-5, 1e-2], num = 40 }
       ·            ──────────────────┬──────────────────
       ·                              ╰── 40 values
     5 │ diffusion.timesteps = { range = [10, 40] }
       ·                       ──────────┬─────────
       ·                                 ╰── 30 values
       ╰────
      help: split the question, or raise `run.max_runs`
    "#);
}

#[test]
fn text_without_quotes_and_files_that_are_no_toml() {
    let text = r#"[base]
diffusion.schedule = cosine
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × not valid TOML
       ╭─[experiments/test.toml:2:22]
     1 │ [base]
     2 │ diffusion.schedule = cosine
       ·                      ───┬──
       ·                         ╰── string values must be quoted, expected literal string
       ╰────
      help: write "cosine"
    "#);
    let text = "base:\n  train:\n    lr: 1e-3\ngrid:\n  loss: [simple, vlb]\n";
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × this is not TOML
       ╭─[experiments/test.toml:1:5]
     1 │ base:
       ·     ┬
       ·     ╰── invalid unquoted key, expected letters, numbers, `-`, `_`
     2 │   train:
       ╰────
      help: this looks like YAML; an experiment file has lines `key = value`, below a line like [base]
            or [grid]
    "#);
}

#[test]
fn seeds_and_parts_on_the_command_line() {
    insta::assert_snapshot!(told("grid.loss = ['simple', 'vlb']", &["seeds=5..0"]), @r#"
    Error:
      × a range of seeds is FROM..TO, both whole numbers, TO the larger
       ╭─[command line:1:7]
     1 │ seeds=5..0
       ·       ──┬─
       ·         ╰── not a range of seeds
       ╰────
      help: 0..5 is 0, 1, 2, 3, 4
    "#);
    let mut grid = super::grid_tests::valid("grid.diffusion.schedule = ['linear', 'cosine']", &[]);
    let errors = grid.pick(&["shedule=linear".to_owned(), "schedule=cosin".to_owned(), "loss=vlb".to_owned()]).unwrap_err();
    insta::assert_snapshot!(print(&errors), @r#"
    Error:
      × 3 faults in experiments/test.toml

    Error:
      × there is no axis `shedule`
       ╭─[command line:1:1]
     1 │ shedule=linear
       · ───┬───
       ·    ╰── no such axis
     2 │ schedule=cosin
       ╰────
      help: did you mean `schedule`?

    Error:
      × `diffusion.schedule` cannot be "cosin"
       ╭─[command line:2:10]
     1 │ shedule=linear
     2 │ schedule=cosin
       ·          ──┬──
       ·            ╰── must be "linear", "linear_scaled", "quadratic", "cosine", "sigmoid", "jsd", "sqrt", "constant", "warmup10", "warmup50", "laplace", "logsnr_linear" or "explicit"
     3 │ loss=vlb
       ╰────
      help: did you mean "cosine"?

    Error:
      × no run has `loss` = vlb
       ╭─[command line:3:6]
     2 │ schedule=cosin
     3 │ loss=vlb
       ·      ─┬─
       ·       ╰── no run has it
       ╰────
      help: there is only simple
    "#);
}

/// What is said of the file `name` among `files`, with the folder called F.
fn told_of(files: &[(&str, &[u8])], name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let here = folder.path().join(name);
    let errors = match load(&here, &[], &facts) {
        Ok(grid) => panic!("accepted: {}", grid.arithmetic),
        Err(errors) => print(&errors),
    };
    // The folder's name is of any length, and lines are broken by it.
    let said = errors.replace(&folder.path().display().to_string(), "F");
    said.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn files_that_are_none() {
    insta::assert_snapshot!(told_of(&[("a.toml", b""), ("b.toml", b"")], "folder"), @r#"
    Error:
      × F/folder: this is a folder, not an experiment file
    "#);
    insta::assert_snapshot!(told_of(&[("a.toml", b"  \n")], "a.toml"), @r#"
    Error:
      × F/a.toml: the experiment file is empty
      help: name at least one axis, for example:
            [grid]
            diffusion.schedule = ["linear", "cosine"]
    "#);
    insta::assert_snapshot!(told_of(&[("a.toml", b"[base]\nname = \"\0\"\n")], "a.toml"), @r#"
    Error:
      × F/a.toml: not text: line 2, column 9 has a zero byte
      help: an experiment file is TOML
    "#);
    insta::assert_snapshot!(told_of(&[("a.toml", &vec![b'#'; (1 << 20) + 1])], "a.toml"), @r#"
    Error:
      × F/a.toml: more than a megabyte: an experiment file is a page of text
    "#);
}

#[test]
fn files_that_extend_others() {
    let own = b"extends = \"base.toml\"\n[base]\ntrain.lr = 1e-4\n[grid]\ntrain.warmup = [1, 2]\n";
    // The other file's [base] lies below this one's, and only that.
    let base = b"name = 'other'\nseeds = [7]\n[base]\ntrain = { lr = 1e-2, steps = 70, warmup = 3 }\n[grid]\nloss = ['simple', 'vlb']\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    write("own.toml", own);
    write("base.toml", base);
    let grid = load(&folder.path().join("own.toml"), &[], &facts).unwrap_or_else(|e| panic!("{e}: {:#?}", e.faults()));
    assert_eq!((grid.name.as_str(), grid.runs.len(), grid.runs[0].seed), ("own", 2, 0));
    let train = &grid.runs[1].config.train;
    assert_eq!((train.lr, train.steps, train.warmup), (1e-4, 70, 2));
    // What was recorded expands again although the files are gone.
    let (path, text, extended) = (grid.source.clone(), grid.text.clone(), grid.extended.clone());
    drop(folder);
    let again = from_record(&path, &text, &extended, &[], &facts).unwrap();
    assert_eq!(again.runs.iter().map(|r| &r.id).collect::<Vec<_>>(), grid.runs.iter().map(|r| &r.id).collect::<Vec<_>>());
    assert!(from_record(&path, &text, &[], &[], &facts).is_err());

    let missing = told_of(&[("own.toml", own), ("bases.toml", base)], "own.toml");
    assert!(missing.contains("`extends`:") && missing.contains("No such file") && missing.contains("did you mean"), "{missing}");
    let circle = told_of(&[("own.toml", own), ("base.toml", b"extends = './own.toml'\n")], "own.toml");
    assert!(circle.contains("extends itself") && circle.contains("leads back") && circle.contains("base.toml:1:11"), "{circle}");
    let itself = told_of(&[("own.toml", b"extends = 'own.toml'\n")], "own.toml");
    assert!(itself.contains("own.toml extends itself"), "{itself}");
    // A mistake in the other file is shown there.
    let wrong = told_of(&[("own.toml", own), ("base.toml", b"[base]\ntrain.stepz = 4\n")], "own.toml");
    assert!(wrong.contains("unknown key `train.stepz`") && wrong.contains("base.toml:2:7"), "{wrong}");
    let number = told_of(&[("own.toml", b"extends = 3\n")], "own.toml");
    assert!(number.contains("`extends` is a number, but must be the path of one file"), "{number}");
}
