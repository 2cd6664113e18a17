//! One run, and every file-system call of its process: it dies there, the power goes there, the call fails there. Whatever
//! happened, what was announced is on the disk, no file is half a file, and the next attempt ends with the same bytes.

use crate::lab::{DROP, Lab, name};
use ddpm_lab::store::fault::{CRASHED, MET, VARIABLE};
use ddpm_lab::store::{RunDir, Status, read_losses};
use ddpm_lab::sweep::exit::BUSY;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

/// The run undisturbed.
struct Expected {
    lab: Lab,
    folder: String,
    /// Every file that must come out equal, by path in the run's folder; of `run.json` all but what differs by nature.
    files: BTreeMap<String, Vec<u8>>,
    /// Every checkpoint, those included that are removed later.
    checkpoints: BTreeMap<u32, Vec<u8>>,
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    /// The step that it began at.
    started: Option<u32>,
    /// Step of the last checkpoint it announced.
    announced: Option<u32>,
    failure: Option<String>,
    err: String,
}

impl Ended {
    fn fault_met(&self) -> bool {
        self.err.contains(MET)
    }
}

/// Runs the worker of `run`, as a sweep does.
fn worker(lab: &Lab, run: &Path, fault: Option<&str>, more: &[&str]) -> Ended {
    let args = ["worker", "--device", "cpu", "--checkpoint-every", "2", "--run-dir", run.to_str().unwrap()];
    let mut command = lab.command(&[&args, more].concat());
    if let Some(fault) = fault {
        command.env(VARIABLE, format!("worker:{fault}"));
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    drop(stdin);
    let events: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = |what: &str| events.iter().rev().find(|e| e["event"] == what);
    let started = last("started").map(|e| e["step"].as_u64().unwrap() as u32);
    let announced = last("checkpointed").map(|e| e["step"].as_u64().unwrap() as u32);
    let failure = last("failed").map(|e| e["reason"].as_str().unwrap().to_owned());
    Ended { status, started, announced, failure, err }
}

/// What of a run's folder must come out equal.
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["", "checkpoints", "samples"] {
        for entry in std::fs::read_dir(run.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let key = path.strip_prefix(run).unwrap().to_str().unwrap().to_owned();
            if path.is_file() && !["lock", "log.txt", "timing.jsonl"].contains(&key.as_str()) {
                found.insert(key, std::fs::read(&path).unwrap());
            }
        }
    }
    if let Some(bytes) = found.get_mut("run.json") {
        let mut record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record.as_object_mut().unwrap().remove("volatile").unwrap();
        record.as_object_mut().unwrap().remove("blake3").unwrap();
        *bytes = record.to_string().into_bytes();
    }
    found
}

impl Expected {
    fn new() -> Self {
        let lab = Lab::new();
        lab.write("drop.toml", DROP);
        lab.ok(&["sweep", "drop.toml", "--device", "cpu"]);
        let folder = name(&lab.runs()[0]);
        let expected = Self { lab, folder, files: BTreeMap::new(), checkpoints: BTreeMap::new() };
        let (plain, keeping) = (expected.fresh("plain"), expected.fresh("keeping"));
        assert!(worker(&expected.lab, &plain, None, &[]).status.success());
        assert!(worker(&expected.lab, &keeping, None, &["--keep"]).status.success());
        let checkpoints = RunDir::at(&keeping).unwrap().checkpoints().unwrap();
        let checkpoints: BTreeMap<u32, Vec<u8>> = checkpoints.into_iter().map(|(s, p)| (s, std::fs::read(p).unwrap())).collect();
        assert_eq!(checkpoints.keys().copied().collect::<Vec<_>>(), [2, 4, 6, 7]);
        let files = files(&plain);
        for file in ["losses.parquet", "metrics.jsonl", "run.json", "config.toml", "checkpoints/step-6.safetensors", "samples/step-7.png"] {
            assert!(files.contains_key(file), "{file} is not among {:?}", files.keys());
        }
        Self { files, checkpoints, ..expected }
    }

    /// The run's folder before its first attempt.
    fn fresh(&self, place: &str) -> PathBuf {
        let run = self.lab.path(place).join(&self.folder);
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        std::fs::create_dir_all(run.join("samples")).unwrap();
        std::fs::copy(self.lab.runs()[0].join("config.toml"), run.join("config.toml")).unwrap();
        run
    }

    /// What holds however a process ended.
    fn promises_hold(&self, run: &Path, ended: &Ended, when: &str) {
        if let Some(step) = ended.announced {
            let there = std::fs::read(run.join(format!("checkpoints/step-{step}.safetensors"))).ok();
            assert!(there.as_ref() == Some(&self.checkpoints[&step]), "{when}: checkpoint {step} was announced and is not there");
        }
        let dir = RunDir::at(run).unwrap();
        if run.join("losses.parquet").exists() {
            read_losses(run).unwrap_or_else(|e| panic!("{when}: {e}"));
        }
        dir.read_evaluations().unwrap_or_else(|e| panic!("{when}: {e}"));
        let record = dir.manifest().unwrap_or_else(|e| panic!("{when}: {e}"));
        if let Some(record) = &record
            && record.status == Status::Done
        {
            assert_eq!(dir.verify().unwrap(), [], "{when}: a run is done and its files are not");
        }
        assert!(!ended.status.success() || record.is_some_and(|r| r.status == Status::Done), "{when}: it said done");
    }

    /// Goes on from whatever is there, to the same bytes.
    fn comes_out_equal(&self, run: &Path, ended: &Ended, when: &str) {
        let again = worker(&self.lab, run, None, &[]);
        assert!(again.status.success(), "{when}: {}", again.err);
        // A run that is done does not start; any other goes on from what was announced, or from what was finished after it.
        assert!(again.started.is_none_or(|step| step >= ended.announced.unwrap_or(0)), "{when}: began again at {:?}", again.started);
        let found = files(run);
        assert_eq!(found.keys().collect::<Vec<_>>(), self.files.keys().collect::<Vec<_>>(), "{when}");
        for (file, bytes) in &self.files {
            assert!(found[file] == *bytes, "{when}: {file} differs");
        }
    }

    /// Every call in turn, until the process meets the fault no more. Returns how many there are.
    fn at_every_call(&self, kind: &str, step: usize, check: impl Fn(&Path, &Ended, &str)) -> usize {
        for n in (1..).step_by(step) {
            let when = format!("{kind}@{n}");
            let run = self.fresh(&when.replace('+', "-and-on"));
            let ended = worker(&self.lab, &run, Some(&when), &[]);
            if !ended.fault_met() {
                assert!(ended.status.success(), "{when}: {}", ended.err);
                return n - 1;
            }
            self.promises_hold(&run, &ended, &when);
            check(&run, &ended, &when);
            self.comes_out_equal(&run, &ended, &when);
            std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
        }
        unreachable!()
    }

    fn dies_at_every_call(&self, kind: &str) {
        let calls = self.at_every_call(kind, 1, |_, ended, when| assert_eq!(ended.status.code(), Some(CRASHED), "{when}: {}", ended.err));
        println!("{kind}: {calls} calls");
        assert!(calls > 60, "only {calls} calls were counted");
    }
}

#[test]
fn a_process_that_dies_at_any_call_loses_nothing_it_announced() {
    Expected::new().dies_at_every_call("crash");
}

#[test]
fn power_that_goes_at_any_call_takes_nothing_that_was_announced() {
    Expected::new().dies_at_every_call("lose");
}

#[test]
fn names_that_reach_the_disk_before_contents_make_no_torn_file() {
    Expected::new().dies_at_every_call("tear");
}

#[test]
fn a_call_that_fails_once_is_told_with_its_path_and_is_made_good() {
    let expected = Expected::new();
    for (errno, words, step) in [("ENOSPC", "o space", 1), ("EIO", "nput/output error", 3), ("EACCES", "ermission denied", 3)] {
        expected.at_every_call(errno, step, |run, ended, when| {
            // Some calls only tidy up: their failure is no failure of the run.
            if !ended.status.success() {
                let failure = ended.failure.as_ref().unwrap_or_else(|| panic!("{when}: no reason in {}", ended.err));
                assert!(failure.contains(words) && failure.contains(&name(run)), "{when}: {failure}");
            }
        });
    }
}

#[test]
fn a_disk_that_stays_bad_ends_the_run_with_all_that_was_written_before() {
    let expected = Expected::new();
    for (errno, words) in [("ENOSPC+", "o space"), ("EIO+", "nput/output error")] {
        let kind = errno.trim_end_matches('+');
        for n in (1..).step_by(5) {
            let when = format!("{kind}@{n}+");
            let run = expected.fresh(&when);
            let ended = worker(&expected.lab, &run, Some(&when), &[]);
            if !ended.fault_met() {
                break;
            }
            expected.promises_hold(&run, &ended, &when);
            if !ended.status.success() {
                assert!(ended.failure.as_ref().is_some_and(|reason| reason.contains(words)), "{when}: {}", ended.err);
            }
            expected.comes_out_equal(&run, &ended, &when);
        }
    }
}

/// Every file of a run but the clock's, cut short and with bits flipped: never a panic, never another number.
#[test]
fn damaged_files_are_noticed_or_harmless_and_the_run_comes_out_equal() {
    let expected = Expected::new();
    // Killed before the checkpoint of step 7, and before that of step 6, when rows of step 4 were beside the table only.
    let (late, early) = (expected.fresh("late"), expected.fresh("early"));
    let ended = worker(&expected.lab, &late, Some("crash@1/step-7"), &[]);
    assert_eq!((ended.status.code(), ended.announced), (Some(CRASHED), Some(6)));
    let ended = worker(&expected.lab, &early, Some("crash@1/step-6"), &[]);
    assert_eq!((ended.status.code(), ended.announced), (Some(CRASHED), Some(4)));
    let victims = [
        (&late, "losses.parquet"),
        (&late, "metrics.jsonl"),
        (&late, "checkpoints/step-6.safetensors"),
        (&late, "checkpoints/step-4.safetensors"),
        (&early, "losses.parquet"),
        (&early, "checkpoints/step-4.rows"),
    ];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut noticed = 0;
    for case in 0..72 {
        let (half, file) = victims[case % victims.len()];
        let run = expected.fresh("victim");
        for (file, bytes) in files(half) {
            std::fs::write(run.join(file), bytes).unwrap();
        }
        let path = run.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = draw(bytes.len());
        if case / victims.len() % 2 == 0 {
            bytes[at] ^= 1 << draw(8);
        } else {
            bytes.truncate(at);
        }
        std::fs::write(&path, bytes).unwrap();
        let when = format!("{file} damaged at byte {at}");
        let again = worker(&expected.lab, &run, None, &[]);
        assert!(again.status.success(), "{when}: {}", again.err);
        assert!(!again.err.contains("panicked"), "{when}: {}", again.err);
        noticed += usize::from(again.err.contains("cannot be used"));
        if again.err.contains("step-6.safetensors cannot be used") && file.ends_with("step-6.safetensors") {
            assert_eq!(again.started, Some(4), "{when}: the checkpoint before it is whole");
        }
        let found = files(&run);
        for (file, bytes) in &expected.files {
            assert!(found[file] == *bytes, "{when}: {file} differs");
        }
        std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
    }
    // The older checkpoint is not looked at while the newer one is whole.
    assert!((40..=60).contains(&noticed), "{noticed} of 72 were noticed");
}

/// What the disk does not give may be whole: the run fails with the reason, nothing is thrown away, and the next attempt goes on.
#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_a_damaged_one() {
    let expected = Expected::new();
    let half = expected.fresh("half");
    worker(&expected.lab, &half, Some("crash@1/step-7"), &[]);
    for file in ["checkpoints/step-6.safetensors", "losses.parquet", "metrics.jsonl"] {
        let run = expected.fresh("unreadable");
        for (file, bytes) in files(&half) {
            std::fs::write(run.join(file), bytes).unwrap();
        }
        let ended = worker(&expected.lab, &run, Some(&format!("EIO@1/{file}")), &[]);
        assert!(ended.failure.as_ref().is_some_and(|why| why.contains("nput/output error") && why.contains(file)), "{file}: {ended:?}");
        let again = worker(&expected.lab, &run, None, &[]);
        assert_eq!((again.status.success(), again.started), (true, Some(6)), "{file}: {}", again.err);
        assert!(files(&run) == expected.files, "{file}: another result");
        assert_eq!(worker(&expected.lab, &run, None, &[]).started, None, "a run that is done is not begun again");
        std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
    }
}

/// Under another's name a checkpoint is whole and all the same not the one that is asked for.
#[test]
fn a_checkpoint_of_another_step_or_another_run_is_not_gone_on_from() {
    let expected = Expected::new();
    let (half, run) = (expected.fresh("half"), expected.fresh("mixed"));
    worker(&expected.lab, &half, Some("crash@1/step-7"), &[]);
    expected.lab.ok(&["sweep", "drop.toml", "seeds=1", "name=other", "--device", "cpu"]);
    let other = expected.lab.runs().into_iter().find(|run| name(run) != expected.folder).unwrap();
    let theirs = RunDir::at(&other).unwrap().checkpoints().unwrap().remove(0).1;
    for (file, bytes) in files(&half) {
        std::fs::write(run.join(file), bytes).unwrap();
    }
    std::fs::copy(run.join("checkpoints/step-4.safetensors"), run.join("checkpoints/step-6.safetensors")).unwrap();
    std::fs::copy(theirs, run.join("checkpoints/step-7.safetensors")).unwrap();
    let again = worker(&expected.lab, &run, None, &[]);
    assert_eq!((again.status.success(), again.started), (true, Some(4)), "{}", again.err);
    for words in ["step-7.safetensors cannot be used: it belongs to run r", "step-6.safetensors cannot be used: it holds step 4"] {
        assert!(again.err.contains(words), "{words} is not in {}", again.err);
    }
    assert!(files(&run) == expected.files, "another result");
}

/// The record itself, cut at every byte, with bits flipped: torn, it counts as none; whole again, the run is done again.
#[test]
fn a_record_cut_or_flipped_anywhere_counts_as_none() {
    let expected = Expected::new();
    let lab = &expected.lab;
    let run = lab.runs()[0].clone();
    let whole = std::fs::read(run.join("run.json")).unwrap();
    for length in 0..whole.len() - 1 {
        std::fs::write(run.join("run.json"), &whole[..length]).unwrap();
        let error = RunDir::at(&run).unwrap().manifest().unwrap_err();
        assert!(error.is_corrupt(), "{length}: {error}");
    }
    let record: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    for bit in (0..8 * whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(run.join("run.json"), &flipped).unwrap();
        match RunDir::at(&run).unwrap().manifest() {
            Err(error) => assert!(error.is_corrupt(), "bit {bit}: {error}"),
            // Between tokens a blank may become another blank.
            Ok(_) => assert_eq!(serde_json::from_slice::<serde_json::Value>(&flipped).unwrap(), record, "bit {bit}"),
        }
    }
    std::fs::write(run.join("run.json"), &whole[..whole.len() / 2]).unwrap();
    let plan = lab.ok(&["plan", "drop.toml"]);
    assert!(plan.contains("1 resumable"), "{plan}");
    lab.ok(&["sweep", "drop.toml", "--device", "cpu"]);
    assert_eq!(files(&run)["losses.parquet"], expected.files["losses.parquet"]);
    assert!(lab.ok(&["plan", "drop.toml"]).contains("1 done"));
}

#[test]
fn a_worker_whose_run_another_process_has_leaves_it_alone() {
    let expected = Expected::new();
    let run = expected.fresh("held");
    let before = files(&run);
    let held = RunDir::at(&run).unwrap().try_lock().unwrap().unwrap();
    assert_eq!(worker(&expected.lab, &run, None, &[]).status.code(), Some(BUSY));
    assert!(files(&run) == before);
    drop(held);
    assert!(worker(&expected.lab, &run, None, &[]).status.success());
}

#[test]
fn other_code_does_not_finish_what_this_code_began_unless_asked() {
    let expected = Expected::new();
    let half = expected.fresh("half");
    worker(&expected.lab, &half, Some("crash@1/step-7"), &[]);
    let ours = ddpm_lab::train::NUMERICS;
    for (step, allowed) in [("6", false), ("6", true)] {
        let run = expected.fresh(if allowed { "allowed" } else { "refused" });
        for (file, bytes) in files(&half) {
            std::fs::write(run.join(file), bytes).unwrap();
        }
        let drawn = run.join("samples/step-5.png");
        std::fs::write(&drawn, "by another network").unwrap();
        // The hash is not part of the values that the checkpoint's own hash covers.
        let path = run.join(format!("checkpoints/step-{step}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(ours.len()).position(|w| w == ours.as_bytes()).expect("the code is named");
        let theirs = [&bytes[..at], "0".repeat(ours.len()).as_bytes(), &bytes[at + ours.len()..]].concat();
        std::fs::write(&path, theirs).unwrap();
        let more: &[&str] = if allowed { &["--allow-code-change"] } else { &[] };
        let ended = worker(&expected.lab, &run, None, more);
        assert!(ended.status.success(), "{}", ended.err);
        assert_eq!(ended.err.contains("starts again from step 0 (--allow-code-change goes on)"), !allowed, "{}", ended.err);
        assert_eq!(drawn.exists(), allowed, "what another code's network drew is not this one's");
        let found = files(&run);
        for (file, bytes) in &expected.files {
            let same_code = allowed && file == "checkpoints/step-6.safetensors";
            let named_in_record = allowed && file == "run.json";
            assert!(same_code || named_in_record || found[file] == *bytes, "allowed {allowed}: {file} differs");
        }
    }
    // A run that is done stays done.
    assert!(expected.lab.ok(&["plan", "drop.toml"]).contains("1 done"));
}
