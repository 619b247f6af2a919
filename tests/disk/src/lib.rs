//! Replaces the functions of the C library that sync a file to disk. After each sync the file `INODE` in the folder
//! that the variable `SENTINEL_TEST_SYNCED` names has the length that the file had before it: so much is on disk.
//! Writes to that folder, and touches nothing else.

use std::{fs, os::fd::BorrowedFd, path::PathBuf};

/// Names the folder.
const VARIABLE: &str = "SENTINEL_TEST_SYNCED";

/// Syncs, and notes what is on disk then.
fn sync(file: i32, sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>) -> i32 {
    // SAFETY: the caller owns the descriptor for as long as the call takes.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    let before = rustix::fs::fstat(file);
    if sync(file).is_err() {
        return -1;
    }
    if let (Ok(stat), Some(folder)) = (before, std::env::var_os(VARIABLE)) {
        // A test that misses a note takes the file for empty, and fails.
        let _ = fs::write(PathBuf::from(folder).join(stat.st_ino.to_string()), stat.st_size.to_string());
    }
    0
}

/// `fdatasync` of the C library. The error number is not set.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: i32) -> i32 {
    sync(file, |file| rustix::fs::fdatasync(file))
}

/// `fsync` of the C library. The error number is not set.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: i32) -> i32 {
    sync(file, |file| rustix::fs::fsync(file))
}
