//! Care for the store: listing, comparing, collecting, checking, migrating, and where the numbers came from.

use crate::lab::{Lab, TINY, name};
use crate::training::interrupted_after;
use ddpm_lab::store::{ResultsStore, RunDir};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// [`TINY`] on points with a small network: a sweep of tenths of a second.
const QUICK: &str = r#"
[base]
data.name = "two_moons"
model.channels = [8]
diffusion.timesteps = 8
train = { steps = 12, batch_size = 8 }
log.every = 4
eval = { every = 0, images = 8, test_images = 32 }
sample.count = 8
[grid]
diffusion.schedule = ["linear", "cosine"]
train.lr = [1e-3, 3e-3]
[run]
checkpoint_every = 5
"#;

/// A lab in which `QUICK` has run.
fn quick() -> Lab {
    let lab = Lab::new();
    lab.write("experiments/quick.toml", QUICK);
    lab.ok(&["sweep", "experiments/quick.toml"]);
    lab
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn ids(text: &str) -> Vec<String> {
    lines(text).iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

fn stored(lab: &Lab) -> Vec<RunDir> {
    ResultsStore::open(&lab.path("results")).unwrap().runs().unwrap()
}

fn record(run: &Path) -> Value {
    json(&std::fs::read_to_string(run.join("run.json")).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, target).map(|_| ()).unwrap() }
    }
}

#[test]
fn runs_are_picked_by_any_key_sorted_by_any_column_and_cut() {
    let lab = quick();
    let cosine = lines(&lab.ok(&["ls", "diffusion.schedule=cosine", "--json"]));
    assert_eq!(cosine.len(), 2);
    assert!(cosine.iter().all(|run| run["config"]["diffusion.schedule"] == "cosine" && run["state"] == "done"), "{cosine:?}");
    assert_eq!(lines(&lab.ok(&["ls", "schedule=cosine", "lr=0.003", "--json"])).len(), 1);
    assert_eq!(lines(&lab.ok(&["ls", "--state", "done,failed", "train.lr=1e-3,3e-3", "--json"])).len(), 4);
    let bits = |text: &str| lines(text).iter().map(|run| run["evaluation"]["bits_per_dim"].as_f64().unwrap()).collect::<Vec<_>>();
    let sorted = bits(&lab.ok(&["ls", "--sort", "bits_per_dim", "--json"]));
    assert!(sorted.len() == 4 && sorted.windows(2).all(|w| w[0] < w[1]), "{sorted:?}");
    let best_last = bits(&lab.ok(&["ls", "--sort", "bits_per_dim", "--reverse", "-n", "2", "--json"]));
    assert_eq!(best_last, [sorted[3], sorted[2]]);
    let by_key = lines(&lab.ok(&["ls", "--sort", "train.lr", "--reverse", "--json"]));
    assert_eq!(by_key[0]["config"]["train.lr"], 3e-3);
    // What has no number comes last, whichever way round.
    std::fs::remove_file(lab.runs()[0].join("run.json")).unwrap();
    for more in [&[][..], &["--reverse"]] {
        let runs = lines(&lab.ok(&[&["ls", "--json", "--sort", "bits_per_dim"], more].concat()));
        assert_eq!((runs.len(), runs[3]["state"].as_str()), (4, Some("resumable")));
    }
    assert_eq!(lab.run(&["ls", "schedule=cosine", "--state", "failed"]).code, 4);
    assert_eq!(lab.run(&["ls", "seed=7"]).code, 4);
}

#[test]
fn a_listing_has_a_column_for_each_key_that_differs_and_fits_a_terminal() {
    let lab = quick();
    let narrow = |args: &[&str], columns: &str| {
        let output = lab.command(args).env("COLUMNS", columns).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let ls = narrow(&["ls"], "80");
    assert!(ls.lines().all(|line| line.chars().count() <= 80), "{ls}");
    let head: Vec<&str> = ls.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..4], ["run", "state", "schedule", "lr"], "{ls}");
    assert!(!ls.contains('…') && ls.lines().skip(1).all(|line| line.contains(" done ") && line.contains(" ± ")), "{ls}");
    // One key fewer when it no longer differs; names in their place where there is no room.
    let head = narrow(&["ls", "schedule=cosine"], "80").lines().next().unwrap().to_owned();
    assert!(head.contains(" lr ") && !head.contains("schedule"), "{head}");
    let tight = narrow(&["ls"], "57");
    assert!(tight.lines().all(|line| line.chars().count() <= 57) && tight.contains("configuration"), "{tight}");
    // A run that cannot be read hides no other.
    std::fs::write(lab.runs()[1].join("run.json"), "{").unwrap();
    let ls = narrow(&["ls"], "80");
    assert_eq!((ls.lines().count(), ls.matches("damaged").count()), (5, 1), "{ls}");
    assert_eq!(lines(&lab.ok(&["ls", "--state", "damaged", "--json"])).len(), 1);
}

#[test]
fn a_listing_that_is_asked_for_wrongly_says_what_is_meant() {
    let lab = quick();
    let said = |args: &[&str]| {
        let said = lab.run(args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        said.err.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(said(&["ls", "shedule=cosine"]), @r#"
      × there is no key `shedule`
       ╭─[command line:1:1]
     1 │ shedule=cosine
       · ───┬───
       ·    ╰── no such key
       ╰────
      help: did you mean `diffusion.schedule`?
    "#);
    insta::assert_snapshot!(said(&["ls", "schedule=cosin"]), @r#"
      × `diffusion.schedule` cannot be "cosin"
       ╭─[command line:1:10]
     1 │ schedule=cosin
       ·          ──┬──
       ·            ╰── must be "linear", "linear_scaled", "quadratic", "cosine", "sigmoid", "jsd", "sqrt", "constant", "warmup10", "warmup50", "laplace", "logsnr_linear" or "explicit"
       ╰────
      help: did you mean "cosine"?
    "#);
    insta::assert_snapshot!(said(&["ls", "--sort", "bpd"]), @r#"
    error: there is no column `bpd`
      help: --sort takes run_id, slug, state, step, seconds, bits_per_dim, eps_mse, swd, or a key of the configuration; the sections are data, model, diffusion, loss, train, log, eval, sample
    "#);
    assert!(said(&["ls", "--state", "finished"]).contains("done, diverged, failed, damaged"));
    assert_eq!(lab.run(&["ls", "--reverse"]).code, 2);
}

#[test]
fn two_runs_are_compared_key_by_key_and_their_difference_has_the_error_of_its_pairs() {
    let lab = quick();
    let runs = ids(&lab.ok(&["ls", "lr=1e-3", "--sort", "schedule", "--json"]));
    let [b, a] = runs.as_slice() else { panic!("{runs:?}") };
    let diff = json(&lab.ok(&["diff", a, b, "--json"]));
    assert_eq!(diff["configuration"], serde_json::json!({ "diffusion.schedule": { "a": "linear", "b": "cosine" } }));
    // By hand, from the bounds of the single examples.
    let examples = |id: &str| -> Vec<f64> {
        let run = stored(&lab).into_iter().find(|run| run.id() == id).unwrap();
        run.read_evaluations().unwrap().pop().unwrap().by_example
    };
    let (x, y) = (examples(a), examples(b));
    assert_eq!(x.len(), 32);
    let d: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
    let mean = d.iter().sum::<f64>() / 32.0;
    let error = (d.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 31.0 / 32.0).sqrt();
    let bits = &diff["metrics"]["bits_per_dim"];
    let near = |key: &str, value: f64| assert!((bits[key].as_f64().unwrap() - value).abs() < 1e-9, "{key}: {bits}");
    near("difference", mean);
    near("difference_se", error);
    near("a", x.iter().sum::<f64>() / 32.0);
    assert_eq!(bits["examples"], 32);
    assert!(bits["unpaired_se"].as_f64().unwrap() > error, "{bits}");
    assert!(["decoder", "kl", "prior", "eps_mse", "sliced_wasserstein"].iter().all(|key| diff["metrics"][key]["difference"].is_f64()));
    assert_eq!(diff["provenance"], serde_json::json!({}), "one sweep made both");
    let words = lab.ok(&["diff", a, b]);
    assert!(words.contains("diffusion.schedule") && !words.contains("train.lr") && words.contains("over the 32 test examples"), "{words}");
    assert!(words.lines().all(|line| line.chars().count() <= 120));
    let same = lab.ok(&["diff", a, a]);
    assert!(same.contains("equal in every key"), "{same}");
    assert_eq!(lab.run(&["diff", a, "rffffffffffff"]).code, 4);
}

#[test]
fn runs_that_saw_other_examples_are_not_paired() {
    let lab = quick();
    lab.ok(&["sweep", "experiments/quick.toml", "name=other", "eval.test_images=16", "diffusion.schedule=linear", "train.lr=1e-3"]);
    let few = ids(&lab.ok(&["ls", "eval.test_images=16", "--json"]));
    let many = ids(&lab.ok(&["ls", "eval.test_images=32", "--json"]));
    let diff = json(&lab.ok(&["diff", &many[0], &few[0], "--json"]));
    let bits = &diff["metrics"]["bits_per_dim"];
    assert!(bits["difference"].is_f64() && bits["difference_se"].is_null() && bits["examples"].is_null(), "{bits}");
    assert!(lab.ok(&["diff", &many[0], &few[0]]).contains("different examples"));
    // One that has no result yet has only its configuration.
    std::fs::remove_file(lab.runs()[0].join("run.json")).unwrap();
    std::fs::remove_file(lab.runs()[0].join("metrics.jsonl")).unwrap();
    let id = name(&lab.runs()[0]).rsplit_once('-').unwrap().1.to_owned();
    assert!(lab.ok(&["diff", &id, &few[0]]).contains('–'));
}

#[test]
fn a_run_is_shown_with_where_it_came_from_and_everything_for_machines() {
    let lab = quick();
    let shown = lab.ok(&["show", "latest"]);
    for words in ["state: done", "step 12 of 12", "made by ddpm-lab", "Cargo.lock ", "  data ", "by: ", "1 attempt\n", "1 thread"] {
        assert!(shown.contains(words), "{words} is missing in\n{shown}");
    }
    let all = json(&lab.ok(&["show", "latest", "--json"]));
    assert_eq!((&all["status"], &all["state"], &all["config"]["train.steps"]), (&"done".into(), &"done".into(), &12.into()));
    assert_eq!(all["metrics"].as_array().unwrap().last().unwrap()["by_example"].as_array().unwrap().len(), 32);
    // Before there is a record, there is a state and a configuration.
    std::fs::remove_file(lab.runs()[0].join("run.json")).unwrap();
    let id = name(&lab.runs()[0]);
    let early = json(&lab.ok(&["show", &id, "--json"]));
    assert_eq!((&early["state"], early["status"].is_null(), &early["config"]["train.steps"]), (&"resumable".into(), true, &12.into()));
}

#[test]
fn nobody_names_it_so_it_can_go_and_nothing_goes_unasked() {
    let lab = quick();
    // The sweep comes to mean two runs; the file still names four.
    lab.ok(&["sweep", "experiments/quick.toml", "diffusion.schedule=cosine"]);
    let all = lab.runs();
    assert!(lab.ok(&["gc"]).contains("Nothing to delete"));
    // The file names two as well, and is found in a folder of its own.
    lab.write("experiments/deep/quick.toml", &QUICK.replace("\"linear\", ", ""));
    std::fs::remove_file(lab.path("experiments/quick.toml")).unwrap();
    let dry = lab.ok(&["gc"]);
    assert!(dry.contains("2 runs that nobody names") && dry.contains("Nothing was deleted; --yes does it"), "{dry}");
    let plan = json(&lab.ok(&["gc", "--json"]));
    assert_eq!((plan["runs"].as_array().unwrap().len(), &plan["deleted"], &plan["kept"]), (2, &false.into(), &2.into()));
    assert!(
        plan["bytes"].as_u64().unwrap() > 10_000
            && plan["runs"].as_array().unwrap().iter().all(|r| r["slug"].as_str().unwrap().contains("linear"))
    );
    assert_eq!(lab.runs(), all);
    // A hand, a list and a file by name keep as well.
    let linear = ids(&lab.ok(&["ls", "schedule=linear", "--json"]));
    assert!(lab.ok(&["gc", "--keep", &linear[0][..8]]).contains("1 run that nobody names"));
    lab.write("results/keep.txt", &format!("# for the paper\n{}  # Table 1\n\n{}\n", linear[0], linear[1]));
    assert!(lab.ok(&["gc"]).contains("Nothing to delete"));
    std::fs::remove_file(lab.path("results/keep.txt")).unwrap();
    lab.write("elsewhere.toml", QUICK);
    assert!(lab.ok(&["gc", "elsewhere.toml"]).contains("Nothing to delete"));
    assert_eq!(lab.run(&["gc", "--keep", "rffffffffffff"]).code, 4);
    assert_eq!(lab.run(&["gc", "missing.toml"]).code, 2);
    // One that somebody runs stays.
    let held = stored(&lab).into_iter().find(|run| run.id() == linear[0]).unwrap();
    let lock = held.try_lock().unwrap().unwrap();
    let said = lab.ok(&["gc", "--yes"]);
    assert!(said.contains("Deleted 1 run") && said.contains("somebody is running it"), "{said}");
    drop(lock);
    lab.ok(&["gc", "--yes"]);
    assert_eq!(lab.runs().len(), 2);
    assert!(lab.runs().iter().all(|run| name(run).contains("cosine")));
    assert_eq!(std::fs::read_to_string(lab.path("results/runs.jsonl")).unwrap().lines().count(), 2);
    // And comes back as it was.
    lab.ok(&["sweep", "elsewhere.toml"]);
    assert_eq!(lab.runs(), all);
}

#[test]
fn what_cannot_be_expanded_names_nobody_knows_what_so_nothing_is_deleted() {
    let lab = quick();
    lab.ok(&["sweep", "experiments/quick.toml", "diffusion.schedule=cosine"]);
    std::fs::remove_file(lab.path("experiments/quick.toml")).unwrap();
    lab.write("experiments/other.toml", "[base]\ndata.path = \"gone.h5\"\n");
    assert!(lab.ok(&["gc"]).contains("not known: what experiments/other.toml names"));
    let said = lab.run(&["gc", "--yes"]);
    assert_eq!((said.code, lab.runs().len()), (2, 4));
    assert!(said.err.contains("experiments/other.toml") && said.err.contains("gone.h5"), "{said:?}");
    assert!(said.err.contains("--skip experiments/other.toml"), "{said:?}");
    assert_eq!(lab.run(&["gc", "--skip", "experiments/none.toml"]).code, 2);
    // A torn record of a sweep may name anything.
    let record = lab.path("results/sweeps/quick.json");
    let whole = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    let said = lab.run(&["gc", "--yes", "--skip", "experiments/other.toml"]);
    assert!(said.code == 2 && said.err.contains("quick.json"), "{said:?}");
    std::fs::write(&record, whole).unwrap();
    assert!(lab.ok(&["gc", "--yes", "--skip", "experiments/other.toml"]).contains("Deleted 2 runs"));
    assert_eq!(lab.runs().len(), 2);
}

#[test]
fn old_checkpoints_go_where_asked_and_the_runs_stay_sound() {
    let lab = quick();
    let said = lab.ok(&["gc", "--checkpoints", "--yes"]);
    assert!(said.contains("Deleted 4 checkpoints"), "{said}");
    for run in stored(&lab) {
        assert_eq!(run.checkpoints().unwrap().iter().map(|c| c.0).collect::<Vec<_>>(), [12]);
    }
    assert!(lab.ok(&["doctor"]).contains(": sound"));
    lab.ok(&["sample", "latest", "--steps", "4", "--arrays", "samples.h5"]);
    // An experiment that keeps every checkpoint says so for the runs it names.
    let lab = Lab::new();
    lab.write("experiments/kept.toml", &QUICK.replace("checkpoint_every = 5", "checkpoint_every = 5\nkeep = true"));
    lab.ok(&["sweep", "experiments/kept.toml"]);
    assert!(lab.ok(&["gc", "--checkpoints"]).contains("Nothing to delete"));
}

#[test]
fn what_is_damaged_is_found_and_made_again_to_the_same_bytes() {
    let lab = quick();
    let sound = lab.ok(&["doctor"]);
    assert!(sound.starts_with("4 runs, ") && sound.ends_with(": sound\n"), "{sound}");
    let files = ["losses.parquet", "metrics.jsonl", "config.toml", "checkpoints/step-12.safetensors"];
    let before = files.map(|file| lab.bytes_of(file));
    // A bit of each of four files, each in a run of its own.
    for (run, file) in lab.runs().iter().zip(files) {
        let mut bytes = std::fs::read(run.join(file)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(run.join(file), bytes).unwrap();
    }
    let said = lab.run(&["doctor"]);
    assert_eq!((said.code, said.err.as_str()), (100, ""), "{said:?}");
    assert!(said.out.contains("is not what run.json recorded") && said.out.contains("4 faults"), "{}", said.out);
    assert!(lab.ok(&["sweep", "experiments/quick.toml"]).contains("nothing to run"), "a plan does not look into files");
    let told = json(&lab.run(&["doctor", "--json"]).out);
    assert_eq!((&told["sound"], told["runs"].as_u64()), (&false.into(), Some(4)));
    assert!(lab.run(&["doctor", "--repair"]).out.contains("4 damaged runs"));
    lab.ok(&["sweep", "experiments/quick.toml"]);
    assert!(lab.ok(&["doctor"]).contains(": sound"));
    assert!(before == files.map(|file| lab.bytes_of(file)));
}

#[test]
fn doctor_says_what_a_sweep_does_and_the_sweep_does_it() {
    let lab = quick();
    let runs = lab.runs();
    let before = lab.bytes_of("losses.parquet");
    std::fs::write(runs[0].join("run.json"), "{\"schema\": 1").unwrap();
    std::fs::remove_file(runs[1].join("losses.parquet")).unwrap();
    std::fs::write(runs[2].join(".run.json.tmp-1"), "half").unwrap();
    std::fs::write(lab.path("results/extra.parquet"), "x").unwrap();
    let said = lab.run(&["doctor"]);
    assert_eq!(said.code, 100);
    for words in [
        "run.json: ",
        "goes on from step 12",
        "losses.parquet: is missing",
        "what a killed process left",
        "extra.parquet: a table that is no run's",
        "3 faults, 2 remarks",
    ] {
        assert!(said.out.contains(words), "{words} is missing in\n{}", said.out);
    }
    std::fs::remove_file(lab.path("results/extra.parquet")).unwrap();
    lab.ok(&["sweep", "experiments/quick.toml"]);
    let after = lab.ok(&["doctor"]);
    assert!(after.contains(": sound, 1 remark"), "a run that is done is not taken, so its leftover stays:\n{after}");
    assert!(lab.ok(&["gc", "--yes"]).contains("Deleted 1 leftover"));
    assert!(lab.ok(&["doctor"]).ends_with(": sound\n"));
    assert!(before == lab.bytes_of("losses.parquet"));
}

/// The kept store of layout 1, as the first version that had it wrote it.
fn layout_1() -> Lab {
    let lab = Lab::new();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/layout-1");
    copy(&kept, &lab.path(""));
    lab
}

#[test]
fn a_store_of_layout_1_is_read_as_it_was_written() {
    let lab = layout_1();
    assert!(lab.ok(&["migrate"]).contains("Nothing to migrate: 3 records of layout 1"));
    // Its identities are those of today, so it is done. What is derived is written anew.
    assert!(lab.ok(&["doctor"]).contains(": sound, 1 remark"));
    assert!(lab.ok(&["sweep", "kept.toml"]).contains("nothing to run, 2 of 2 runs are done"));
    assert!(lab.ok(&["doctor"]).ends_with(": sound\n"));
    let runs = lines(&lab.ok(&["ls", "--sort", "schedule", "--json"]));
    let bits: Vec<f64> = runs.iter().map(|run| run["evaluation"]["bits_per_dim"].as_f64().unwrap()).collect();
    let known: Value = json(&std::fs::read_to_string(lab.path("known.json")).unwrap());
    assert_eq!(bits, [known["cosine"].as_f64().unwrap(), known["linear_scaled"].as_f64().unwrap()]);
    let shown = lab.ok(&["show", runs[0]["run_id"].as_str().unwrap()]);
    assert!(shown.contains("no git revision") && !shown.contains("built from"), "{shown}");
    let id = |i: usize| runs[i]["run_id"].as_str().unwrap();
    assert_eq!(json(&lab.ok(&["diff", id(1), id(0), "--json"]))["metrics"]["bits_per_dim"]["examples"], 16);
    assert!(lab.ok(&["report"]).contains("2 of 2 runs finished"));
    // What it evaluates to today is what it was.
    let again = json(&lab.ok(&["evaluate", id(1), "--json"]));
    assert!(again.to_string().contains("bits_per_dim"), "{again}");
}

#[test]
fn a_store_of_another_layout_is_refused_by_name_and_left_alone() {
    for (layout, words) in [(2, "layouts up to 1; use a newer ddpm-lab"), (0, "`ddpm-lab migrate` brings it up to date")] {
        let lab = layout_1();
        for path in [lab.runs()[0].join("run.json"), lab.path("results/sweeps/kept.json")] {
            let text = std::fs::read_to_string(&path).unwrap().replace("\"schema\": 1", &format!("\"schema\": {layout}"));
            std::fs::write(&path, text).unwrap();
        }
        let before = lab.bytes_of("run.json");
        for command in [&["sweep", "kept.toml"][..], &["plan", "kept.toml"], &["gc", "--yes"], &["report"], &["ls", "--sweep", "kept"]] {
            let said = lab.run(command);
            assert_eq!(said.code, 2, "{command:?}: {said:?}");
            assert!(said.err.contains(words) && said.err.contains(&format!("layout {layout}")), "{command:?}: {said:?}");
            assert_eq!(said.err.matches("error:").count(), 1, "{said:?}");
        }
        // Looking is allowed, and says which.
        assert!(lab.ok(&["ls", "--json"]).contains(&format!("layout {layout}")));
        assert_eq!(lab.run(&["doctor"]).code, 100);
        let said = lab.run(&["migrate"]);
        assert!(said.code == 2 && said.err.contains(&format!("layout {layout}")), "{said:?}");
        assert!(before == lab.bytes_of("run.json"));
    }
}

/// Makes the lab's folder a repository with one commit of its experiments.
fn committed(lab: &Lab) {
    for args in [&["init", "-q"][..], &["add", "."], &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x"]] {
        assert!(Command::new("git").args(args).current_dir(lab.path("")).status().unwrap().success());
    }
}

#[test]
fn a_run_knows_the_revision_the_changes_and_the_program_it_came_from() {
    let lab = Lab::new();
    lab.write("quick.toml", QUICK);
    lab.write("notes.md", "one\n");
    committed(&lab);
    let one = ["sweep", "quick.toml", "diffusion.schedule=linear", "train.lr=1e-3", "--threads", "1"];
    lab.ok(&one);
    let clean = record(&lab.runs()[0]);
    let p = &clean["provenance"];
    assert_eq!(
        (p["git_revision"].as_str().map(str::len), &p["git_dirty"], p.get("patch"), p.get("untracked")),
        (Some(40), &false.into(), None, None)
    );
    assert_eq!(p["build"]["lock"].as_str().map(str::len), Some(64));
    assert_eq!(
        p["build"]["features"].as_array().unwrap().len(),
        usize::from(cfg!(feature = "cuda")) + usize::from(cfg!(feature = "cudnn"))
    );
    assert!(p["device_name"].is_string() || !Path::new("/proc/cpuinfo").exists());
    assert_eq!(p["data"].as_str(), lines(&lab.ok(&["ls", "--json"]))[0]["config"]["data.fingerprint"].as_str());
    assert!(p["command"].to_string().contains("diffusion.schedule=linear"));
    assert!(!lab.path("results/patches").exists());
    // With a change and a new file.
    lab.write("notes.md", "two\n");
    lab.write("idea.txt", "");
    lab.ok(&["sweep", "quick.toml", "diffusion.schedule=cosine", "--threads", "1"]);
    for run in lab.runs().iter().filter(|run| name(run).contains("cosine")) {
        let p = &record(run)["provenance"];
        assert_eq!((&p["git_dirty"], &p["untracked"]), (&true.into(), &serde_json::json!(["idea.txt"])));
        let patch = lab.path("results/patches").join(format!("{}.patch", p["patch"].as_str().unwrap()));
        assert!(std::fs::read_to_string(&patch).unwrap().contains("\n-one\n+two\n"));
        let shown = lab.ok(&["show", &name(run)]);
        assert!(shown.contains(", changed by results/patches/") && shown.contains("git did not know: idea.txt"), "{shown}");
    }
    assert_eq!(std::fs::read_dir(lab.path("results/patches")).unwrap().count(), 1, "one text, kept once");
    let runs = ids(&lab.ok(&["ls", "lr=1e-3", "--sort", "schedule", "--json"]));
    let diff = json(&lab.ok(&["diff", &runs[1], &runs[0], "--json"]));
    let keys: Vec<&String> = diff["provenance"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["git_dirty", "command", "patch", "untracked"]);
    assert!(lab.ok(&["doctor"]).ends_with(": sound\n"));
}

/// A record without what may differ between two equal runs.
fn lasting(run: &PathBuf) -> Value {
    let mut record = record(run);
    let fields = record.as_object_mut().unwrap();
    assert!(fields.remove("volatile").is_some() && fields.remove("blake3").is_some(), "its hash is of all of it");
    record
}

#[test]
fn an_interrupted_run_ends_with_the_record_of_an_undisturbed_one() {
    let undisturbed = Lab::new();
    let lab = Lab::new();
    for lab in [&undisturbed, &lab] {
        lab.write("tiny.toml", TINY);
        committed(lab);
        lab.write("tiny.toml", &format!("# changed\n{TINY}"));
    }
    // One run at a time, as the interrupted ones go: the record holds the number of threads.
    undisturbed.ok(&["sweep", "tiny.toml", "-j", "1"]);
    let interrupted = (2..12).step_by(3).filter(|events| interrupted_after(&lab, *events)).count();
    assert!(interrupted >= 1);
    lab.ok(&["sweep", "tiny.toml", "-j", "1"]);
    for (a, b) in undisturbed.runs().iter().zip(lab.runs()) {
        let (mut a, mut b) = (lasting(a), lasting(&b));
        // The commits are of two repositories, a second apart, and the last command may have been another.
        for record in [&mut a, &mut b] {
            let p = record["provenance"].as_object_mut().unwrap();
            assert!(p.remove("git_revision").is_some() && p.remove("command").is_some());
        }
        assert_eq!(a, b, "after {interrupted} interruptions");
    }
}
