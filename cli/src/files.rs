//! Files with secrets: created with mode 0600, and replaced atomically.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{failure::Failure, table::shown};

/// The mode of a file that only its owner can read.
pub(crate) const SECRET: u32 = 0o600;
/// The mode of a file that everyone may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Creates a file. Fails if the path exists.
pub(crate) fn create(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// Reads at most `max` bytes of text. The failure names the file.
pub(crate) fn read_text(path: &Path, max: usize) -> Result<String, Failure> {
    let content = fs::metadata(path).and_then(|metadata| match metadata.len() > max as u64 {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {max} bytes"))),
        false => fs::read_to_string(path),
    });
    content.map_err(|error| unusable("read", path, &error))
}

/// The failure to read or write a file.
pub(crate) fn unusable(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let what = format!("can't {verb} {}: {error}", path.display());
    Failure::usage(shown(&what), "correct the path, or the permissions of the file and its folder")
}

/// Exclusive access to a file that is replaced, among the processes that use this lock.
pub(crate) struct Replacing {
    /// The file, behind all symbolic links.
    path: PathBuf,
    folder: PathBuf,
    _lock: File,
}

impl Replacing {
    /// Waits for the lock, which is that of the folder: the file itself is replaced.
    pub(crate) fn lock(path: &Path) -> io::Result<Replacing> {
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            resolved => resolved?,
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let lock = File::open(&folder)?;
        lock.lock()?;
        Ok(Replacing { path, folder, _lock: lock })
    }

    /// The text of the file; `None` if there is none.
    pub(crate) fn read(&self, max: usize) -> Result<Option<String>, Failure> {
        match self.path.try_exists() {
            Ok(false) => Ok(None),
            _ => read_text(&self.path, max).map(Some),
        }
    }

    /// Replaces the content. A reader sees the old or the new one. A new file has the mode 0600, another one keeps its
    /// mode and owner.
    pub(crate) fn replace(&self, content: &str) -> io::Result<()> {
        let mode = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => SECRET,
            Err(error) => return Err(error),
        };
        let new = self.folder.join(format!(".sentinelctl-{}", Uuid::now_v7()));
        let replaced = create(&new, content, SECRET).and_then(|()| {
            if let Ok(metadata) = fs::metadata(&self.path) {
                keep_owner(&new, &metadata)?;
            }
            fs::set_permissions(&new, Permissions::from_mode(mode))?;
            fs::rename(&new, &self.path)?;
            File::open(&self.folder)?.sync_all()
        });
        if replaced.is_err() {
            let _ = fs::remove_file(&new);
        }
        replaced
    }
}

/// The server may run as another user than the operator.
fn keep_owner(new: &Path, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let own = fs::metadata(new)?;
    match (own.uid(), own.gid()) == (old.uid(), old.gid()) {
        true => Ok(()),
        false => chown(new, Some(old.uid()), Some(old.gid())),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
        let (file, link) = (folder.path().join("tokens.toml"), folder.path().join("link"));
        let replace = |path: &Path, text: &str| Replacing::lock(path).expect("locked").replace(text).expect("replaced");
        replace(&file, "one");
        assert_eq!((fs::read_to_string(&file).expect("text").as_str(), mode(&file)), ("one", 0o600));
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("permissions");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        replace(&link, "two");
        assert_eq!((fs::read_to_string(&file).expect("text").as_str(), mode(&file)), ("two", 0o640));
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "no other file is left");
    }

    #[test]
    fn a_file_is_not_created_twice() {
        let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
        let path = folder.path().join("key.pem");
        create(&path, "key", SECRET).expect("created");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(create(&path, "other", PUBLIC).expect_err("exists").kind(), io::ErrorKind::AlreadyExists);
    }
}
