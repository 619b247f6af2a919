//! The disk of the data folder: whether it is full, and whether there is room again. Writes a small file that it removes, and
//! touches nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Bytes in a mebibyte.
const MIB: u64 = 1 << 20;
/// A disk with fewer free bytes is full.
const FULL: u64 = 64 * 1_024;
/// Free bytes with which a store that had none starts to write again: this share of the disk, as a divisor, and no more than
/// so many. It would be full again at once with less.
const ROOM_SHARE: u64 = 10;
const MOST_ROOM: u64 = 64 * MIB;
/// Bytes that are written to see whether something can be.
const PROBE: usize = 4_096;

/// The disk under one folder.
#[derive(Clone, Debug)]
pub(super) struct Disk(PathBuf);

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    free: u64,
    total: u64,
}

impl Space {
    fn needed(self) -> u64 {
        (self.total / ROOM_SHARE).clamp(FULL, MOST_ROOM)
    }
}

impl Disk {
    pub(super) fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// If it is full: what there is, and what an operator has to do.
    pub(super) fn full(&self) -> Option<String> {
        let space = self.space();
        let is_full = space.is_some_and(|space| space.free < FULL) || self.takes_nothing();
        is_full.then(|| self.describe(space))
    }

    /// If there is too little room to go on after it was full: the same.
    pub(super) fn short_of_room(&self) -> Option<String> {
        let space = self.space();
        let is_short = space.is_some_and(|space| space.free < space.needed()) || self.takes_nothing();
        is_short.then(|| self.describe(space))
    }

    fn describe(&self, space: Option<Space>) -> String {
        let folder = self.0.display();
        match space {
            Some(space) => format!(
                "the disk of the data folder is full ({} of {} MiB free): free space in {folder} until {} MiB are free, and the store goes on by itself",
                space.free / MIB,
                space.total / MIB,
                space.needed().div_ceil(MIB),
            ),
            None => {
                format!("the disk of the data folder is full: free space in {folder}, and the store goes on by itself")
            }
        }
    }

    fn space(&self) -> Option<Space> {
        let found = rustix::fs::statvfs(&self.0).ok()?;
        Some(Space { free: found.f_bavail * found.f_frsize, total: found.f_blocks * found.f_frsize })
    }

    /// Whether a write fails for want of space, or of the quota of this user, which the numbers do not show.
    fn takes_nothing(&self) -> bool {
        let path = self.0.join("probe");
        let written = fs::write(&path, [0; PROBE]);
        // Nothing depends on it being gone.
        let _ = fs::remove_file(&path);
        written.is_err_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_is_not_full_and_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(folder.path());
        assert_eq!((disk.full(), disk.short_of_room()), (None, None));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        let told = disk.describe(Some(Space { free: 3 * MIB, total: 800 * MIB }));
        assert!(told.contains("3 of 800 MiB free") && told.contains("until 64 MiB are free"), "{told}");
        assert_eq!(Space { free: 0, total: 8 * MIB }.needed(), 8 * MIB / 10);
    }
}
