//! Faults on demand: what the n-th file-system call of a process meets, when a test asks for it.
//!
//! `DDPM_LAB_FAULT=ROLE:KIND@N[+][/PART]`. In a process of that role (`sweep` or `worker`) the N-th call among those whose
//! path contains PART meets KIND, and with `+` every later one too. KIND is an errno that is handed back (`ENOSPC`, `EIO`,
//! `EACCES`), or an end of the process:
//!
//! | kind | the process ends | what of its writes is left |
//! |---|---|---|
//! | `crash` | at once, a write half done | all that was written: the page cache outlives a process |
//! | `lose` | the same | only what was flushed, contents and names alike: the power went |
//! | `tear` | the same | names, but of contents only what was flushed: the disk wrote the names first |
//! | `panic` `abort` `overflow` `exhaust` | by a panic, `abort()`, a full stack, memory that is not to be had | as `crash` |
//!
//! Without the variable nothing is counted and a call costs one load.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The variable that orders a fault.
pub const VARIABLE: &str = "DDPM_LAB_FAULT";

/// The exit code of an ordered crash, as a shell reports SIGKILL.
pub const CRASHED: i32 = 137;

/// How the line begins that says on standard error that an order was carried out.
pub const MET: &str = "ordered fault:";

static ORDER: OnceLock<Order> = OnceLock::new();
static CALLS: AtomicU64 = AtomicU64::new(0);
static UNFLUSHED: Mutex<Vec<Change>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    Lose,
    Tear,
    Errno(i32),
    Panic,
    Abort,
    Overflow,
    Exhaust,
}

#[derive(Debug, PartialEq, Eq)]
struct Order {
    kind: Kind,
    at: u64,
    and_after: bool,
    part: String,
}

/// What was done and may not have reached the disk.
#[derive(Debug)]
enum Change {
    /// `path` holds `flushed` bytes that are safe; what is behind them is not.
    Contents {
        path: PathBuf,
        flushed: u64,
    },
    /// A name that was not there before.
    Made {
        path: PathBuf,
    },
    /// `to` was `before` (nothing, where `None`) and is what `from` was.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        before: Option<Vec<u8>>,
    },
    Removed {
        path: PathBuf,
        before: Vec<u8>,
    },
}

/// Reads the order for a process of this role, if there is one.
///
/// # Errors
/// A sentence, if the variable is not an order.
pub fn arm(role: &str) -> std::result::Result<(), String> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let text = text.to_string_lossy();
    let (for_role, rest) = text.split_once(':').ok_or_else(|| format!("{VARIABLE}={text}: a role and a colon come first"))?;
    if for_role == role {
        _ = ORDER.set(parse(rest).ok_or_else(|| format!("{VARIABLE}={text} is not ROLE:KIND@N[+][/PART]"))?);
    }
    Ok(())
}

fn parse(text: &str) -> Option<Order> {
    let (kind, rest) = text.split_once('@')?;
    let (at, part) = rest.split_once('/').unwrap_or((rest, ""));
    let kind = match kind {
        "crash" => Kind::Crash,
        "lose" => Kind::Lose,
        "tear" => Kind::Tear,
        "panic" => Kind::Panic,
        "abort" => Kind::Abort,
        "overflow" => Kind::Overflow,
        "exhaust" => Kind::Exhaust,
        "ENOSPC" => Kind::Errno(libc::ENOSPC),
        "EIO" => Kind::Errno(libc::EIO),
        "EACCES" => Kind::Errno(libc::EACCES),
        _ => return None,
    };
    Some(Order { kind, at: at.trim_end_matches('+').parse().ok()?, and_after: at.ends_with('+'), part: part.to_owned() })
}

/// To be called before every call on `path`; only one that takes space finds a full disk. Returns the error that was ordered, or does not return.
pub(super) fn meet(path: &Path, takes_space: bool) -> Result<()> {
    match due(path, takes_space) {
        Some(Kind::Errno(errno)) => Err(Error::from_raw_os_error(errno)),
        Some(kind) => end(kind),
        None => Ok(()),
    }
}

/// [`meet`] for a write of `bytes` to `file`: a process that ends here leaves half of it.
pub(super) fn meet_write(path: &Path, file: &mut File, bytes: &[u8]) -> Result<()> {
    match due(path, true) {
        Some(Kind::Errno(errno)) => Err(Error::from_raw_os_error(errno)),
        Some(kind) => {
            _ = std::io::Write::write_all(file, &bytes[..bytes.len() / 2]);
            end(kind)
        }
        None => Ok(()),
    }
}

fn due(path: &Path, takes_space: bool) -> Option<Kind> {
    let order = ORDER.get()?;
    if order.kind == Kind::Errno(libc::ENOSPC) && !takes_space || !path.to_string_lossy().contains(&order.part) {
        return None;
    }
    let call = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    let due = call == order.at || (order.and_after && call > order.at);
    if due {
        eprintln!("{MET} {:?} at call {call}, {}", order.kind, path.display());
    }
    due.then_some(order.kind)
}

fn end(kind: Kind) -> ! {
    match kind {
        Kind::Panic => panic!("a panic was ordered"),
        Kind::Abort => std::process::abort(),
        Kind::Overflow => {
            deeper(1);
        }
        Kind::Exhaust => {
            let all = std::alloc::Layout::from_size_align(1 << 46, 8).expect("a power of two");
            std::alloc::handle_alloc_error(all);
        }
        Kind::Lose => undo(true),
        Kind::Tear => undo(false),
        Kind::Crash | Kind::Errno(_) => {}
    }
    // SAFETY: ends the process without running anything of it, which is the point.
    unsafe { libc::_exit(CRASHED) }
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    if std::hint::black_box(n) == 0 {
        return 0;
    }
    let room = std::hint::black_box([n; 1024]);
    1 + std::hint::black_box(deeper(room[(n % 1024) as usize] + 1)) + room[0]
}

/// Whether changes are to be remembered.
fn remembers() -> bool {
    ORDER.get().is_some_and(|order| matches!(order.kind, Kind::Lose | Kind::Tear))
}

fn changes() -> std::sync::MutexGuard<'static, Vec<Change>> {
    UNFLUSHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `path` was made, a file or a folder.
pub(super) fn made(path: &Path) {
    if remembers() {
        changes().push(Change::Made { path: path.to_path_buf() });
    }
}

/// `path` is being written behind its first `flushed` bytes.
pub(super) fn writing(path: &Path, flushed: u64) {
    if remembers() {
        changes().push(Change::Contents { path: path.to_path_buf(), flushed });
    }
}

/// The contents of `path` are on the disk.
pub(super) fn flushed(path: &Path) {
    if remembers() {
        changes().retain(|change| !matches!(change, Change::Contents { path: p, .. } if p == path));
    }
}

/// The names in `dir` are on the disk.
pub(super) fn flushed_names(dir: &Path) {
    if !remembers() {
        return;
    }
    let inside = |path: &Path| path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }) == Some(dir);
    changes().retain(|change| match change {
        Change::Contents { .. } => true,
        Change::Made { path } | Change::Removed { path, .. } | Change::Renamed { to: path, .. } => !inside(path),
    });
}

/// To be called before `from` is renamed to `to`.
pub(super) fn renaming(from: &Path, to: &Path) {
    if !remembers() {
        return;
    }
    let mut all = changes();
    for change in all.iter_mut() {
        if let Change::Contents { path, .. } = change
            && path == from
        {
            *path = to.to_path_buf();
        }
    }
    all.push(Change::Renamed { from: from.to_path_buf(), to: to.to_path_buf(), before: std::fs::read(to).ok() });
}

/// To be called before `path` is removed.
pub(super) fn removing(path: &Path) {
    if remembers()
        && let Ok(before) = std::fs::read(path)
    {
        changes().push(Change::Removed { path: path.to_path_buf(), before });
    }
}

/// The disk as a power cut leaves it: contents that were not flushed are gone, and with `names` so are the names.
fn undo(names: bool) {
    let all = std::mem::take(&mut *changes());
    for change in &all {
        if let Change::Contents { path, flushed } = change
            && let Ok(file) = File::options().write(true).open(path)
        {
            _ = file.set_len(*flushed);
        }
    }
    for change in all.iter().rev().filter(|_| names) {
        // What cannot be undone was never there.
        _ = match change {
            Change::Contents { .. } => Ok(()),
            Change::Made { path } if path.is_dir() => std::fs::remove_dir_all(path),
            Change::Made { path } => std::fs::remove_file(path),
            Change::Removed { path, before } => std::fs::write(path, before),
            Change::Renamed { from, to, before } => std::fs::rename(to, from).and_then(|()| match before {
                Some(bytes) => std::fs::write(to, bytes),
                None => Ok(()),
            }),
        };
    }
}

/// Bytes free for us on the file system of `path`; `None` where it does not say.
pub(super) fn free_space(path: &Path) -> Option<u64> {
    let path = path.ancestors().find(|p| p.exists())?;
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).ok()?;
    // SAFETY: `name` ends in a zero byte, and the struct is plain numbers that the call fills in.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &mut stat) == 0).then(|| stat.f_bavail * stat.f_frsize)
    }
}

/// Whether the error says that the disk is full, or our share of it.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_kind_call_and_path() {
        let order = |kind, at, and_after, part: &str| Some(Order { kind, at, and_after, part: part.into() });
        assert_eq!(parse("crash@17"), order(Kind::Crash, 17, false, ""));
        assert_eq!(parse("ENOSPC@3+"), order(Kind::Errno(libc::ENOSPC), 3, true, ""));
        assert_eq!(parse("tear@1/cosine/losses"), order(Kind::Tear, 1, false, "cosine/losses"));
        for bad in ["crash", "crash@", "crash@x", "boom@1", "@1", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
