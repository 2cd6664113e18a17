//! Names the code that decides numbers, so that a run is not finished by other code than began it.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        println!("cargo::rerun-if-changed={}", path.display());
        files(&path).iter().for_each(|file| add(file));
    }
    println!("cargo::rerun-if-changed=Cargo.lock");
    add(Path::new("Cargo.lock"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
    hasher.write(&version);
    println!("cargo::rustc-env=DDPM_LAB_NUMERICS={:016x}", hasher.finish());
}

/// The source files at `path`, in the order of their names; tests decide nothing.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.retain(|path| !path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests")));
    paths.iter().flat_map(|path| files(path)).collect()
}
