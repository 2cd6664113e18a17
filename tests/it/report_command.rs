//! `report` as typed: of several sweeps, while runs go on, and one figure of it.

use crate::lab::{Lab, TINY};
use std::path::Path;
use std::time::{Duration, Instant};

/// A sweep of the schedules, and one of the learning rates at one of them.
fn two() -> Lab {
    let lab = Lab::new();
    lab.write("schedules.toml", &TINY.replace("[base]", "seeds = [0, 1]\n[base]").replace("ema = 0.9", "ema = 0.9, lr = 1e-3"));
    let rates = TINY.replace("[base]", "seeds = [0, 1]\n[base]\ndiffusion.schedule = \"cosine\"");
    lab.write("rates.toml", &rates.replace("diffusion.schedule = [\"linear_scaled\", \"cosine\"]", "train.lr = [0.001, 1e-4]"));
    lab
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn several_sweeps_are_compared_on_one_page_and_a_sweep_can_draw_its_own() {
    let lab = two();
    let said = lab.ok(&["sweep", "schedules.toml", "--report"]);
    assert!(said.contains("reports/schedules/index.html") && said.contains("Lowest mean"), "{said}");
    let said = lab.ok(&["sweep", "schedules.toml", "--report"]);
    assert!(said.contains("nothing to run") && said.contains("Lowest mean"), "{said}");
    let said = lab.ok(&["sweep", "rates.toml", "--report=live"]);
    assert!(said.contains("reports/rates/index.html"), "{said}");
    let alone = read(&lab.path("results/reports/rates/index.html"));
    assert!(!alone.contains("data-live="), "the last page is a still one");
    lab.ok(&["report", "rates"]);
    assert!(read(&lab.path("results/reports/rates/index.html")) == alone, "and the one that `report` writes");

    let said = lab.ok(&["report", "schedules", "rates"]);
    assert!(said.contains("reports/schedules+rates/index.html: 8 of 8 runs finished"), "{said}");
    let page = read(&lab.path("results/reports/schedules+rates/index.html")).replace('\u{a0}', " ").replace("<b>", "").replace("</b>", "");
    assert!(page.contains("schedules · linear_scaled") && page.contains("rates · cosine"), "cells are named by their sweep");
    // Cosine at 1e-3 is one run of both, spelled in two ways: paired, the sweeps differ by nothing.
    assert!(page.contains("rates − schedules: 0.000 ± 0.000 bits/dim"), "{page}");
    assert!(page.contains("ddpm-lab sweep schedules.toml\nddpm-lab sweep rates.toml\nddpm-lab report schedules rates\n"));
    assert_eq!(lab.run(&["report", "schedules", "nothing"]).code, 4);
    assert_eq!(lab.run(&["sweep", "rates.toml", "--report=never"]).code, 2);
}

#[test]
fn one_figure_is_written_as_asked_for() {
    let lab = two();
    lab.ok(&["sweep", "schedules.toml"]);
    let said = lab.run(&["report", "--figure", "bits"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("there is no figure `bits`") && said.err.contains("bits_per_dim") && said.err.contains("schedules"),
        "{said:?}"
    );
    let svg = lab.ok(&["report", "--figure", "bits_per_dim", "--width", "140mm", "--output", "-"]);
    assert!(svg.starts_with("<svg ") && svg.contains(" width=\"140.00mm\""), "{}", &svg[..200]);
    let said = lab.ok(&["report", "schedules", "--figure", "terms", "--format", "png", "--width", "700px"]);
    assert_eq!(said, "terms.png\n");
    assert_eq!(image::open(lab.path("terms.png")).unwrap().width(), 700);
    lab.ok(&["report", "--figure", "terms", "--format", "csv", "--output", "numbers.csv"]);
    let numbers = read(&lab.path("numbers.csv"));
    lab.ok(&["report"]);
    assert_eq!(numbers, read(&lab.path("results/reports/schedules/figures/terms.csv")), "the file that stands beside the page's figure");
    let svg = lab.ok(&["report", "--figure", "terms", "--width", "85mm", "--output", "-"]);
    assert!(svg.contains(" viewBox=\"0 0 481.89 "), "laid out for a column: {}", &svg[..200]);
    let narrow = lab.run(&["report", "--figure", "terms", "--width", "40mm"]);
    assert!(narrow.code == 2 && narrow.err.contains("3.2 pt") && narrow.err.contains("from 62mm on"), "{narrow:?}");
    for wrong in [&["--figure", "terms", "--width", "140"][..], &["--width", "140mm"], &["--figure", "terms", "--format", "pdf"]] {
        assert_eq!(lab.run(&[&["report"], wrong].concat()).code, 2, "{wrong:?}");
    }
    lab.ok(&["sweep", "rates.toml", "--only", "lr=0.001"]);
    let said = lab.run(&["report", "--figure", "terms"]);
    assert!(said.code == 2 && said.err.contains("rates, schedules"), "{said:?}");
}

/// Waits until the page says so.
fn wait_for(page: &Path, says: impl Fn(&str) -> bool) {
    let began = Instant::now();
    while !std::fs::read_to_string(page).is_ok_and(|text| says(&text)) {
        assert!(began.elapsed() < Duration::from_secs(60), "the page never came to say it");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_live_report_follows_the_runs_and_ends_with_them_or_when_asked() {
    let lab = two();
    lab.ok(&["sweep", "schedules.toml", "--only", "schedule=cosine"]);
    let page = lab.path("results/reports/schedules/index.html");
    let start = || {
        let _ = std::fs::remove_file(&page);
        let child = lab.command(&["report", "schedules", "--live"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        wait_for(&page, |text| text.contains("data-live=") && text.contains("2 runs of 4 still to be done"));
        child
    };
    // A signal ends it, with a page that does not wait for more.
    let child = start();
    // SAFETY: the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(!read(&page).contains("data-live="));
    // So do the runs, when there is none left.
    let child = start();
    lab.ok(&["sweep", "schedules.toml"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 of 4 runs finished"), "{output:?}");
    let last = read(&page);
    lab.ok(&["report", "schedules"]);
    assert!(read(&page) == last && !last.contains("data-live="));
}
