//! The check whether the disk of the data folder is full, and whether it has room again. Writes and removes a small
//! file, and touches nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Bytes in a mebibyte.
const MIB: u64 = 1 << 20;
/// A disk with fewer free bytes is full.
const FULL: u64 = 64 * 1_024;
/// The room with which a store on a full disk starts to write again: the disk's size divided by this, at most
/// [`MOST_ROOM`]. With less, the disk would be full again at once.
const ROOM_SHARE: u64 = 10;
/// The most room that is required, in bytes.
const MOST_ROOM: u64 = 64 * MIB;
/// Bytes that are written to check whether a write succeeds.
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

    /// A description for the operator with the remedy, if the disk is full.
    pub(super) fn full(&self) -> Option<String> {
        let space = self.space();
        let is_full = space.is_some_and(|space| space.free < FULL) || self.refuses_writes();
        is_full.then(|| self.describe(space))
    }

    /// The same, if the disk was full and has too little room to continue.
    pub(super) fn short_of_room(&self) -> Option<String> {
        let space = self.space();
        let is_short = space.is_some_and(|space| space.free < space.needed()) || self.refuses_writes();
        is_short.then(|| self.describe(space))
    }

    fn describe(&self, space: Option<Space>) -> String {
        let folder = self.0.display();
        match space {
            Some(space) => format!(
                "the disk of the data folder is full ({} of {} MiB free): free space in {folder} until {} MiB are \
                 free, and the store continues automatically",
                space.free / MIB,
                space.total / MIB,
                space.needed().div_ceil(MIB),
            ),
            None => {
                format!(
                    "the disk of the data folder is full: free space in {folder}, and the store continues \
                     automatically"
                )
            }
        }
    }

    fn space(&self) -> Option<Space> {
        let found = rustix::fs::statvfs(&self.0).ok()?;
        Some(Space { free: found.f_bavail * found.f_frsize, total: found.f_blocks * found.f_frsize })
    }

    /// Whether a write fails because of the disk or of the user's quota, which the numbers do not show.
    fn refuses_writes(&self) -> bool {
        let path = self.0.join("probe");
        let written = fs::write(&path, [0; PROBE]);
        // A failure does no harm: the next check overwrites the file.
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
        let text = disk.describe(Some(Space { free: 3 * MIB, total: 800 * MIB }));
        assert!(text.contains("3 of 800 MiB free") && text.contains("until 64 MiB are free"), "{text}");
        assert_eq!(Space { free: 0, total: 8 * MIB }.needed(), 8 * MIB / 10);
    }
}
