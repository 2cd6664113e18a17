//! Every file-system call of the store, so that a test can make any one of them fail.
//!
//! Start at [`write_atomic`]. A file of the store is either absent, old, or new, whenever the process dies: it is
//! written beside its place, flushed, renamed, and the folder flushed. Temporary names start with a dot and do not
//! end in `.parquet`, so that `**/*.parquet` never matches half a file. Deliberately absent: file times and hosts
//! decide nothing (see [`modified`]).

use super::error::StoreError;
use super::fault;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

const TEMP_MARK: &str = ".tmp-";

/// Replaces `path` by `bytes`: a reader sees the old file or the new one, never a part, and the new one survives a
/// power cut once this returns.
///
/// # Errors
/// If a call fails; the old file is then still in place and the temporary one is gone where it could be removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = temp_path(path)?;
    if let Err(error) = write_synced(&temp, bytes).and_then(|()| rename(&temp, path)) {
        // The first failure is the one to report; a temporary file that stays is removed by `remove_temps` later.
        let _ = remove(&temp);
        return Err(error);
    }
    sync_dir(parent(path))
}

/// One call on `path`, which may meet a fault that a test ordered.
fn call<T>(action: &'static str, path: &Path, does: impl FnOnce() -> std::io::Result<T>) -> Result<T> {
    fault::meet(path, TAKE_SPACE.contains(&action)).and_then(|()| does()).map_err(|e| StoreError::io(action, path, e))
}

/// The calls that a full disk refuses.
const TAKE_SPACE: &[&str] = &["create", "create the folder", "flush", "flush the folder"];

fn write_synced(temp: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = call("create", temp, || File::create(temp))?;
    fault::made(temp);
    fault::writing(temp, 0);
    write_all(&mut file, temp, bytes)?;
    call("flush", temp, || file.sync_all())?;
    fault::flushed(temp);
    Ok(())
}

fn write_all(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    fault::meet_write(path, file, bytes).and_then(|()| file.write_all(bytes)).map_err(|e| StoreError::write(path, bytes.len(), e))
}

/// Moves a finished file to its place; durable once its folder is flushed.
fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::meet(to, true)
        .and_then(|()| {
            fault::renaming(from, to);
            std::fs::rename(from, to)
        })
        .map_err(|e| StoreError::io("move a finished file to", to, e))
}

/// [`write_atomic`], unless the file already holds exactly `bytes`. Returns whether it was written.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if read_if_exists(path)?.as_deref() == Some(bytes) {
        return Ok(false);
    }
    write_atomic(path, bytes).map(|()| true)
}

/// `.<name>.tmp-<pid>` in the same folder: the same file system, invisible to `*.parquet`, one per process.
fn temp_path(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| StoreError::io("write", path, ErrorKind::InvalidInput.into()))?;
    let mut temp = std::ffi::OsString::from(".");
    temp.push(name);
    temp.push(format!("{TEMP_MARK}{}", std::process::id()));
    Ok(path.with_file_name(temp))
}

/// Removes what writers that died left in `dir`. Only for the holder of the lock that guards `dir`.
pub fn remove_temps(dir: &Path) -> Result<()> {
    for path in list(dir)? {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') && name.contains(TEMP_MARK) {
            remove(&path)?;
        }
    }
    Ok(())
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    call("read", path, || std::fs::read(path))
}

/// `None` where there is no such file.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    call("read", path, || match std::fs::read(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        read => read.map(Some),
    })
}

/// The file as UTF-8; anything else is corrupt.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| StoreError::corrupt(path, e))
}

/// What `path` holds from byte `offset` on, at most its last `limit` bytes, invalid UTF-8 replaced; empty if there is
/// no such file.
pub fn read_tail(path: &Path, offset: u64, limit: u64) -> Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(StoreError::io("open", path, e)),
    };
    let length = file.seek(SeekFrom::End(0)).map_err(|e| StoreError::io("read", path, e))?;
    let from = offset.min(length).max(length.saturating_sub(limit));
    file.seek(SeekFrom::Start(from)).map_err(|e| StoreError::io("read", path, e))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| StoreError::io("read", path, e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Length in bytes; 0 if there is no such file.
pub fn length(path: &Path) -> Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(StoreError::io("look at", path, e)),
    }
}

pub fn is_file(path: &Path) -> bool {
    path.is_file()
}

pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// Seconds since 1970 of the last change, for showing only: clocks jump. `None` where unknown.
pub fn modified(path: &Path) -> Option<f64> {
    let time = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}

/// Creates `dir` and what is missing above it, and flushes every folder that got a new entry.
pub fn create_dir_all(dir: &Path) -> Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    create_dir_all(parent(dir))?;
    let made = call("create the folder", dir, || match std::fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
        made => made.map(|()| true),
    })?;
    if made {
        fault::made(dir);
        sync_dir(parent(dir))?;
    }
    Ok(())
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    call("remove", path, || {
        fault::removing(path);
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    })
}

/// Removes a folder and everything in it; one that is not there is fine.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    call("remove the folder", path, || match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    })
}

/// [`remove`], flushed: once this returns the file stays gone, whatever is lost next.
pub fn remove_synced(path: &Path) -> Result<()> {
    remove(path)?;
    if is_dir(parent(path)) { sync_dir(parent(path)) } else { Ok(()) }
}

/// Moves a folder to another name beside its own.
pub fn rename_dir(from: &Path, to: &Path) -> Result<()> {
    call("move the folder", from, || std::fs::rename(from, to))?;
    sync_dir(parent(to))
}

/// Whether `path` still is the file that `file` has open, rather than another one in its place or none.
pub fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::io::Result<std::fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    identity(file.metadata()).is_some_and(|open| identity(std::fs::metadata(path)) == Some(open))
}

/// Every entry of `dir`, sorted by name; empty if there is no such folder.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = call("list", dir, || match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    })?;
    paths.sort();
    Ok(paths)
}

/// Opens `path` for adding at its end, creating it.
pub fn open_append(path: &Path) -> Result<File> {
    call("open", path, || OpenOptions::new().append(true).create(true).open(path))
}

/// Adds `bytes` at the end of `path` in one call. Not flushed: for logs and clocks only.
pub fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = open_append(path)?;
    fault::writing(path, length(path)?);
    write_all(&mut file, path, bytes)
}

/// Opens a lock file, creating it.
pub fn open_lock(path: &Path) -> Result<File> {
    call("open", path, || OpenOptions::new().write(true).create(true).truncate(false).open(path))
}

/// Opens a lock file for asking whether it is held; `None` where there is none.
pub fn open_lock_to_probe(path: &Path) -> Result<Option<File>> {
    call("open", path, || match File::open(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        opened => opened.map(Some),
    })
}

/// blake3 in hex.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// blake3 of a file, in hex, read in pieces.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = call("open", path, || File::open(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(StoreError::io("read", path, e)),
        };
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    call("flush the folder", dir, || match File::open(dir)?.sync_all() {
        // Some network file systems cannot flush a folder; a rename there is as durable as it will get.
        Err(e) if e.kind() == ErrorKind::InvalidInput || e.kind() == ErrorKind::Unsupported => Ok(()),
        flushed => flushed,
    })?;
    fault::flushed_names(dir);
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("losses.parquet");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(list(dir.path()).unwrap(), vec![path]);
    }

    #[test]
    fn a_temporary_name_is_hidden_and_never_ends_in_parquet() {
        let temp = temp_path(Path::new("runs/a-r000000000000/losses.parquet")).unwrap();
        let name = temp.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(".losses.parquet.tmp-") && !name.ends_with(".parquet"), "{name}");
        assert_eq!(temp.parent(), Some(Path::new("runs/a-r000000000000")));
    }

    #[test]
    fn what_dead_writers_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".losses.parquet.tmp-12", "losses.parquet", ".hidden", "notes.tmp-1"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        remove_temps(dir.path()).unwrap();
        let left: Vec<_> = list(dir.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_string()).collect();
        assert_eq!(left, [".hidden", "losses.parquet", "notes.tmp-1"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_the_path_and_the_errno() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a-folder");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        let message = write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(message.contains("a-folder") && message.contains("os error"), "{message}");
        assert_eq!(list(dir.path()).unwrap(), vec![path]);
    }

    #[test]
    fn a_tail_starts_at_the_offset_and_is_cut_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        assert_eq!(read_tail(&path, 0, 10).unwrap(), "");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_tail(&path, 4, 100).unwrap(), "456789");
        assert_eq!(read_tail(&path, 4, 3).unwrap(), "789");
        assert_eq!(read_tail(&path, 40, 3).unwrap(), "");
    }

    #[test]
    fn folders_are_created_at_any_depth_and_twice() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a b/ü/c");
        create_dir_all(&deep).unwrap();
        create_dir_all(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert!(create_dir_all(&dir.path().join("file/below")).is_err());
    }
}
