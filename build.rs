//! Which sources are compiled: their git revision, for the provenance of runs.
//!
//! This runs again when the sources change, and only then: a commit that changes none of them compiles nothing, and the
//! program goes on to name the revision whose sources it has.

use std::io::Write;
use std::process::{Command, Stdio};

const SOURCES: [&str; 4] = ["build.rs", "src", "Cargo.toml", "Cargo.lock"];

fn main() {
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
