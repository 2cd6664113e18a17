//! Names the code: that which decides numbers, so that a run is not finished by other code than began it, and all of it by its
//! git revision, for the provenance of runs.
//!
//! This runs again when the sources change, and only then: a commit that changes none of them compiles nothing, and the
//! program goes on to name the revision whose sources it has.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All that the program is compiled from.
const SOURCES: [&str; 4] = ["build.rs", "src", "Cargo.toml", "Cargo.lock"];

/// The modules whose code can change a number; a change of any other leaves checkpoints as they are.
const DECIDE: &[&str] = &["data", "diffusion", "model", "named.rs", "ops", "optim", "record.rs", "rng.rs", "simd.rs", "train", "units.rs"];

fn main() {
    let mut hasher = DefaultHasher::new();
    let mut add = |path: &Path| {
        hasher.write(path.to_string_lossy().as_bytes());
        hasher.write(&std::fs::read(path).unwrap_or_default());
    };
    for name in DECIDE {
        let path = Path::new("src").join(name);
        files(&path).iter().for_each(|file| add(file));
    }
    add(Path::new("Cargo.lock"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
    hasher.write(&version);
    println!("cargo::rustc-env=DDPM_LAB_NUMERICS={:016x}", hasher.finish());
    for path in SOURCES {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(revision) = revision() {
        println!("cargo::rustc-env=DDPM_LAB_SOURCES={revision}");
    }
}

/// The revision, with `+` and the hash of the difference where the sources differ from it; `None` outside a checkout.
fn revision() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "Cargo.toml"], None)?;
    let head = git(&["rev-parse", "HEAD"], None)?;
    let mut difference = git(&[&["diff", "HEAD", "--"], &SOURCES[..]].concat(), None)?;
    let new = git(&[&["ls-files", "--others", "--exclude-standard", "--"], &SOURCES[..]].concat(), None)?;
    for file in new.lines() {
        difference += &format!("\n{file} {}", git(&["hash-object", file], None)?);
    }
    if difference.is_empty() {
        return Some(head);
    }
    Some(format!("{head}+{}", git(&["hash-object", "--stdin"], Some(&difference))?))
}

/// What git says; `None` where it fails or is not there.
fn git(args: &[&str], input: Option<&str>) -> Option<String> {
    let mut child = Command::new("git").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    child.stdin.take()?.write_all(input.unwrap_or_default().as_bytes()).ok()?;
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The source files at `path`, in the order of their names; tests decide nothing.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.retain(|path| !path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests")));
    paths.iter().flat_map(|path| files(path)).collect()
}
