//! The files in which a Redis keeps its data: copied, put back, removed, and cut off at the end or to what was synced.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Where Redis keeps its append-only file, in its folder.
const AOF: &str = "appendonlydir";
/// Its snapshot.
const SNAPSHOT: &str = "dump.rdb";

/// The data files of one Redis. They may be copied while no command writes, and changed while the process is down.
#[derive(Clone, Debug)]
pub struct StoreFiles(PathBuf);

/// A copy of the data files.
#[derive(Debug)]
pub struct StoreCopy(TempDir);

impl StoreFiles {
    pub(crate) fn of(folder: &Path) -> StoreFiles {
        StoreFiles(folder.to_owned())
    }

    /// Copies them.
    pub fn copy(&self) -> StoreCopy {
        let copy = TempDir::with_prefix("sentinel-copy-").expect("a temporary folder");
        transfer(&self.0, copy.path());
        StoreCopy(copy)
    }

    /// Replaces them by a copy.
    pub fn put_back(&self, copy: &StoreCopy) {
        self.remove();
        transfer(copy.0.path(), &self.0);
    }

    /// Cuts each append-only file to the length in its note in this folder (tests/disk); without a note nothing was synced.
    pub(crate) fn keep_synced(&self, notes: &Path) {
        for entry in fs::read_dir(self.0.join(AOF)).expect("the append-only files") {
            let path = entry.expect("a file").path();
            let file = OpenOptions::new().write(true).open(&path).expect("a file");
            let metadata = file.metadata().expect("its length");
            let note = fs::read_to_string(notes.join(metadata.ino().to_string())).unwrap_or_default();
            file.set_len(metadata.len().min(note.parse().unwrap_or(0))).expect("a shorter file");
        }
    }

    /// Removes them.
    pub fn remove(&self) {
        // Either is missing where Redis was not configured for it.
        let _ = fs::remove_dir_all(self.0.join(AOF));
        let _ = fs::remove_file(self.0.join(SNAPSHOT));
    }

    /// Cuts bytes off the end of the newest part of the append-only file, as a crash of the machine may.
    pub fn truncate_aof(&self, bytes: u64) {
        let parts =
            fs::read_dir(self.0.join(AOF)).expect("an append-only file").map(|part| part.expect("a part").path());
        let newest =
            parts.filter(|part| part.to_string_lossy().ends_with(".incr.aof")).max_by_key(|part| part_number(part));
        let part = OpenOptions::new().write(true).open(newest.expect("an incremental part")).expect("a part");
        let length = part.metadata().expect("a length").len();
        part.set_len(length.checked_sub(bytes).expect("a part that is longer")).expect("a shorter part");
    }
}

/// The number in the name of a part: `appendonly.aof.12.incr.aof`.
fn part_number(part: &Path) -> u64 {
    let name = part.to_string_lossy();
    name.rsplit('.').nth(2).and_then(|number| number.parse().ok()).expect("a number")
}

fn transfer(from: &Path, to: &Path) {
    if from.join(SNAPSHOT).is_file() {
        fs::copy(from.join(SNAPSHOT), to.join(SNAPSHOT)).expect("the snapshot is copied");
    }
    let Ok(parts) = fs::read_dir(from.join(AOF)) else { return };
    fs::create_dir_all(to.join(AOF)).expect("a folder");
    for part in parts {
        let part = part.expect("a part");
        fs::copy(part.path(), to.join(AOF).join(part.file_name())).expect("a part is copied");
    }
}
