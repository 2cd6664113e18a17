//! Where a run's numbers come from, as far as a command can tell: what was typed, in which state of which working folder, and
//! what the program is made of. Asked for once, when a sweep starts; a worker adds the device it computes on.
//!
//! Start at [`of_command`]. git is asked and never told: nothing is written to a repository, not even its index.

use crate::store::{Build, Provenance, ResultsStore, StoreError};
use crate::train::{Device, instruction_set};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Longest patch that is kept whole.
const PATCH_BYTES: u64 = 1 << 20;
/// Most files that git does not know, by name.
const UNTRACKED: usize = 50;
/// `Cargo.lock` as it was when this was compiled.
const LOCK: &[u8] = include_bytes!("../../Cargo.lock");

/// All that is known before a device is: with the working folder's changes kept in `store`.
///
/// # Errors
/// If the patch cannot be kept.
pub fn of_command(store: &ResultsStore, typed: Vec<String>) -> Result<Provenance, StoreError> {
    let here = WorkingFolder::ask(Path::new("."), store.root());
    let patch = here.patch.as_deref().map(|text| store.write_patch(text)).transpose()?;
    Ok(Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_dirty: here.revision.as_ref().map(|_| here.patch.is_some()),
        git_revision: here.revision,
        patch,
        untracked: here.untracked,
        build: Some(build()),
        command: typed,
        ..Provenance::default()
    })
}

/// What the process that computes adds.
pub fn on_device(provenance: Provenance, device: &Device, device_is: String, threads: usize) -> Provenance {
    let on_gpu = crate::ops::cuda::is_device(device);
    Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device_is,
        device_name: if on_gpu { crate::ops::cuda::name(device) } else { processor() },
        driver: if on_gpu { read("/proc/driver/nvidia/version").as_deref().and_then(driver_version) } else { None },
        instruction_set: instruction_set().to_owned(),
        threads,
        ..provenance
    }
}

fn build() -> Build {
    let features = [("cuda", cfg!(feature = "cuda")), ("cudnn", cfg!(feature = "cudnn"))];
    Build {
        revision: option_env!("DDPM_LAB_SOURCES").map(str::to_owned),
        lock: blake3::hash(LOCK).to_hex().to_string(),
        features: features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect(),
    }
}

/// What git says of a folder.
#[derive(Debug, Default, PartialEq, Eq)]
struct WorkingFolder {
    /// `None` where there is no git or no repository.
    revision: Option<String>,
    /// How tracked files differ from it; `None` where they do not.
    patch: Option<Vec<u8>>,
    untracked: Vec<String>,
}

impl WorkingFolder {
    /// The results folder is left out: it changes with every run.
    fn ask(folder: &Path, results: &Path) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let Some(revision) = git(folder, &["rev-parse", "HEAD"]).map(text) else { return Self::default() };
        let root = git(folder, &["rev-parse", "--show-toplevel"]).map(text).map(PathBuf::from).unwrap_or_default();
        let results = results.canonicalize().ok();
        let inside = results.as_deref().and_then(|r| r.strip_prefix(root.canonicalize().ok()?).ok()).map(Path::to_path_buf);
        let mut paths = vec![":(top)".to_owned()];
        paths.extend(inside.as_ref().filter(|p| !p.as_os_str().is_empty()).map(|p| format!(":(top,exclude){}", p.display())));
        let status = [&["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--"], &refs(&paths)[..]].concat();
        let status = git(folder, &status).unwrap_or_default();
        let (dirty, mut untracked) = read_status(&status);
        // A folder that is new as a whole is told as one, though the results may be all that is in it.
        untracked.retain(|name| inside.as_ref().is_none_or(|inside| !inside.starts_with(name.trim_end_matches('/'))));
        if untracked.len() > UNTRACKED {
            let more = untracked.len() - UNTRACKED;
            untracked.truncate(UNTRACKED);
            untracked.push(format!("… and {more} more"));
        }
        Self { revision: Some(revision), patch: dirty.then(|| difference(folder, &paths)).flatten(), untracked }
    }
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Whether a tracked file changed, and what is not tracked, from `git status --porcelain -z`.
fn read_status(status: &[u8]) -> (bool, Vec<String>) {
    let mut entries = status.split(|b| *b == 0).filter(|entry| entry.len() > 3);
    let (mut dirty, mut untracked) = (false, Vec::new());
    while let Some(entry) = entries.next() {
        match &entry[..2] {
            b"??" => untracked.push(String::from_utf8_lossy(&entry[3..]).into_owned()),
            b"!!" => {}
            state => {
                dirty = true;
                // The old name of what was moved is an entry of its own.
                if state.contains(&b'R') || state.contains(&b'C') {
                    entries.next();
                }
            }
        }
    }
    (dirty, untracked)
}

/// `git diff HEAD`, at most [`PATCH_BYTES`] of it and then a line that says so.
fn difference(folder: &Path, paths: &[String]) -> Option<Vec<u8>> {
    let args =
        [&["diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "--"], &refs(paths)[..]];
    let mut child = git_command(folder, &args.concat()).stdout(Stdio::piped()).spawn().ok()?;
    let mut text = Vec::new();
    child.stdout.take()?.take(PATCH_BYTES + 1).read_to_end(&mut text).ok()?;
    // With its reader gone, a git that has more to say ends.
    _ = child.wait();
    if text.len() as u64 > PATCH_BYTES {
        let whole_lines = text[..PATCH_BYTES as usize].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        text.truncate(whole_lines);
        text.extend(
            format!("# ddpm-lab cut this patch here: only the first {} KiB of the difference are kept.\n", PATCH_BYTES >> 10).bytes(),
        );
    }
    Some(text)
}

fn git_command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    // Without the locks that refreshing the index takes.
    command.arg("-C").arg(folder).args(args).env("GIT_OPTIONAL_LOCKS", "0").stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn git(folder: &Path, args: &[&str]) -> Option<Vec<u8>> {
    git_command(folder, args).output().ok().filter(|output| output.status.success()).map(|output| output.stdout)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// What the first processor calls itself.
fn processor() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'))?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The version in the first line of `/proc/driver/nvidia/version`.
fn driver_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one commit of `a.txt`.
    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "one\n").unwrap();
        for args in [&["init", "-q"][..], &["add", "a.txt"], &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x"]] {
            assert!(git(dir.path(), args).is_some(), "{args:?}");
        }
        dir
    }

    #[test]
    fn a_clean_folder_has_a_revision_and_no_patch_and_one_outside_git_has_neither() {
        let dir = repository();
        let here = WorkingFolder::ask(dir.path(), &dir.path().join("results"));
        assert_eq!(here.revision.as_ref().map(String::len), Some(40));
        assert_eq!((here.patch, here.untracked), (None, vec![]));
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(WorkingFolder::ask(outside.path(), outside.path()), WorkingFolder::default());
    }

    #[test]
    fn changes_are_a_patch_that_git_applies_and_new_files_are_named_but_for_the_results() {
        let dir = repository();
        let path = |name: &str| dir.path().join(name);
        for folder in ["results/runs", "notes", "deep/er"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        for (name, text) in [("a.txt", "two\n"), ("results/runs/x", ""), ("notes/n.md", ""), ("b c.txt", "")] {
            std::fs::write(path(name), text).unwrap();
        }
        // Asked for in a folder of the repository, it speaks of the whole.
        let here = WorkingFolder::ask(&path("deep/er"), &path("results"));
        assert_eq!(here.untracked, ["b c.txt", "notes/"]);
        let patch = here.patch.clone().unwrap();
        assert!(String::from_utf8_lossy(&patch).contains("\n-one\n+two\n"));
        std::fs::write(path("a.txt"), "one\n").unwrap();
        std::fs::write(path("p.patch"), &patch).unwrap();
        git(dir.path(), &["apply", "p.patch"]).expect("the patch applies");
        assert_eq!(std::fs::read_to_string(path("a.txt")).unwrap(), "two\n");
        // Results that are tracked are no change either.
        git(dir.path(), &["add", "results"]).unwrap();
        assert_eq!(WorkingFolder::ask(dir.path(), &path("results")).patch, here.patch);
        git(dir.path(), &["checkout", "-q", "a.txt"]).unwrap();
        assert_eq!(WorkingFolder::ask(dir.path(), &path("results")).patch, None);
    }

    #[test]
    fn a_patch_that_is_too_long_is_cut_at_a_line_and_says_so() {
        let dir = repository();
        std::fs::write(dir.path().join("a.txt"), "a line of some length\n".repeat(100_000)).unwrap();
        let patch = WorkingFolder::ask(dir.path(), Path::new("results")).patch.unwrap();
        assert!(patch.len() as u64 <= PATCH_BYTES + 100);
        let text = String::from_utf8(patch).unwrap();
        let [before, last] = *text.lines().rev().take(2).collect::<Vec<_>>() else { panic!() };
        assert!(before.starts_with("# ddpm-lab cut this patch here: only the first 1024 KiB"), "{before}");
        assert_eq!(last, "+a line of some length");
    }

    #[test]
    fn moved_files_and_many_new_ones_are_read_from_the_status() {
        let (dirty, untracked) = read_status(b"R  new name\0old name\0?? x\0?? d/\0");
        assert!(dirty && untracked == ["x", "d/"]);
        assert_eq!(read_status(b"?? x\0"), (false, vec!["x".to_owned()]));
        let dir = repository();
        (0..UNTRACKED + 5).for_each(|i| std::fs::write(dir.path().join(format!("f{i:03}")), "").unwrap());
        let untracked = WorkingFolder::ask(dir.path(), Path::new("results")).untracked;
        assert_eq!((untracked.len(), untracked.last().unwrap().as_str()), (UNTRACKED + 1, "… and 5 more"));
    }

    #[test]
    fn a_drivers_version_is_found_in_both_of_its_wordings() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (x@y)  Tue";
        assert_eq!([closed, open, "nothing"].map(driver_version), [Some("535.183.01".into()), Some("580.95.05".into()), None]);
    }

    #[test]
    fn the_build_knows_its_lock_file() {
        let lock = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
        assert_eq!(build().lock, blake3::hash(&lock).to_hex().to_string());
    }
}
