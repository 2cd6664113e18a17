//! Every command as typed: what it prints, and how it ends.

use crate::lab::{Lab, TINY};
use ddpm_lab::diffusion::ScheduleKind;
use ddpm_lab::named::NamedEnum;

#[test]
fn bad_input_is_one_clear_error_and_nothing_starts() {
    let lab = Lab::new();
    lab.write("bad.toml", "[base]\ntrain.stepz = 5\n[grid]\ndiffusion.schedule = [\"linear\", \"cosin\"]\n");
    let said = lab.run(&["sweep", "bad.toml"]);
    assert_eq!(said.code, 2);
    for part in ["stepz", "steps", "cosin", "cosine", "bad.toml:2", "bad.toml:4"] {
        assert!(said.err.contains(part), "`{part}` is missing from\n{}", said.err);
    }
    assert!(!lab.path("results").exists());
    assert_eq!(lab.run(&["sweep", "missing.toml"]).code, 2);
    assert_eq!(lab.run(&["sweep", "bad.toml", "--jobs", "x"]).code, 2);
    assert_eq!(lab.run(&["schedule", "cosin"]).code, 2);
    assert_eq!(lab.run(&["schedule", "linear_scaled", "--timesteps", "20"]).code, 2);
    assert_eq!(lab.run(&["data", "info", "missing.h5"]).code, 2);
}

#[test]
fn arithmetic_that_only_cuda_has_is_refused_by_a_cpu_before_anything_starts() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    for (axis, setting) in
        [("train.dtype=f32,bf16", "`train.dtype = \"bf16\"`"), ("train.matmul_precision=tf32", "`train.matmul_precision = \"tf32\"`")]
    {
        let said = lab.run(&["sweep", "tiny.toml", axis, "--device", "cpu"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(setting) && said.err.contains("--device cuda"), "{said:?}");
        // What it would be is known all the same.
        lab.ok(&["plan", "tiny.toml", axis]);
    }
    assert!(!lab.path("results").exists());
}

#[test]
fn nothing_matched_is_exit_code_four() {
    let lab = Lab::new();
    assert_eq!(lab.run(&["ls"]).code, 4);
    assert_eq!(lab.run(&["report"]).code, 4);
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml", "train.steps=2"]);
    assert_eq!(lab.run(&["show", "rffffffffffff"]).code, 4);
    assert_eq!(lab.run(&["ls", "--state", "failed"]).code, 4);
    assert_eq!(lab.run(&["report", "other"]).code, 4);
}

#[test]
fn a_plan_starts_nothing_and_says_what_is_done() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let plan = lab.ok(&["plan", "tiny.toml"]);
    assert!(plan.contains("2 cells × 1 seed = 2 runs: 2 new") && plan.contains("Does it work?"), "{plan}");
    assert!(!lab.path("results").exists());
    lab.ok(&["sweep", "tiny.toml", "diffusion.schedule=cosine"]);
    assert!(lab.ok(&["plan", "tiny.toml"]).contains("2 runs: 1 done, 1 new"));
    let json: serde_json::Value = serde_json::from_str(&lab.ok(&["plan", "tiny.toml", "train.lr=1e-3,1e-4", "--json"])).unwrap();
    assert_eq!(json["runs"].as_array().unwrap().len(), 4);
}

/// [`TINY`] with two named cells in place of its axis, and a published value for one.
fn named() -> String {
    let cases = "[[case]]\nname = \"short\"\ndiffusion.schedule = \"linear_scaled\"\n\
                 [[case]]\nname = \"curved\"\ndiffusion.schedule = \"cosine\"\ntrain.lr = 1e-4\n\
                 [reference.\"short\"]\nbits_per_dim = 3.7\nsource = \"Ho et al. 2020, Table 1\"\n[report]\ntitle = \"Named cells\"\n";
    TINY.replace("[grid]\ndiffusion.schedule = [\"linear_scaled\", \"cosine\"]\n", cases)
}

#[test]
fn named_cells_are_called_by_their_names_from_plan_to_report() {
    let lab = Lab::new();
    lab.write("named.toml", &named());
    let plan = lab.ok(&["plan", "named.toml", "--seeds", "3..5"]);
    assert!(plan.contains("2 cells × 2 seeds = 4 runs: 4 new"), "{plan}");
    let row = plan.lines().find(|line| line.trim_start().starts_with("curved")).unwrap();
    assert!(row.contains("cosine") && row.contains("0.0001") && row.contains("2 new"), "{row}");
    assert!(plan.contains(" MB on disk"), "{plan}");
    // A part is run; the sweep remains what its file says.
    let part = lab.ok(&["plan", "named.toml", "--only", "case=curved"]);
    assert!(part.contains("2 cells × 1 seed = 2 runs; picked 1: 1 new") && !part.contains("  short"), "{part}");
    lab.ok(&["sweep", "named.toml", "--only", "schedule=cosine"]);
    assert_eq!(lab.runs().len(), 1);
    assert!(lab.ok(&["plan", "named.toml"]).contains("2 runs: 1 done, 1 new"));
    let ls = lab.ok(&["ls"]);
    assert!(ls.contains("curved") && !ls.contains("short"), "{ls}");
    let half = lab.ok(&["report", "named"]);
    assert!(half.contains("1 of 2 runs finished"), "{half}");
    lab.ok(&["sweep", "named.toml"]);
    assert!(lab.ok(&["ls", "--sweep", "named", "--json"]).contains("\"cell\":\"short\""));
    lab.ok(&["report", "named"]);
    let page = std::fs::read_to_string(lab.path("results/reports/named/index.html")).unwrap();
    assert!(page.contains("<h1>Named cells</h1>") && page.contains("Ho et al. 2020, Table 1") && page.contains("curved − short"), "{page}");
    let figure = std::fs::read_to_string(lab.path("results/reports/named/figures/bits_per_dim.csv")).unwrap();
    assert!(figure.contains("short,\"published: Ho et al. 2020, Table 1\",,3.7"), "{figure}");
    for wrong in [["--only", "case=none"], ["--only", "nothing=1"], ["--seeds", "5..5"]] {
        assert_eq!(lab.run(&["sweep", "named.toml", wrong[0], wrong[1]]).code, 2, "{wrong:?}");
    }
}

#[test]
fn an_experiment_can_take_over_the_constants_of_another() {
    let lab = Lab::new();
    lab.write("shared/tiny.toml", TINY);
    lab.write("mine.toml", "extends = \"shared/tiny.toml\"\n[grid]\nloss.variant = [\"simple\", \"vlb\"]\n");
    let plan = lab.ok(&["plan", "mine.toml"]);
    assert!(plan.contains("2 cells × 1 seed = 2 runs") && plan.contains("24 steps of batch 12"), "{plan}");
    // The record is whole: what has not been run is drawn without the other file.
    lab.ok(&["sweep", "mine.toml", "--only", "loss=vlb"]);
    std::fs::remove_file(lab.path("shared/tiny.toml")).unwrap();
    assert!(lab.ok(&["report", "mine"]).contains("1 of 2 runs finished"));
    let said = lab.run(&["plan", "mine.toml"]);
    assert!(said.code == 2 && said.err.contains("`extends`") && said.err.contains("mine.toml:1:11"), "{}", said.err);
}

#[test]
fn what_every_row_of_a_plan_says_is_said_once_and_no_line_is_too_long() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let table = |axes: &[&str]| {
        let output = lab.command(&[&["plan", "tiny.toml"], axes].concat()).env("COLUMNS", "80").output().unwrap();
        let plan = String::from_utf8(output.stdout).unwrap();
        let from = plan.find("Before it runs").unwrap_or_else(|| panic!("{plan}"));
        let head = plan[from..].lines().find(|line| line.contains("abar_T")).unwrap().to_owned();
        (head, plan[from..].to_owned())
    };
    let (head, text) = table(&["diffusion.schedule=linear,cosine", "diffusion.timesteps=50"]);
    assert!(text.contains("In every row: T 50, prediction epsilon, variance fixed_large."), "{text}");
    assert!(!head.contains("prediction") && !head.contains(" T  "), "{head}");
    assert!(text.contains("warning:") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // What differs is a column.
    let (head, text) = table(&["diffusion.timesteps=50,60"]);
    assert!(
        head.contains("   T  ") && !head.contains("variance") && text.contains("In every row: prediction epsilon, variance fixed_large."),
        "{text}"
    );
}

#[test]
fn a_plan_warns_of_a_schedule_that_leaves_signal() {
    let lab = Lab::new();
    lab.write("trap.toml", "[base]\ndiffusion.timesteps = 100\n[grid]\ndiffusion.schedule = [\"linear\", \"linear_scaled\"]\n");
    let plan = lab.ok(&["plan", "trap.toml"]);
    assert!(plan.contains("linear at T = 100 leaves abar_T = 0.3636"), "{plan}");
    assert!(!plan.contains("linear_scaled at T = 100 leaves"));
}

#[test]
fn runs_are_listed_shown_and_reported() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml"]);
    let json = lab.ok(&["ls", "--json", "--sweep", "tiny"]);
    let ids: Vec<String> =
        json.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["run_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let shown = lab.ok(&["show", &ids[0][..6]]);
    assert!(shown.contains(&ids[0]) && shown.contains("state: done") && shown.contains("schedule = "), "{shown}");
    lab.ok(&["show", "latest", "--json"]);
    let said = lab.ok(&["report"]);
    assert!(said.contains("results/reports/tiny/index.html"), "{said}");
    let page = std::fs::read_to_string(lab.path("results/reports/tiny/index.html")).unwrap();
    assert!(page.contains("Does it work?") && ids.iter().all(|id| page.contains(id)));
}

#[test]
fn a_schedule_prints_one_row_for_each_timestep() {
    let lab = Lab::new();
    let csv = lab.ok(&["schedule", "linear", "--timesteps", "1000", "--csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1001);
    let last: Vec<f64> = lines[1000].split(',').map(|c| c.parse().unwrap()).collect();
    assert!(last[0] == 1000.0 && (last[2] / 4.03583e-5 - 1.0).abs() < 1e-5, "{last:?}");
    assert_eq!(lab.ok(&["schedule", "cosine", "--timesteps", "7"]).lines().count(), 8);
}

#[test]
fn every_schedule_can_be_printed_and_seen() {
    let lab = Lab::new();
    let help = lab.ok(&["schedule", "--help"]);
    for name in ScheduleKind::names() {
        assert!(help.contains(name), "{name} is not in the help: {help}");
        let betas: &[&str] = if name == "explicit" { &["--betas", "0.1,0.2,0.3"] } else { &["--timesteps", "30"] };
        let rows = if name == "explicit" { 3 } else { 30 };
        let csv = lab.ok(&[&["schedule", name, "--csv", "--zero-terminal-snr"], betas].concat());
        assert_eq!(csv.lines().count(), rows + 1, "{name}");
        let last: Vec<f64> = csv.lines().last().unwrap().split(',').map(|c| c.parse().unwrap()).collect();
        assert_eq!(&last[..4], &[rows as f64, 1.0, 0.0, f64::NEG_INFINITY], "{name}");
        let at = ["forward", "digits", "--images", "1", "--at", "1,3", "--out", "strip.png", "--zero-terminal-snr", "--schedule", name];
        assert!(lab.ok(&[&at, betas].concat()).contains(name));
    }
    let csv = lab.ok(&["schedule", "logsnr_linear", "--timesteps", "3", "--gamma-min", "-2", "--gamma-max", "4", "--csv"]);
    let log_snr: Vec<f64> = csv.lines().skip(1).map(|l| l.split(',').nth(3).unwrap().parse().unwrap()).collect();
    assert!(log_snr.iter().zip([2.0, -1.0, -4.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{log_snr:?}");
    let said = lab.run(&["schedule", "sqrt", "--timesteps", "10000"]);
    assert!(said.code == 2 && said.err.contains("fewer than 10000 timesteps"), "{said:?}");
    assert_eq!(lab.run(&["schedule", "explicit"]).code, 2);
}

#[test]
fn data_noised_forward_is_a_picture() {
    let lab = Lab::new();
    let said = lab.ok(&["forward", "digits", "--schedule", "linear,cosine", "--at", "0,500,1000", "--out", "strip.png"]);
    assert!(said.contains("t = 500"));
    assert!(std::fs::read(lab.path("strip.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(lab.run(&["forward", "digits", "--at", "1001"]).code, 2);
}

#[test]
fn images_are_imported_described_and_trained_on() {
    let lab = Lab::new();
    // Two classes of grey pictures in two folders.
    for i in 0..24u8 {
        let path = lab.write(&format!("pictures/{}/{i:02}.pgm.png", if i % 2 == 0 { "even" } else { "odd" }), "");
        let picture = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x as u8 * 20).wrapping_add(y as u8 * 7).wrapping_add(i * 3)]));
        picture.save(path).unwrap();
    }
    let said = lab.ok(&["data", "import", "pictures", "pictures.h5"]);
    assert!(said.contains("24 train") && said.contains("8×8×1") && said.contains("2 classes"), "{said}");
    assert_eq!(lab.run(&["data", "import", "pictures", "pictures.h5"]).code, 2, "it does not overwrite");
    let info = lab.ok(&["data", "info", "pictures.h5"]);
    assert!(info.contains("images") && info.contains("24 × 8 × 8 × 1") && info.contains("As data: 8×8×1 images of 256 levels"), "{info}");
    lab.write("tiny.toml", &TINY.replace("[base]", "[base]\ndata.path = \"pictures.h5\""));
    lab.ok(&["sweep", "tiny.toml", "train.steps=3", "diffusion.schedule=cosine", "eval.images=2", "eval.test_images=2"]);
    assert!(lab.ok(&["ls"]).contains("pictures-unet2d-cosine"));
    assert!(lab.ok(&["data", "list"]).contains("fashion_mnist_small"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::new();
    let mut child = lab
        .command(&["schedule", "cosine", "--timesteps", "4000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
