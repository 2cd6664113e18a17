//! Sweeps that are killed, stopped, held up, raced and starved. The oracle of all: the same bytes as undisturbed.

use crate::lab::{DROP, Lab, TINY, name};
use ddpm_lab::store::fault::{CRASHED, VARIABLE};
use ddpm_lab::store::{ResultsStore, RunDir, RunState};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Four runs of about a second.
const LONG: &str = r#"
seeds = [0, 1]
[base]
data = "swiss_roll"
diffusion.timesteps = 30
model.channels = [16, 16]
train = { steps = 4000, batch_size = 32 }
log.every = 500
eval = { every = 2000, images = 20, test_images = 20, floor = "off" }
sample.count = 8
[grid]
diffusion.schedule = ["linear_scaled", "cosine"]
[run]
checkpoint_every = 400
"#;

fn lab(text: &str) -> Lab {
    let lab = Lab::new();
    lab.write("x.toml", text);
    lab
}

fn undisturbed(text: &str) -> Lab {
    let lab = lab(text);
    lab.ok(&["sweep", "x.toml"]);
    lab
}

/// A sweep in a process group of its own, so that a signal can be given as a terminal gives it.
fn spawn(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.command(&[&["sweep", "x.toml"], args].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: a process of ours that is not yet waited for.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

fn kill_group(child: &Child, signal: i32) {
    // SAFETY: the group is that of our child, which is not yet waited for.
    unsafe { libc::kill(-child.id().cast_signed(), signal) };
}

/// The processes that `pid` started and that live.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let of = |tid: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let all = threads.iter().map(|t| of(&t.file_name().to_string_lossy())).collect::<Vec<_>>().join(" ");
    assert!(Path::new(&path).exists() || all.is_empty(), "this kernel does not list children");
    all.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let before = Instant::now();
    loop {
        if let Some(it) = found() {
            return it;
        }
        assert!(before.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn stored(lab: &Lab) -> Vec<RunDir> {
    if !lab.path("results/runs").exists() {
        return Vec::new();
    }
    ResultsStore::open(&lab.path("results")).unwrap().runs().unwrap()
}

fn newest_step(run: &RunDir) -> u32 {
    run.checkpoints().unwrap().last().map_or(0, |(step, _)| *step)
}

/// Waits until some run has a checkpoint and is being trained.
fn wait_for_a_checkpoint(lab: &Lab) {
    wait_for("a checkpoint", || stored(lab).iter().any(|run| newest_step(run) > 0 && run.is_locked().unwrap()).then_some(()));
}

fn wait_until_nobody_runs(lab: &Lab) {
    wait_for("the workers' end", || stored(lab).iter().all(|run| !run.is_locked().unwrap()).then_some(()));
}

/// Files of a run that must not depend on what happened on the way, the record without its volatile part.
fn equal(expected: &Lab, lab: &Lab, when: &str) {
    let (a, b) = (expected.runs(), lab.runs());
    assert_eq!(a.iter().map(|r| name(r)).collect::<Vec<_>>(), b.iter().map(|r| name(r)).collect::<Vec<_>>(), "{when}");
    let record = |run: &Path| {
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
        record.as_object_mut().unwrap().remove("volatile").unwrap();
        record.as_object_mut().unwrap().remove("blake3").unwrap();
        record["provenance"]["command"] = serde_json::Value::Null;
        record["provenance"]["threads"] = serde_json::Value::Null;
        record
    };
    for (a, b) in a.iter().zip(&b) {
        for file in ["losses.parquet", "metrics.jsonl", "config.toml"] {
            assert!(std::fs::read(a.join(file)).unwrap() == std::fs::read(b.join(file)).unwrap(), "{when}: {file} of {} differs", name(a));
        }
        assert_eq!(record(a), record(b), "{when}: run.json of {}", name(a));
        let last = RunDir::at(a).unwrap().checkpoints().unwrap().pop().unwrap();
        let path = b.join(last.1.strip_prefix(a).unwrap());
        assert!(std::fs::read(&last.1).unwrap() == std::fs::read(path).unwrap(), "{when}: the weights of {} differ", name(a));
        assert_eq!(temporaries(b), Vec::<PathBuf>::new(), "{when}");
    }
}

fn temporaries(run: &Path) -> Vec<PathBuf> {
    let folders = [run.to_path_buf(), run.join("checkpoints"), run.join("samples")];
    let entries = folders.iter().flat_map(|f| std::fs::read_dir(f).unwrap()).map(|e| e.unwrap().path());
    entries.filter(|p| name(p).contains(".tmp-")).collect()
}

/// A generator good enough for delays.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn random_kills_of_the_whole_group_change_no_byte() {
    let kills: u32 = std::env::var("DDPM_LAB_KILLS").map_or(20, |n| n.parse().expect("DDPM_LAB_KILLS is a number"));
    let seed = std::env::var("DDPM_LAB_SEED").map_or(1, |n| n.parse().expect("DDPM_LAB_SEED is a number"));
    let expected = undisturbed(LONG);
    let mut random = Random(seed);
    let mut lab = lab(LONG);
    let (mut landed, mut steps, mut rounds) = (0, 0_u64, 1);
    let done = |lab: &Lab| stored(lab).iter().map(|run| u64::from(newest_step(run))).sum::<u64>();
    for _ in 0..kills {
        let mut child = spawn(&lab, &["--progress", "plain"]);
        // Log-uniform between 1 ms and 2 s.
        let delay = Duration::from_secs_f64(1e-3 * 2000_f64.powf(random.unit()));
        let until = Instant::now() + delay;
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_group(&child, libc::SIGKILL);
        let status = child.wait().unwrap();
        landed += u32::from(status.signal() == Some(libc::SIGKILL));
        wait_until_nobody_runs(&lab);
        if status.success() {
            // Finished before the blow: the bytes are compared, and the rest of the kills go to a new one.
            equal(&expected, &lab, &format!("seed {seed}, {landed} kills landed"));
            steps += done(&lab);
            lab = self::lab(LONG);
            rounds += 1;
        }
    }
    lab.ok(&["sweep", "x.toml"]);
    equal(&expected, &lab, &format!("seed {seed}, {landed} kills landed"));
    steps += done(&lab);
    println!("{landed} of {kills} kills landed in {rounds} sweeps of 4 runs, {steps} steps kept; every file as undisturbed");
    assert!(landed * 3 >= kills, "only {landed} of {kills} kills landed");
}

/// The sweep's own process dies at each of its calls; its workers notice, and the next sweep ends with the same bytes.
#[test]
fn a_sweep_that_dies_at_any_of_its_own_calls_is_taken_up_again() {
    let text = DROP.replace("[run]", "[grid]\ndiffusion.schedule = [\"cosine\", \"sqrt\"]\n[run]").replace(", schedule = \"cosine\"", "");
    let expected = undisturbed(&text);
    let mut calls = 0;
    for n in 1.. {
        let lab = lab(&text);
        let mut command = lab.command(&["sweep", "x.toml", "--progress", "plain"]);
        let output = command.env(VARIABLE, format!("sweep:lose@{n}")).stderr(Stdio::null()).output().unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), Some(CRASHED), "call {n}");
        calls = n;
        wait_until_nobody_runs(&lab);
        // What was said to be done is done, its folder not lost with what the sweep had not flushed.
        let said = String::from_utf8(output.stdout).unwrap().matches("] done, ").count();
        let done = stored(&lab).iter().filter(|run| run.state().unwrap() == RunState::Done).count();
        assert!(done >= said, "call {n}: {said} runs were said to be done, {done} are");
        lab.ok(&["sweep", "x.toml"]);
        equal(&expected, &lab, &format!("the sweep died at its call {n}"));
    }
    println!("{calls} calls");
    assert!(calls > 40, "only {calls} calls were counted");
}

#[test]
fn a_full_disk_ends_one_run_and_the_next_sweep_with_room_makes_it_good() {
    let expected = undisturbed(TINY);
    let lab = lab(TINY);
    let mut command = lab.command(&["sweep", "x.toml", "--progress", "plain"]);
    let output = command.env(VARIABLE, "worker:ENOSPC@12+/cosine").output().unwrap();
    assert_eq!(output.status.code(), Some(100));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no space is left") && said.contains("1 done, 1 failed"), "{said}");
    let states: Vec<RunState> = stored(&lab).iter().map(|run| run.state().unwrap()).collect();
    assert_eq!(states, [RunState::Failed, RunState::Done], "cosine comes first by name");
    assert!(lab.ok(&["show", stored(&lab)[0].id()]).contains("no space is left"));
    let again = lab.run(&["sweep", "x.toml"]);
    assert!(again.code == 100 && again.out.contains("--retry-failed"), "{again:?}");
    lab.ok(&["sweep", "x.toml", "--retry-failed"]);
    equal(&expected, &lab, "after the disk was full");
}

/// A file system of two megabytes, where this may be mounted (as root, on Linux).
#[test]
fn a_file_system_that_is_really_full_tears_nothing() {
    let expected = undisturbed(TINY);
    let lab = lab(TINY);
    let results = lab.path("results");
    std::fs::create_dir(&results).unwrap();
    let mount = |options: &str| {
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&results).output();
        status.is_ok_and(|o| o.status.success())
    };
    if !mount("size=300k") {
        println!("skipped: no tmpfs can be mounted here (root on Linux can)");
        return;
    }
    let said = lab.run(&["sweep", "x.toml", "--progress", "plain"]);
    let unmount = || std::process::Command::new("umount").arg(&results).status().unwrap();
    let check = std::panic::catch_unwind(|| {
        assert_eq!(said.code, 100, "{said:?}");
        assert!(said.out.contains("no space is left") && said.out.contains(" free"), "{said:?}");
        for run in stored(&lab) {
            if run.path().join("losses.parquet").exists() {
                ddpm_lab::store::read_losses(run.path()).unwrap();
            }
            run.read_evaluations().unwrap();
        }
        assert!(mount("remount,size=50m"));
        lab.ok(&["sweep", "x.toml", "--retry-failed"]);
        equal(&expected, &lab, "after the file system was full");
    });
    unmount();
    check.unwrap_or_else(|e| std::panic::resume_unwind(e));
}

#[test]
fn workers_whose_sweep_was_killed_write_a_checkpoint_and_leave() {
    let expected = undisturbed(LONG);
    let lab = lab(LONG);
    let mut child = spawn(&lab, &[]);
    wait_for_a_checkpoint(&lab);
    kill(child.id(), libc::SIGKILL);
    // Meanwhile somebody starts it again: nothing is doubled and nothing is refused.
    let mut second = spawn(&lab, &[]);
    let before = Instant::now();
    child.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert!(before.elapsed() < Duration::from_secs(60));
    equal(&expected, &lab, "the sweep was killed and its workers lived");
    // Each attempt that wrote a record is counted: one more at most for each run that was under way.
    let attempts: u32 = stored(&lab).iter().map(|run| run.manifest().unwrap().unwrap().volatile.attempts).sum();
    assert!((4..=4 + 2).contains(&attempts), "{attempts} attempts");
}

#[test]
fn orphaned_workers_end_within_seconds() {
    let lab = lab(&LONG.replace("steps = 4000", "steps = 4000000"));
    let mut child = spawn(&lab, &[]);
    wait_for_a_checkpoint(&lab);
    kill(child.id(), libc::SIGKILL);
    child.wait().unwrap();
    let before = Instant::now();
    wait_until_nobody_runs(&lab);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert!(stored(&lab).iter().any(|run| run.state().unwrap() == RunState::Resumable));
}

#[test]
fn a_worker_that_is_killed_is_one_failed_run_with_its_reason() {
    let expected = undisturbed(LONG);
    let lab = lab(LONG);
    let mut child = spawn(&lab, &[]);
    wait_for_a_checkpoint(&lab);
    let victim = wait_for("a worker", || children(child.id()).first().copied());
    kill(victim, libc::SIGKILL);
    assert_eq!(child.wait().unwrap().code(), Some(100));
    let mut states: Vec<String> = stored(&lab).iter().map(|run| run.state().unwrap().to_string()).collect();
    states.sort();
    assert_eq!(states, ["done", "done", "done", "failed"]);
    assert!(lab.ok(&["ls", "--state", "failed"]).contains("SIGKILL") || lab.ok(&["ls", "--state", "failed"]).contains("failed"));
    let failed = stored(&lab).into_iter().find(|run| run.state().unwrap() == RunState::Failed).unwrap();
    assert!(failed.manifest().unwrap().unwrap().reason.unwrap().contains("SIGKILL (by hand, or because memory ran out)"));
    lab.ok(&["sweep", "x.toml", "--retry-failed"]);
    equal(&expected, &lab, "a worker was killed");
}

#[test]
fn signals_to_the_group_stop_with_a_checkpoint_and_their_exit_code() {
    let expected = undisturbed(LONG);
    let lab = lab(LONG);
    let signals = [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129), (libc::SIGUSR1, 75), (libc::SIGUSR2, 75)];
    for (signal, code) in signals {
        let mut command = lab.command(&["sweep", "x.toml", "--progress", "json", "-j", "2"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        // Two progress events: both workers have been training.
        let (heard, training) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut last = std::collections::BTreeMap::new();
            for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
                let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
                if let (Some(id), Some(step)) = (event["run_id"].as_str(), event["step"].as_u64()) {
                    last.insert(id.to_owned(), step);
                }
                if event["event"] == "progress" {
                    _ = heard.send(());
                }
            }
            last
        });
        training.recv().unwrap();
        training.recv().unwrap();
        let before = Instant::now();
        kill_group(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code), "signal {signal}");
        assert!(before.elapsed() < Duration::from_secs(10));
        // Nothing that was reported is lost: the checkpoint is at the last step told, or behind it.
        for (id, step) in reader.join().unwrap() {
            let run = stored(&lab).into_iter().find(|run| run.id() == id).unwrap();
            assert!(u64::from(newest_step(&run)) >= step, "signal {signal}: step {step} of {id} was lost");
        }
        assert!(stored(&lab).iter().any(|run| run.state().unwrap() == RunState::Resumable), "signal {signal}");
    }
    lab.ok(&["sweep", "x.toml"]);
    equal(&expected, &lab, "five signals");
}

#[test]
fn a_second_interrupt_ends_at_once_and_loses_no_checkpoint() {
    let lab = lab(&LONG.replace("steps = 4000", "steps = 4000000"));
    let mut child = spawn(&lab, &[]);
    wait_for_a_checkpoint(&lab);
    let kept: Vec<u32> = stored(&lab).iter().map(newest_step).collect();
    // Workers that stand still write no checkpoint: the first interrupt alone would be waited on for ever.
    children(child.id()).into_iter().for_each(|worker| kill(worker, libc::SIGSTOP));
    kill(child.id(), libc::SIGINT);
    std::thread::sleep(Duration::from_millis(350));
    assert!(child.try_wait().unwrap().is_none(), "the first interrupt waits for the workers");
    kill(child.id(), libc::SIGINT);
    let before = Instant::now();
    while child.try_wait().unwrap().is_none() && before.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(3));
    }
    let ended = child.try_wait().unwrap();
    let outlived = stored(&lab).iter().any(|run| run.is_locked().unwrap());
    // SAFETY: the group is that of our child; of what is left of it, nothing goes on.
    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
    assert_eq!(ended.and_then(|status| status.code()), Some(130), "the second interrupt ends at once");
    assert!(!outlived, "a worker outlived its sweep");
    wait_until_nobody_runs(&lab);
    for (run, before) in stored(&lab).iter().zip(kept) {
        assert!(newest_step(run) >= before);
    }
}

#[test]
fn a_sweep_that_is_held_up_keeps_its_runs() {
    let expected = undisturbed(LONG);
    let lab = lab(LONG);
    let mut child = spawn(&lab, &["-j", "2"]);
    wait_for_a_checkpoint(&lab);
    let locked = || stored(&lab).iter().filter(|run| run.is_locked().unwrap()).map(|run| run.path().to_owned()).collect::<Vec<_>>();
    // Between two runs there may be none.
    let held = wait_for("runs that stand still", || {
        kill_group(&child, libc::SIGSTOP);
        let held = locked();
        if held.is_empty() {
            kill_group(&child, libc::SIGCONT);
        }
        (!held.is_empty()).then_some(held)
    });
    let mut second = spawn(&lab, &["-j", "1"]);
    std::thread::sleep(Duration::from_secs(3));
    let after = locked();
    kill_group(&child, libc::SIGCONT);
    assert!(held.iter().all(|run| after.contains(run)), "a run that stands still is still held: {held:?}, {after:?}");
    assert!(child.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    equal(&expected, &lab, "held up for three seconds");
    let attempts: Vec<u32> = stored(&lab).iter().map(|run| run.manifest().unwrap().unwrap().volatile.attempts).collect();
    assert_eq!(attempts, [1, 1, 1, 1]);
}

#[test]
fn four_sweeps_on_one_folder_train_each_run_once() {
    let expected = undisturbed(TINY);
    let lab = lab(&TINY.replace("[grid]", "[grid]\ntrain.lr = [1e-3, 2e-3]"));
    // One of the four asks for a part of the grid only: what is shared is shared across files too.
    lab.write("part.toml", TINY);
    let mut sweeps: Vec<Child> = (0..3).map(|_| spawn(&lab, &["-j", "2"])).collect();
    sweeps.push(lab.command(&["sweep", "part.toml", "train.lr=1e-3"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for mut sweep in sweeps {
        assert!(sweep.wait().unwrap().success());
    }
    let attempts: Vec<u32> = stored(&lab).iter().map(|run| run.manifest().unwrap().unwrap().volatile.attempts).collect();
    assert_eq!(attempts, [1, 1, 1, 1]);
    drop(expected);
}

#[test]
fn readers_see_whole_files_at_any_moment() {
    use polars::prelude::*;
    let lab = lab(LONG);
    let mut child = spawn(&lab, &[]);
    // What `results/**/*.parquet` matches: everything of that ending, whatever else it begins with.
    fn matched(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => matched(&path, found),
                false if path.extension().is_some_and(|e| e == "parquet") => found.push(path),
                false => {}
            }
        }
    }
    let (mut reads, mut rows) = (0, BTreeMap::new());
    while child.try_wait().unwrap().is_none() {
        let mut files = Vec::new();
        matched(&lab.path("results"), &mut files);
        for file in files {
            let frame = ParquetReader::new(std::fs::File::open(&file).unwrap()).finish().unwrap();
            let before = rows.insert(file, frame.height()).unwrap_or(0);
            assert!(frame.height() >= before, "rows went from {before} to {}", frame.height());
            reads += 1;
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(reads > 10 && rows.len() == 4, "{reads} reads of {} files", rows.len());
}

#[test]
fn every_way_a_worker_can_break_is_told_apart_and_stops_no_other() {
    for (kind, words) in [
        ("panic", "the worker panicked: a panic was ordered"),
        ("overflow", "the worker's stack overflowed"),
        ("abort", "SIGABRT"),
        ("exhaust", "ran out of memory: memory allocation of"),
    ] {
        let lab = lab(TINY);
        let mut command = lab.command(&["sweep", "x.toml", "--progress", "plain"]);
        let output = command.env(VARIABLE, format!("worker:{kind}@25/cosine")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(100), "{kind}: {said}");
        let states: Vec<RunState> = stored(&lab).iter().map(|run| run.state().unwrap()).collect();
        assert_eq!(states, [RunState::Failed, RunState::Done], "{kind}");
        let reason = stored(&lab)[0].manifest().unwrap().unwrap().reason.unwrap();
        assert!(reason.contains(words) && said.contains(words), "{kind}: {reason}");
        assert!(reason.contains("ordered fault"), "{kind}: the log's tail is part of the reason: {reason}");
    }
}

/// A clock that jumps a day forth and back at every look: nothing that counts looks at it.
#[test]
fn a_clock_that_jumps_decides_nothing() {
    let expected = undisturbed(TINY);
    let lab = lab(TINY);
    let source = lab.write(
        "clock.c",
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\nstatic int looks;\n\
         int clock_gettime(clockid_t id, struct timespec *at) {\n\
         static int (*real)(clockid_t, struct timespec *);\n\
         if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, \"clock_gettime\");\n\
         int result = real(id, at);\n\
         if (id == CLOCK_REALTIME) at->tv_sec += looks++ % 2 ? 86400 : -86400;\n\
         return result; }\n",
    );
    let shim = lab.path("clock.so");
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status().unwrap();
    assert!(built.success());
    let mut interrupted = 0;
    for n in [15, 35, 55] {
        let mut command = lab.command(&["sweep", "x.toml", "--progress", "plain"]);
        let output = command.env("LD_PRELOAD", &shim).env(VARIABLE, format!("worker:crash@{n}")).output().unwrap();
        interrupted += i32::from(output.status.code() == Some(100));
    }
    assert!(interrupted > 0);
    let mut command = lab.command(&["sweep", "x.toml", "--retry-failed", "--progress", "plain"]);
    let output = command.env("LD_PRELOAD", &shim).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    equal(&expected, &lab, "the clock jumped");
    for run in stored(&lab) {
        let volatile = run.manifest().unwrap().unwrap().volatile;
        assert!(volatile.seconds > 0.0 && (volatile.ended - volatile.started).abs() > 80_000.0, "the shim was at work: {volatile:?}");
    }
    assert!(!lab.ok(&["ls"]).contains("-8"), "no negative time is shown");
}

#[test]
fn a_file_edited_between_sweeps_costs_only_what_is_new() {
    let lab = lab(&TINY.replace("[grid]", "[grid]\ntrain.lr = [2e-4]"));
    lab.ok(&["sweep", "x.toml"]);
    let before = lab.bytes_of("run.json");
    // Respelt and reordered: nothing is new.
    let respelt = TINY.replace(
        "[grid]\ndiffusion.schedule = [\"linear_scaled\", \"cosine\"]",
        "[grid]\ndiffusion.schedule = [\"cosine\", \"linear_scaled\"]\ntrain.lr = [0.0002] # the same",
    );
    lab.write("x.toml", &respelt);
    let said = lab.run(&["sweep", "x.toml"]);
    assert!(said.code == 0 && said.out.contains("nothing to run, 2 of 2") && said.err.is_empty(), "{said:?}");
    // A value more: only its runs. A value less: its run stays and is said to be out of the sweep.
    lab.write("x.toml", &respelt.replace("[0.0002]", "[0.0002, 1e-3]"));
    assert!(lab.ok(&["plan", "x.toml"]).contains("2 done, 2 new"));
    lab.write("x.toml", &respelt.replace("\"cosine\", ", ""));
    let said = lab.run(&["sweep", "x.toml"]);
    assert!(said.code == 0 && said.err.contains("1 are no longer in it (they stay in the store)"), "{said:?}");
    assert_eq!(before, lab.bytes_of("run.json"));
}

#[test]
fn results_folders_of_every_kind_work_or_say_why_not() {
    let lab = lab(&TINY.replace("steps = 24", "steps = 2"));
    std::fs::create_dir(lab.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(lab.path("elsewhere"), lab.path("link")).unwrap();
    lab.ok(&["sweep", "x.toml", "--results", "link"]);
    assert!(lab.path("elsewhere/runs").is_dir());
    for folder in ["two words/ünïcode ✓", "deep/below/nothing"] {
        lab.ok(&["sweep", "x.toml", "--results", folder]);
        assert!(lab.ok(&["ls", "--results", folder]).contains("2 runs") || lab.path(folder).join("runs.jsonl").is_file());
        lab.ok(&["report", "--results", folder]);
    }
    lab.write("file", "");
    for (folder, words) in [("file", "file"), ("file/below", "file"), ("/proc/nothing", "/proc/nothing"), (&*"x".repeat(300), "too long")] {
        let said = lab.run(&["sweep", "x.toml", "--results", folder]);
        assert!(said.code == 2 && said.err.contains(words) && said.err.contains("os error"), "{folder}: {said:?}");
        assert!(!said.err.contains("panicked"));
    }
    // Read-only, where root is nobody special: a mount.
    let read_only = lab.path("ro");
    std::fs::create_dir(&read_only).unwrap();
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"]).arg(&read_only).output();
    if mount.is_ok_and(|o| o.status.success()) {
        let said = lab.run(&["sweep", "x.toml", "--results", "ro"]);
        std::process::Command::new("umount").arg(&read_only).status().unwrap();
        assert!(said.code == 2 && said.err.contains("Read-only file system"), "{said:?}");
    } else {
        println!("skipped: no tmpfs can be mounted here (root on Linux can)");
    }
    // A name as long as a file system takes.
    let long = "n".repeat(80);
    lab.ok(&["sweep", "x.toml", &format!("name={long}")]);
    assert!(lab.path("results/sweeps").join(format!("{long}.json")).is_file());
}

#[test]
fn no_terminal_a_narrow_one_and_a_closed_output_are_all_fine() {
    let text = TINY.replace("steps = 24", "steps = 2");
    let lab = lab(&text);
    let mut child = lab.command(&["sweep", "x.toml", "--progress", "plain"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "a closed output ends no sweep: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stored(&lab).len(), 2);
    for args in [&["ls"][..], &["plan", "x.toml"], &["show", "latest"], &["sweep", "x.toml"], &["report"]] {
        let mut child = lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}, its output closed: {}", String::from_utf8_lossy(&output.stderr));
        for columns in ["20", "0", "x"] {
            let mut command = lab.command(args);
            let output = command.env("COLUMNS", columns).env_remove("NO_COLOR").env("TERM", "dumb").output().unwrap();
            assert!(output.status.success(), "{args:?} at {columns} columns: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?} colours what is no terminal");
        }
    }
    let listing = |columns| String::from_utf8(lab.command(&["ls"]).env("COLUMNS", columns).output().unwrap().stdout).unwrap();
    assert!(listing("20").lines().all(|line| line.chars().count() <= 20) && listing("0") == listing("20"), "{}", listing("0"));
    let wrong = lab.command(&["ls", "seed=7"]).env_remove("NO_COLOR").output().unwrap();
    assert!(wrong.status.code() == Some(4) && !wrong.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&wrong.stderr));
    let mentioned: BTreeSet<String> =
        lab.ok(&["ls", "--json"]).lines().map(|l| l.split('"').nth(3).unwrap_or_default().to_owned()).collect();
    assert_eq!(mentioned.len(), 2);
}
