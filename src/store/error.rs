//! What can go wrong with the store, each with the path it went wrong at.

use super::fault;
use crate::units;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the results store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused; the source carries the errno and its text.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The disk, or our share of it, is full.
    #[error("cannot {action} {}: no space is left{needed}, {free} free ({source})", path.display())]
    NoSpace { action: &'static str, path: PathBuf, needed: String, free: String, source: io::Error },
    /// A file is torn, foreign, or not what its name promises.
    #[error("{} is damaged or not a file of this store: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error(
        "{} was written with layout {found} of the results store, and this program knows layouts up to {known}; use a newer ddpm-lab",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{} has layout {found} of the results store, and this program reads layout {known}; `ddpm-lab migrate` brings it up to date",
        path.display()
    )]
    OlderSchema { path: PathBuf, found: u32, known: u32 },
    #[error("{} has layout {found} of the results store, and this program knows no way from there to layout {known}", path.display())]
    NoMigration { path: PathBuf, found: u32, known: u32 },
    #[error("no run matches `{pattern}` among the {runs} runs of {}", root.display())]
    NoMatch { pattern: String, runs: usize, root: PathBuf },
    #[error("`{pattern}` matches {} runs; use a longer prefix of one of these ids:\n{}", candidates.len(), list(candidates))]
    Ambiguous { pattern: String, candidates: Vec<String> },
    #[error("no sweep is called `{name}` in {}{}", root.display(), known_sweeps(known))]
    NoSweep { name: String, root: PathBuf, known: Vec<String> },
    #[error("`{name}` cannot be a file name in the results store: {why}")]
    BadName { name: String, why: &'static str },
    /// Parquet could not be made from the rows; never expected.
    #[error("cannot encode the losses for {}: {what}", path.display())]
    Encode { path: PathBuf, what: String },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if fault::is_full(&source) {
            return Self::full(action, path, String::new(), source);
        }
        Self::Io { action, path: path.to_path_buf(), source }
    }

    fn full(action: &'static str, path: &Path, needed: String, source: io::Error) -> Self {
        let free = fault::free_space(path).map_or("an unknown number of bytes".to_string(), |free| units::bytes(free as f64));
        Self::NoSpace { action, path: path.to_path_buf(), needed, free, source }
    }

    /// A write of so many bytes failed.
    pub(super) fn write(path: &Path, bytes: usize, source: io::Error) -> Self {
        if fault::is_full(&source) {
            return Self::full("write", path, format!(" for {}", units::bytes(bytes as f64)), source);
        }
        Self::io("write", path, source)
    }

    pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.to_string() }
    }

    /// Whether the request named something that is not there (exit code 4), rather than something being broken.
    pub fn is_no_match(&self) -> bool {
        matches!(self, Self::NoMatch { .. } | Self::NoSweep { .. })
    }

    /// Whether a file was read and is not one that this program understands: damaged, or of another layout.
    pub fn is_of_contents(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::NewerSchema { .. } | Self::OlderSchema { .. })
    }

    /// Whether a file is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the contents of a file are at fault, so that the run can be repeated.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

/// At most twelve candidates, one a line.
fn list(candidates: &[String]) -> String {
    let mut lines: Vec<String> = candidates.iter().take(12).map(|c| format!("  {c}")).collect();
    if candidates.len() > 12 {
        lines.push(format!("  … and {} more", candidates.len() - 12));
    }
    lines.join("\n")
}

fn known_sweeps(known: &[String]) -> String {
    if known.is_empty() { " (it holds no sweep yet)".to_string() } else { format!("; it holds: {}", known.join(", ")) }
}
