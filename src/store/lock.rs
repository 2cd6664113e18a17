//! Locks that the kernel frees when their holder dies, however it dies.
//!
//! A lock is `flock` on a file; its contents mean nothing. So "running" cannot outlive the process that runs.

use super::error::StoreError;
use super::fs;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A held lock; dropping it, or dying, frees it.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

/// How often a lock that only askers hold is tried for, a millisecond apart.
const TRIES: u32 = 500;

/// Takes the lock at `path`, or says `None` where another holds it.
///
/// Whoever only asks ([`is_held`]) holds a shared lock for some microseconds. That is told from a holder by asking
/// too: a shared lock is granted beside askers and refused beside a holder.
///
/// A lock on a file that was removed between being opened and being locked guards nothing: it is taken anew.
pub(super) fn try_lock(path: &Path) -> Result<Option<RunLock>, StoreError> {
    let mut file = fs::open_lock(path)?;
    let failed = |e| StoreError::io("lock", path, e);
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) if fs::is_still(&file, path) => return Ok(Some(RunLock { file, path: path.to_path_buf() })),
            Ok(()) => {
                file = fs::open_lock(path)?;
                continue;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        match file.try_lock_shared() {
            Ok(()) => file.unlock().map_err(failed)?,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// Takes the lock at `path`, waiting for whoever holds it.
pub(super) fn lock(path: &Path) -> Result<RunLock, StoreError> {
    let file = fs::open_lock(path)?;
    file.lock().map_err(|e| StoreError::io("lock", path, e))?;
    Ok(RunLock { file, path: path.to_path_buf() })
}

/// Whether somebody holds the lock at `path` now. Creates nothing.
pub(super) fn is_held(path: &Path) -> Result<bool, StoreError> {
    let Some(file) = fs::open_lock_to_probe(path)? else { return Ok(false) };
    match file.try_lock_shared() {
        Ok(()) => Ok(false), // freed as `file` closes
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(StoreError::io("ask for the lock on", path, e)),
    }
}

impl RunLock {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // A process being started may hold a copy of the descriptor until its exec; unlocking does not wait for it.
        // Closing frees the lock in any case, so a failure here changes nothing.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_a_dropped_lock_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap(), "a lock that does not exist is not held");
        assert!(!path.exists(), "asking creates nothing");
        let held = try_lock(&path).unwrap().expect("free");
        assert_eq!(held.path(), path);
        assert!(is_held(&path).unwrap());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(!is_held(&path).unwrap());
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_was_removed_meanwhile_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("lock"), dir.path().join("moved"));
        let held = try_lock(&path).unwrap().unwrap();
        // Somebody opened the file before it was moved away, and gets the lock after.
        let late = fs::open_lock(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        drop(held);
        late.lock().unwrap();
        assert!(!fs::is_still(&late, &path));
        let fresh = try_lock(&path).unwrap().expect("the lock that others will ask for is another file");
        assert!(is_held(&path).unwrap());
        drop(fresh);
        assert!(!is_held(&path).unwrap() && is_held(&moved).unwrap());
    }

    #[test]
    fn a_lock_that_somebody_only_asks_for_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(try_lock(&path).unwrap());
        let asker = fs::open_lock_to_probe(&path).unwrap().unwrap();
        asker.try_lock_shared().unwrap();
        std::thread::scope(|s| {
            s.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(asker);
            });
            assert!(try_lock(&path).unwrap().is_some());
        });
    }

    #[test]
    fn asking_never_makes_a_free_lock_look_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(try_lock(&path).unwrap());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    is_held(&path).unwrap();
                }
            });
            let refused = (0..300).filter(|_| try_lock(&path).unwrap().is_none()).count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }
}
