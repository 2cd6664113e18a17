//! Training end to end: what a sweep writes, that stopping and threads change no bit, that numbers add up.

use crate::lab::{Lab, TINY};
use ddpm_lab::record::{Split, Weights};
use ddpm_lab::store::{ResultsStore, RunDir, read_losses};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

fn stored(lab: &Lab) -> Vec<RunDir> {
    ResultsStore::open(&lab.path("results")).unwrap().runs().unwrap()
}

#[test]
fn a_sweep_leaves_complete_runs_and_a_second_one_does_nothing() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml"]);
    for run in stored(&lab) {
        assert!(run.verify().unwrap().is_empty());
        let manifest = run.manifest().unwrap().unwrap();
        assert_eq!((manifest.step, manifest.steps), (24, 24));
        let evaluations = run.read_evaluations().unwrap();
        let seen: Vec<(Split, i64)> = evaluations.iter().map(|e| (e.split, e.step)).collect();
        assert_eq!(seen, [(Split::Val, 0), (Split::Val, 10), (Split::Val, 20), (Split::Val, 24), (Split::Test, 24)]);
        let kept: Vec<u32> = run.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(kept, [21, 24], "the last two checkpoints");
        assert!(run.sample_path(24).is_file());
    }
    let before = entries(&lab.path("results"));
    assert!(before.len() > 20, "{before:?}");
    lab.ok(&["plan", "tiny.toml"]);
    let again = lab.ok(&["sweep", "tiny.toml"]);
    assert!(again.contains("nothing to run, 2 of 2 runs are done"), "{again}");
    assert_eq!(before, entries(&lab.path("results")), "nothing was written, not even the same again");
}

/// Every file and folder below `dir`: its name, which file it is, and when it last changed in any way.
fn entries(dir: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
        found.push((path.clone(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()));
        if metadata.is_dir() {
            found.extend(entries(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn rows_add_up_to_the_bound_that_is_printed() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml"]);
    let listing = lab.ok(&["ls"]);
    for run in stored(&lab) {
        let table = read_losses(run.path()).unwrap();
        for evaluation in run.read_evaluations().unwrap() {
            let rows: Vec<usize> =
                (0..table.t.len()).filter(|i| table.split[*i] == evaluation.split && table.step[*i] == evaluation.step).collect();
            let bound: f64 = rows.iter().map(|i| table.t_weight[*i] * table.vb_mean[*i]).sum();
            assert!((bound - evaluation.bits_per_dim).abs() < 1e-9, "{bound} {evaluation:?}");
            let weight: f64 = rows.iter().filter(|i| table.t[**i] > 0).map(|i| table.t_weight[*i]).sum();
            assert!((weight - 30.0).abs() < 1e-9, "the weights stand for every timestep");
            assert!(rows.iter().all(|i| table.weights[*i] == Weights::Ema));
            // The test evaluation also tells its examples apart: pairs of runs are made of these.
            let by_example = &evaluation.by_example;
            assert_eq!(by_example.len(), if evaluation.split == Split::Test { 6 } else { 0 });
            let mean = by_example.iter().sum::<f64>() / 6.0;
            assert!(by_example.is_empty() || (mean - evaluation.bits_per_dim).abs() < 1e-9, "{evaluation:?}");
        }
        assert!(run.manifest().unwrap().unwrap().evaluations.iter().all(|e| e.by_example.is_empty()), "run.json stays small");
        let last = run.read_evaluations().unwrap().pop().unwrap();
        assert!(listing.contains(&format!("{:.4} ± {:.4}", last.bits_per_dim, last.bits_per_dim_se)), "{listing}");
        // Every sample of every batch is in some window: 24 steps of 12.
        let trained: u32 = (0..table.t.len()).filter(|i| table.split[*i] == Split::Train).map(|i| table.n[i]).sum();
        assert_eq!(trained, 24 * 12);
    }
}

#[test]
fn a_zero_network_starts_at_an_error_of_one() {
    // At step 0 the output convolution is zero, so ε̂ = 0 and E (ε − ε̂)² = 1 at every t.
    let lab = Lab::new();
    lab.write("zero.toml", &TINY.replace("train = { steps = 24", "train = { steps = 1").replace("images = 6, ", "images = 177, "));
    lab.ok(&["sweep", "zero.toml"]);
    for run in stored(&lab) {
        let table = read_losses(run.path()).unwrap();
        let mut rows = 0;
        for i in (0..table.t.len()).filter(|i| table.split[*i] == Split::Val && table.step[*i] == 0 && table.t[*i] > 0) {
            let n = f64::from(table.n[i]);
            let error = (table.mse_m2[i] / (n - 1.0) / n).sqrt();
            assert!((table.mse_mean[i] - 1.0).abs() < 4.0 * error, "t = {}: {} ± {error}", table.t[i], table.mse_mean[i]);
            rows += 1;
        }
        assert_eq!(rows, 6);
    }
}

/// Runs tiny.toml one run at a time and interrupts it after so many events; false if it was faster.
pub fn interrupted_after(lab: &Lab, events: usize) -> bool {
    let mut child =
        lab.command(&["sweep", "tiny.toml", "--progress", "json", "-j", "1"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..events {
        if lines.next().is_none() {
            break;
        }
    }
    // SAFETY: the process is ours and not yet waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    for _ in lines {}
    match child.wait().unwrap().code() {
        Some(0) => false,
        code => {
            assert_eq!(code, Some(130));
            true
        }
    }
}

/// A lab in which `text` ran undisturbed.
fn undisturbed(text: &str) -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", text);
    lab.ok(&["sweep", "tiny.toml"]);
    lab
}

#[test]
fn losses_that_are_damaged_cost_time_and_leave_no_hole() {
    let expected = undisturbed(TINY);
    let lab = undisturbed(TINY);
    for run in lab.runs() {
        std::fs::write(run.join("losses.parquet"), "torn").unwrap();
        std::fs::remove_file(run.join("run.json")).unwrap();
    }
    // The runs begin again, under checkpoints of a later step that are whole; stopped early, they must not go on from those.
    assert!(interrupted_after(&lab, 4));
    lab.ok(&["sweep", "tiny.toml"]);
    for file in ["losses.parquet", "metrics.jsonl", "checkpoints/step-24.safetensors"] {
        assert!(expected.bytes_of(file) == lab.bytes_of(file), "{file} differs");
    }
}

#[test]
fn an_evaluation_whose_line_was_lost_is_made_again_and_counted_once() {
    let text = TINY.replace("checkpoint_every = 7", "checkpoint_every = 10");
    let expected = undisturbed(&text);
    let lab = undisturbed(&text);
    for run in lab.runs() {
        std::fs::remove_file(run.join("run.json")).unwrap();
        let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let kept: String = metrics.lines().filter(|l| !l.contains("\"step\":24")).map(|l| format!("{l}\n")).collect();
        assert_ne!(metrics, kept);
        std::fs::write(run.join("metrics.jsonl"), kept).unwrap();
    }
    lab.ok(&["sweep", "tiny.toml"]);
    for file in ["losses.parquet", "metrics.jsonl"] {
        assert!(expected.bytes_of(file) == lab.bytes_of(file), "{file} differs");
    }
}

#[test]
fn an_interrupted_sweep_goes_on_to_the_same_bytes() {
    let undisturbed = Lab::new();
    undisturbed.write("tiny.toml", TINY);
    undisturbed.ok(&["sweep", "tiny.toml"]);

    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    // Stopped again and again, at whatever step the first seconds bring: between windows, between checkpoints.
    let mut interruptions = 0;
    for events in 2..40 {
        if !interrupted_after(&lab, events) {
            break;
        }
        interruptions += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(interruptions >= 2, "the sweep was interrupted {interruptions} times");
    lab.ok(&["sweep", "tiny.toml"]);
    for file in ["losses.parquet", "metrics.jsonl", "config.toml", "checkpoints/step-24.safetensors", "samples/step-24.png"] {
        assert!(undisturbed.bytes_of(file) == lab.bytes_of(file), "{file} differs after {interruptions} interruptions");
    }
}

/// Six timesteps, so that each has its ten losses after a dozen steps: from then on t is drawn by them.
fn by_loss(sampler: &str) -> String {
    TINY.replace("diffusion.timesteps = 30", "diffusion = { timesteps = 6, variance = \"learned_range\" }\nloss = \"hybrid\"")
        .replace("train = { ", &format!("train = {{ timestep_sampler = \"{sampler}\", "))
        .replace("[\"linear_scaled\", \"cosine\"]", "[\"cosine\", \"jsd\"]")
}

/// (step, t, n) of every window of training, run by run.
fn drawn(lab: &Lab) -> Vec<Vec<(i64, u32, u32)>> {
    let of = |run: &RunDir| {
        let table = read_losses(run.path()).unwrap();
        let train = (0..table.t.len()).filter(|i| table.split[*i] == Split::Train);
        train.map(|i| (table.step[i], table.t[i], table.n[i])).collect()
    };
    stored(lab).iter().map(of).collect()
}

#[test]
fn timesteps_drawn_by_their_losses_go_on_to_the_same_bytes() {
    let text = by_loss("loss_second_moment");
    let expected = undisturbed(&text);
    let lab = Lab::new();
    lab.write("tiny.toml", &text);
    let mut interruptions = 0;
    for events in 2..40 {
        if !interrupted_after(&lab, events) {
            break;
        }
        interruptions += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(interruptions >= 2, "the sweep was interrupted {interruptions} times");
    lab.ok(&["sweep", "tiny.toml"]);
    for file in ["losses.parquet", "metrics.jsonl", "checkpoints/step-24.safetensors"] {
        assert!(expected.bytes_of(file) == lab.bytes_of(file), "{file} differs after {interruptions} interruptions");
    }
    // The losses did decide: the draws are those of a uniform sampler up to the tenth of the rarest t, and others after it.
    let uniform = undisturbed(&by_loss("uniform"));
    for (by_loss, uniform) in drawn(&expected).iter().zip(drawn(&uniform)) {
        let until = |rows: &[(i64, u32, u32)], step| rows.iter().filter(|r| r.0 <= step).copied().collect::<Vec<_>>();
        assert_eq!(until(by_loss, 5), until(&uniform, 5));
        assert_ne!(*by_loss, uniform);
    }
}

#[test]
fn cells_that_differ_in_schedule_or_loss_draw_the_same_timesteps() {
    for sampler in ["uniform", "stratified", "low_discrepancy"] {
        let lab =
            undisturbed(&by_loss(sampler).replace("[run]", "loss.variant = [\"hybrid\", \"vlb\"]\n[run]").replace("loss = \"hybrid\"", ""));
        let runs = drawn(&lab);
        assert!(runs.len() == 4 && runs.iter().all(|run| *run == runs[0]), "{sampler}");
        // Twelve places over six timesteps: two for each in every step.
        let even = runs[0].iter().all(|(step, _, n)| *n == if *step == 24 { 8 } else { 10 });
        assert_eq!(even, sampler != "uniform", "{sampler}");
    }
}

#[test]
fn threads_change_no_bit() {
    let run = |threads: &str| {
        let lab = Lab::new();
        lab.write("tiny.toml", TINY);
        lab.ok(&["sweep", "tiny.toml", "--threads", threads]);
        lab
    };
    let one = run("1");
    for threads in ["2", "4"] {
        let more = run(threads);
        for file in ["losses.parquet", "checkpoints/step-24.safetensors", "samples/step-24.png"] {
            assert!(one.bytes_of(file) == more.bytes_of(file), "{file} depends on the number of threads: 1 against {threads}");
        }
    }
}

#[test]
fn a_diverged_run_is_a_result_and_stops_no_other() {
    let lab = Lab::new();
    let text = TINY.replace("diffusion.schedule = [\"linear_scaled\", \"cosine\"]", "train.lr = [1e-3, 1e30]");
    lab.write("wild.toml", &text.replace("ema = 0.9 }", "ema = 0.9, warmup = 0, grad_clip = 0.0 }"));
    let said = lab.run(&["sweep", "wild.toml"]);
    assert_eq!(said.code, 100, "{said:?}");
    let mut states: Vec<String> = Vec::new();
    for run in stored(&lab) {
        let manifest = run.manifest().unwrap().unwrap();
        states.push(manifest.status.to_string());
        if let Some(step) = manifest.first_nonfinite_step {
            // One update, finite, makes the weights huge; the gradient of the second is the first that is not.
            assert_eq!((step, manifest.step), (2, 1));
            assert_eq!(manifest.reason.as_deref(), Some("the gradient of step 2 was not finite"));
            let table = read_losses(run.path()).unwrap();
            let train: Vec<usize> = (0..table.t.len()).filter(|i| table.split[*i] == Split::Train).collect();
            assert!(train.iter().all(|i| table.step[*i] == 2), "the window ends where the run did");
            let seen: u32 = train.iter().map(|i| table.n[*i] + table.n_nonfinite[*i]).sum();
            assert_eq!(seen, 24, "the samples of both steps are kept");
        }
    }
    states.sort();
    assert_eq!(states, ["diverged", "done"]);
    let again = lab.run(&["sweep", "wild.toml"]);
    assert!(again.code == 100 && again.out.contains("nothing to run"), "a diverged run is not repeated: {again:?}");
}

#[test]
fn points_train_and_are_drawn_as_points() {
    let lab = Lab::new();
    let text = "[base]\ndata = \"swiss_roll\"\ndiffusion.timesteps = 10\ndiffusion.schedule = \"cosine\"\nmodel.channels = [16, 16]\n\
                train = { steps = 30, batch_size = 32 }\nlog.every = 10\neval = { every = 0, images = 50, test_images = 100 }\nsample.count = 50\n\
                [grid]\ndiffusion.prediction = [\"epsilon\", \"x0\", \"v\"]\n";
    lab.write("points.toml", text);
    lab.ok(&["sweep", "points.toml"]);
    for run in stored(&lab) {
        assert!(run.sample_path(30).is_file());
        let last = run.read_evaluations().unwrap().pop().unwrap();
        assert!(last.bits_per_dim.is_finite() && last.images == 100);
    }
}

#[test]
fn bits_train_and_are_reported() {
    let lab = Lab::new();
    let text = "seeds = [0, 1]\n[base]\ndata = \"heartbeat\"\ndiffusion = { kernel = \"binomial\", binomial_pi = 0.2, timesteps = 20 }\nmodel.channels = [32, 32]\n\
                train = { steps = 300, batch_size = 64, lr = 3e-3, ema = 0.9 }\nlog.every = 10\neval = { every = 300, images = 50, test_images = 60 }\nsample.count = 20\n\
                [grid]\nloss.variant = [\"simple\", \"vlb\"]\ndiffusion.schedule = [\"jsd\", \"cosine\"]\n";
    lab.write("bits.toml", text);
    assert!(lab.ok(&["plan", "bits.toml"]).contains("jsd"));
    lab.ok(&["sweep", "bits.toml"]);
    for run in stored(&lab) {
        assert!(run.verify().unwrap().is_empty() && run.sample_path(300).is_file());
        let evaluations = run.read_evaluations().unwrap();
        // 5.99 bits/dim without training at T = 2000, log2(5)/20 = 0.116 at best.
        let bits: Vec<f64> = evaluations.iter().map(|e| e.bits_per_dim).collect();
        assert!(bits[0] > 0.5 && bits[bits.len() - 1] < 0.6 * bits[0] && bits[bits.len() - 1] > 0.116, "{bits:?}");
        let table = read_losses(run.path()).unwrap();
        // Of bits, `mse` is the Brier score and `x0_mse` the share of wrong ones: both between 0 and 1.
        assert!(table.mse_mean.iter().chain(&table.x0_mse_mean).filter(|x| !x.is_nan()).all(|x| (0.0..=1.0).contains(x)));
        // The decoder's last flips are those of one step: worth less than all others.
        let last = evaluations.last().unwrap();
        assert!(last.decoder < last.kl && last.prior >= 0.0, "{last:?}");
    }
    lab.ok(&["report", "bits"]);
    let page = std::fs::read_to_string(lab.path("results/reports/bits/index.html")).unwrap();
    for words in ["each bit of x_t is 1 with probability", "cosine − jsd", "over 60 examples ("] {
        assert!(page.contains(words), "{words:?} is missing");
    }
    let said = lab.run(&[
        "forward",
        "heartbeat",
        "--kernel",
        "binomial",
        "--pi",
        "0.2",
        "--schedule",
        "jsd",
        "--timesteps",
        "50",
        "--out",
        "b.png",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.run(&["forward", "digits", "--kernel", "binomial"]).code, 2, "17 levels are no bits");
}

#[test]
fn cells_of_a_seed_share_images_noise_and_timesteps() {
    // A network that stays at zero shows what it was given: ε itself as the error of ε, x_0 as that of x_0.
    let lab = Lab::new();
    let text = "seeds = [0, 1]\n[base]\ndiffusion.timesteps = 8\nmodel = { channels = [8, 16], layers_per_block = 1, norm_groups = 4 }\n\
                train = { steps = 6, batch_size = 12, micro_batch = 4, lr = 1e-12 }\nlog.every = 3\n\
                eval = { every = 0, images = 2, test_images = 2 }\nsample.count = 0\n\
                [grid]\ndiffusion.prediction = [\"epsilon\", \"x0\"]\ndiffusion.schedule = [\"linear\", \"cosine\"]\nloss.variant = [\"simple\", \"vlb\"]\n";
    lab.write("pairs.toml", text);
    lab.ok(&["sweep", "pairs.toml"]);
    let mut seen = std::collections::BTreeMap::new();
    for run in stored(&lab) {
        let (name, config) = (run.slug().to_owned(), run.config_text().unwrap());
        let prediction = if config.contains("prediction = \"x0\"") { "x0" } else { "epsilon" };
        let seed = i32::from(config.contains("seeds = [1]"));
        let table = read_losses(run.path()).unwrap();
        let rows: Vec<(i64, u32, u32, f64)> = (0..table.t.len())
            .filter(|i| table.split[*i] == Split::Train)
            .map(|i| (table.step[i], table.t[i], table.n[i], if prediction == "x0" { table.x0_mse_mean[i] } else { table.mse_mean[i] }))
            .collect();
        assert!(rows.len() > 8, "{name}");
        seen.entry((prediction, seed)).or_insert_with(Vec::new).push((name, rows));
    }
    assert_eq!(seen.values().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4], "{:?}", seen.keys());
    for cells in seen.values() {
        for (name, rows) in &cells[1..] {
            assert_eq!(rows.len(), cells[0].1.len(), "{name}");
            for (a, b) in rows.iter().zip(&cells[0].1) {
                assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2), "{name}: the timesteps of a batch");
                assert!((a.3 - b.3).abs() < 1e-5, "{name} and {}: {a:?} {b:?}", cells[0].0);
            }
        }
    }
    let first = |seed| &seen[&("epsilon", seed)][0].1;
    assert_ne!(first(0), first(1), "another seed draws anew");
}
