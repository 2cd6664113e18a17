//! Evaluating a run again, and what no network can do better.

use crate::lab::{Lab, TINY};
use ddpm_lab::data::hdf5::H5File;
use ddpm_lab::record::Split;
use ddpm_lab::store::{ResultsStore, RunDir, read_losses, read_rows};
use serde_json::Value;
use std::process::Stdio;

/// One run, on digits.
fn digits() -> (Lab, RunDir) {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml", "diffusion.schedule=cosine", "eval.floor=on"]);
    let run = ResultsStore::open(&lab.path("results")).unwrap().runs().unwrap().remove(0);
    (lab, run)
}

/// One run on points whose distribution is known.
const POINTS: &str = r#"
[base]
data.name = "gaussian_mixture"
diffusion = { schedule = "cosine", timesteps = 20 }
model.channels = [16]
train = { steps = 40, batch_size = 32 }
eval = { images = 200, test_images = 300, timesteps = "strided:6" }
sample.count = 50
"#;

fn json(lab: &Lab, args: &[&str]) -> Value {
    serde_json::from_str(&lab.ok(&[&["evaluate", "latest", "--json"], args].concat())).unwrap()
}

fn files(run: &RunDir) -> Vec<(String, Vec<u8>)> {
    fn walk(dir: &std::path::Path, out: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push((path.display().to_string(), std::fs::read(&path).unwrap())) }
        }
    }
    let mut out = Vec::new();
    walk(run.path(), &mut out);
    out.sort();
    out
}

#[test]
fn without_options_it_is_the_final_evaluation_again_and_the_run_is_left_alone() {
    let (lab, run) = digits();
    let before = files(&run);
    let stored = run.read_evaluations().unwrap().pop().unwrap();
    assert_eq!(stored.split, Split::Test);
    let again = json(&lab, &["--device", "cpu"]);
    let mut wanted = serde_json::to_value(&stored).unwrap();
    // The samples are the run's own.
    let samples = wanted.as_object_mut().unwrap().remove("samples").unwrap();
    assert_eq!(again["evaluation"], wanted, "bit for bit");
    assert_eq!(samples["samples"], 4);
    assert_eq!(again["complete"], true);
    let parts: f64 = ["decoder", "kl", "prior"].iter().map(|k| again["evaluation"][k].as_f64().unwrap()).sum();
    assert!((parts - again["evaluation"]["bits_per_dim"].as_f64().unwrap()).abs() < 1e-12);

    for options in [
        &["--split", "train", "--images", "9", "--weights", "raw"][..],
        &["--split", "val", "--timesteps", "strided:8", "--draws", "2", "--step", "21"],
        &["--timesteps", "dense-head:5:4", "--draws", "3", "--rate-distortion", "--memorisation"],
    ] {
        let said = lab.ok(&[&["evaluate", "latest"], options].concat());
        assert!(said.contains("bound") && said.contains("decoder L_0") && !said.contains("NaN"), "{said}");
        json(&lab, options);
    }
    assert_eq!(before, files(&run), "evaluating changes nothing in the folder");
}

#[test]
fn the_runs_own_strided_evaluation_is_reproduced_and_its_error_has_the_choice_of_t_in_it() {
    let (lab, run) = digits();
    let stored = run.read_evaluations().unwrap().into_iter().rfind(|e| e.split == Split::Val).unwrap();
    let again = json(&lab, &["--split", "val", "--timesteps", "strided:6"]);
    assert_eq!(again["evaluation"], serde_json::to_value(&stored).unwrap());
    assert!(stored.timestep_se.unwrap() > 0.0 && stored.bits_per_dim_se >= stored.timestep_se.unwrap());
    // With more draws the estimate stays near the full one, and says how near.
    let full = json(&lab, &["--split", "val"])["evaluation"]["bits_per_dim"].as_f64().unwrap();
    let many = json(&lab, &["--split", "val", "--timesteps", "strided:10", "--draws", "4"]);
    let (value, error) = (many["evaluation"]["bits_per_dim"].as_f64().unwrap(), many["evaluation"]["bits_per_dim_se"].as_f64().unwrap());
    assert!((value - full).abs() < 4.0 * error, "{value} ± {error}, not {full}");
}

#[test]
fn arrays_and_rows_are_written_in_their_schema_or_not_at_all() {
    let (lab, run) = digits();
    lab.ok(&["evaluate", "latest", "--arrays", "terms.h5", "--parquet", "rows.parquet"]);
    let file = H5File::open(&lab.path("terms.h5")).unwrap();
    let shape = |name: &str| file.arrays().unwrap().into_iter().find(|a| a.name == name).unwrap().shape;
    assert_eq!((shape("images"), shape("vb"), shape("mse"), shape("x0_mse")), (vec![6, 8, 8, 1], vec![6, 30], vec![6, 30], vec![6, 30]));
    assert_eq!(file.read_i64("t").unwrap(), (1..=30).collect::<Vec<i64>>());
    assert!(file.read_u8("images").unwrap().iter().all(|v| *v <= 16));
    let (vb, prior) = (file.read_f64("vb").unwrap(), file.read_f64("prior").unwrap());
    let bound = prior.iter().sum::<f64>() / 6.0 + vb.iter().sum::<f64>() / 6.0;
    let stored = run.read_evaluations().unwrap().pop().unwrap();
    assert!((bound / stored.bits_per_dim - 1.0).abs() < 1e-6, "{bound} {stored:?}");

    // The rows are those of the run itself.
    std::fs::create_dir(lab.path("copy")).unwrap();
    std::fs::rename(lab.path("rows.parquet"), lab.path("copy/losses.parquet")).unwrap();
    let rows = read_rows(&lab.path("copy")).unwrap();
    let own: Vec<_> = read_rows(run.path()).unwrap().into_iter().filter(|r| r.split == Split::Test).collect();
    assert_eq!(rows, own);

    for (bad, word) in [
        (&["--parquet", "results/rows.parquet"][..], "count twice"),
        (&["--images", "1000000"], "176 examples"),
        (&["--timesteps", "strided:31"], "strided:30"),
        (&["--timesteps", "every"], "dense-head"),
        (&["--draws", "0"], "noise"),
        (&["--step", "3"], "but of 21, 24"),
        (&["--arrays", "nowhere/terms.h5"], "nowhere"),
    ] {
        let said = lab.run(&[&["evaluate", "latest"], bad].concat());
        assert!(said.code == 2 && said.err.contains(word), "{bad:?}: {said:?}");
    }
    assert!(!lab.path("results/rows.parquet").exists() && !lab.path("nowhere").exists());
    assert_eq!(lab.run(&["evaluate", "rffffffffffff"]).code, 4);
}

#[test]
fn an_interrupted_evaluation_ends_at_once_and_writes_nothing() {
    let (lab, _) = digits();
    let mut child = lab
        .command(&["evaluate", "latest", "--images", "176", "--draws", "500", "--arrays", "terms.h5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once the process has a handler for SIGINT (signal 2, bit 1 of the mask), it evaluates.
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).map(|m| u64::from_str_radix(m.trim(), 16).unwrap());
        mask.is_some_and(|mask| mask & 2 != 0)
    };
    while !catches() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    // SAFETY: the process is ours and not yet waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let asked = std::time::Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed().as_secs() < 20, "it stops between two network calls");
    let left: Vec<String> = std::fs::read_dir(lab.path("."))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains("terms"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn data_of_known_distribution_have_a_floor_on_every_split() {
    let lab = Lab::new();
    lab.write("points.toml", POINTS);
    lab.ok(&["sweep", "points.toml"]);
    let run = ResultsStore::open(&lab.path("results")).unwrap().runs().unwrap().remove(0);
    let table = read_losses(run.path()).unwrap();
    let mut seen = 0;
    for i in 0..table.t.len() {
        let known = !table.mse_floor[i].is_nan() && !table.vb_floor[i].is_nan();
        assert_eq!(known, table.t[i] > 0, "{:?} t = {}", table.split[i], table.t[i]);
        if known && table.split[i] != Split::Train {
            seen += 1;
            // A network of 16 units after 40 steps is no match at any t.
            assert!(table.mse_mean[i] > table.mse_floor[i], "t = {}", table.t[i]);
        }
    }
    assert!(seen > 30);
    let last = run.read_evaluations().unwrap().pop().unwrap();
    let floor = last.floor.unwrap();
    assert!(last.bits_per_dim - floor.bits_per_dim > 5.0 * floor.excess_se, "{floor:?}");
    assert!(floor.excess_se < last.bits_per_dim_se * 2.0);
    let quality = last.samples.unwrap();
    assert_eq!((quality.samples, quality.data), (50, 2000));
    assert!(quality.sliced_wasserstein > quality.sliced_wasserstein_of_data && quality.mmd2 > 0.0, "{quality:?}");
    assert!(
        lab.ok(&["show", "latest"]).contains("are left to gain") && lab.ok(&["ls"]).contains(&format!("{:.4}", quality.sliced_wasserstein))
    );
    assert!(lab.ok(&["evaluate", "latest"]).contains("excess, on the same draws"));
}

#[test]
fn of_other_data_only_the_training_set_has_a_floor_and_it_can_be_switched_off() {
    let (lab, run) = digits();
    let table = read_losses(run.path()).unwrap();
    for i in 0..table.t.len() {
        assert_eq!(!table.vb_floor[i].is_nan(), table.split[i] == Split::Train, "{:?} t = {}", table.split[i], table.t[i]);
        if table.split[i] == Split::Train {
            assert!(table.mse_floor[i] >= 0.0 && table.mse_floor[i] < 1.0);
        }
    }
    // At t = 1 the nearest image is certain; at t = T nothing is.
    let at = |t: u32| (0..table.t.len()).find(|i| table.split[*i] == Split::Train && table.t[*i] == t).map(|i| table.mse_floor[i]).unwrap();
    assert!(at(1) < 1e-9 && at(15) > at(1));
    let said = lab.ok(&["evaluate", "latest", "--memorisation"]);
    assert!(said.contains("no floor") && said.contains("share"), "{said}");

    let other = Lab::new();
    other.write("points.toml", POINTS);
    other.ok(&["sweep", "points.toml", "eval.floor=off"]);
    let run = ResultsStore::open(&other.path("results")).unwrap().runs().unwrap().remove(0);
    assert!(read_losses(run.path()).unwrap().vb_floor.iter().all(|x| x.is_nan()));
}

#[test]
fn a_store_of_an_earlier_version_reads_as_before() {
    let (lab, run) = digits();
    for file in ["metrics.jsonl", "run.json"] {
        let path = run.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let strip = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            fn without(value: &mut Value) {
                match value {
                    Value::Object(map) => {
                        for key in ["timestep_se", "floor", "samples", "blake3"] {
                            map.remove(key);
                        }
                        map.values_mut().for_each(without);
                    }
                    Value::Array(items) => items.iter_mut().for_each(without),
                    _ => {}
                }
            }
            without(&mut value);
            value.to_string()
        };
        let old = if file == "run.json" { strip(&text) } else { text.lines().map(|l| strip(l) + "\n").collect() };
        assert_ne!(old, text);
        std::fs::write(&path, old).unwrap();
    }
    assert!(run.read_evaluations().unwrap().iter().all(|e| e.samples.is_none() && e.timestep_se.is_none()));
    assert!(lab.ok(&["ls"]).contains("done"));
    lab.ok(&["show", "latest"]);
    lab.ok(&["evaluate", "latest"]);
    lab.ok(&["report"]);
}
