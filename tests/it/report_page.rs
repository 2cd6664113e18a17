//! The report in a browser: Chromium, where it is installed, on a wide screen and a telephone, light and dark.

use crate::lab::{Lab, TINY};
use ddpm_lab::store::{RunDir, Status};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Chromium of this machine.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))).find(|path| path.is_file())
}

/// A report with everything that can go wrong on a page: long names, runs that diverged, one that failed, cells without results.
fn report(lab: &Lab) -> PathBuf {
    lab.write("tiny.toml", &TINY.replace("[grid]\n", "[grid]\ntrain.lr = [1e-3, 1e9]\n"));
    let said = lab.run(&["sweep", "tiny.toml", "--seeds", "0,1", "--progress", "plain"]);
    assert_eq!(said.code, 100, "{said:?}");
    let done = |run: &RunDir| run.manifest().unwrap().filter(|m| m.status == Status::Done);
    let (run, mut record) = lab.runs().iter().filter_map(|path| RunDir::at(path)).find_map(|run| Some((run.clone(), done(&run)?))).unwrap();
    record.status = Status::Failed;
    record.reason =
        Some("the worker ended with exit code 1; its log ends:\nout of memory, and a line that is far too long for a telephone".into());
    run.write_manifest(&record).unwrap();
    lab.ok(&["report", "tiny"]);
    lab.path("results/reports/tiny")
}

/// What the probe saw of `probe.html` in a frame of this width: no window of a browser is as narrow as a telephone.
fn look(browser: &Path, folder: &Path, profile: &Path, width: u32, dark: bool) -> Value {
    let page = folder.join(format!("frame-{width}.html"));
    let frame = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\"><body>\
         <script>addEventListener('message', (e) => {{ const out = document.createElement('pre'); out.id = 'probe'; \
         out.textContent = encodeURIComponent(e.data); document.body.append(out); }});</script>\
         <iframe src=\"probe.html\" width=\"{width}\" height=\"900\" style=\"border:0\"></iframe></body>"
    );
    std::fs::write(&page, frame).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"])
        // Nothing but files can be reached.
        .args(["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--window-size={},1000", width + 200))
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(if dark { &["--force-dark-mode"][..] } else { &[] })
        .args(["--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let found = dom.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the probe did not come to its end: {}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(&decoded(found)).unwrap()
}

/// `%22` and so on.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_page_fits_every_screen_and_loads_nothing_from_elsewhere() {
    let Some(browser) = chromium() else {
        // Past the capture of the test's own output.
        writeln!(std::io::stderr(), "SKIPPED: no chromium here, so nobody has looked at the page (apt-get install chromium)").unwrap();
        return;
    };
    let lab = Lab::new();
    let folder = report(&lab);
    let html = std::fs::read_to_string(folder.join("index.html")).unwrap();
    let probe = include_str!("report_page.js");
    let errors = "<script>window.probeErrors = []; addEventListener('error', (e) => probeErrors.push(String(e.message)), true);\
                  addEventListener('unhandledrejection', (e) => probeErrors.push(String(e.reason)));</script>\n</head>";
    let run = format!("<script>addEventListener('load', () => {{\n{probe}\n}});</script>\n</body>");
    std::fs::write(folder.join("probe.html"), html.replace("</head>", errors).replace("</body>", &run)).unwrap();
    let views: Vec<(u32, bool)> = [1280, 380].into_iter().flat_map(|width| [(width, false), (width, true)]).collect();
    let saw: Vec<Value> = std::thread::scope(|scope| {
        let looks: Vec<_> = views
            .iter()
            .map(|&(width, dark)| {
                let (browser, folder, profile) = (&browser, &folder, lab.path(&format!("profile-{width}-{dark}")));
                scope.spawn(move || look(browser, folder, &profile, width, dark))
            })
            .collect();
        looks.into_iter().map(|l| l.join().unwrap()).collect()
    });
    for ((width, dark), saw) in views.into_iter().zip(saw) {
        let at = format!("{width} pixels, {}", if dark { "dark" } else { "light" });
        for nothing in ["errors", "outside", "overlapping", "pale", "broken", "fetched", "unnamed"] {
            assert_eq!(saw[nothing], serde_json::json!([]), "{nothing} at {at}");
        }
        assert_eq!(saw["inner"], width, "{at}");
        assert!(saw["scroll"].as_u64().unwrap() <= u64::from(width), "the page scrolls sideways at {at}: {}", saw["scroll"]);
        assert_eq!(saw["dark"], dark, "{at}");
        assert!(saw["images"].as_u64().unwrap() >= 6 && saw["pieces"].as_u64().unwrap() > 300, "{at}: {saw}");
        assert!(saw["answer"].as_f64().unwrap() < 900.0, "the first screen says the answer at {at}: {}", saw["answer"]);
        let narrow = if width < 700 { &saw["images"] } else { &serde_json::json!(0) };
        assert_eq!(&saw["narrow"], narrow, "figures are those laid out for the width at {at}");
        // A telephone scrolls the ranking; a desk does not.
        let sideways = saw["sideways"].as_array().unwrap();
        assert!(sideways.iter().all(|s| width < 700 && s.as_str().unwrap().starts_with("table")), "{at}: {sideways:?}");
        assert!(saw["folded"][0].as_u64().unwrap() >= 2 && saw["folded"][1] == 0 && saw["folded"][2] == saw["folded"][0], "{at}: {saw}");
        // Two cells have a result; the two that diverged stay at the end, whichever way it is sorted.
        let numbers = |key: &str| saw[key].as_array().unwrap().iter().map(Value::as_f64).collect::<Vec<_>>();
        let (time, bits) = (numbers("byTime"), numbers("byBits"));
        assert!(time[0] >= time[1] && time[2..] == [None, None], "{at}: {time:?}");
        assert!(bits[0] < bits[1] && bits[2..] == [None, None], "{at}: {bits:?}");
        assert_eq!(saw["ariaSort"], "descending");
        assert!(saw["buttons"].as_u64().unwrap() > 20);
        assert_eq!((&saw["enlarged"], &saw["closed"]), (&Value::Bool(true), &Value::Bool(true)), "{at}");
    }
}
