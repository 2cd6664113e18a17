//! The house's rules, read off the source text: imports point down, heavy crates stay where they belong, files stay short.

use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each module.
const FLOORS: &[(&str, u32)] = &[
    ("named", 0),
    ("units", 0),
    ("rng", 0),
    ("record", 0),
    ("ops", 1),
    ("diffusion", 1),
    ("model", 1),
    ("optim", 1),
    ("data", 1),
    ("config", 2),
    ("train", 3),
    ("store", 3),
    ("sweep", 4),
    ("report", 4),
    ("cli", 5),
];

/// Which modules may name a heavy crate; an entry with a slash is one file.
const HEAVY: &[(&str, &[&str])] = &[
    ("candle_core", &["ops", "model", "train"]),
    ("candle_nn", &["ops", "model"]),
    ("gemm", &["ops"]),
    ("polars", &["store", "report"]),
    ("plotters", &["report"]),
    ("hdf5", &["data/hdf5.rs"]),
    ("toml", &["config", "store"]),
    ("miette", &["config", "cli"]),
    ("clap", &["cli"]),
    ("indicatif", &["sweep", "cli"]),
    ("safetensors", &["train", "model"]),
    ("image", &["data", "report"]),
];

const LONGEST_FILE: usize = 700;

fn sources() -> Vec<(String, PathBuf)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    paths.into_iter().map(|p| (p.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), p)).collect()
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(m, _)| *m == module).map(|(_, f)| *f)
}

/// Source lines with comments cut off.
fn code_lines(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().enumerate().map(|(i, l)| (i + 1, l.split("//").next().unwrap().to_owned())).collect()
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(i, _)| {
        let before = line[..i].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (file, path) in sources() {
        let Some(own) = floor(module_of(&file)) else {
            assert!(["lib.rs", "main.rs"].contains(&file.as_str()), "{file} is on no floor; give its module one");
            continue;
        };
        for (n, line) in code_lines(&path) {
            for (i, _) in line.match_indices("crate::") {
                let module: String = line[i + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if floor(&module).is_some_and(|other| other > own) {
                    wrong.push(format!("src/{file}:{n} reaches up to `{module}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heavy_crates_stay_in_their_modules() {
    let mut wrong = Vec::new();
    for (file, path) in sources() {
        for (n, line) in code_lines(&path) {
            for (name, allowed) in HEAVY {
                let at_home = allowed.iter().any(|a| if a.contains('/') { file == *a } else { module_of(&file) == *a });
                if names_crate(&line, name) && !at_home {
                    wrong.push(format!("src/{file}:{n} names `{name}`, which belongs to {}", allowed.join(", ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(file, path)| (file, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(file, lines)| format!("src/{file} has {lines} lines, the limit is {LONGEST_FILE}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
