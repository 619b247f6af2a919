//! The witness file: the recorded history of the store, which survives a restart of the server. Touches files in the
//! state folder only.

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::MAX_PARTITIONS;

/// The newest format that this server reads and writes. It can contain deleted namespaces.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format. This server writes it while there are no deleted namespaces.
pub(crate) const FIRST_FORMAT: u32 = 1;
/// The largest witness file, in bytes.
pub(crate) const MAX_WITNESS_BYTES: u64 = 64 * 1024 * 1024;
/// The most claims that a server records of a partition. The script accepts more.
pub(crate) const MAX_RECORDED_CLAIMS: usize = 16;
/// Epochs and sequence numbers are below this; `check` names it 2^48.
const NUMBER_LIMIT: u64 = 1 << 48;

/// Why the state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another server holds the lock; its process, if the lock file names it.
    #[error(
        "the state folder {} is in use by another sentinel-server{}: give each its own --state-dir",
        folder.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse { folder: PathBuf, pid: Option<u32> },
    /// This action on the folder or on a file in it failed.
    #[error(
        "cannot {what} {}: {source}: let this user read and write there, or choose another --state-dir",
        path.display()
    )]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The file is not a valid witness file. The reason never quotes the file, which contains secrets.
    #[error(
        "the witness file {} is corrupt: {why}: restore it, or remove the file only if the store is known to be \
         complete",
        path.display()
    )]
    Corrupt { path: PathBuf, why: String },
    /// A later server wrote the file, in this format.
    #[error(
        "the witness file {} has format {version}, newer than {FORMAT}: run the server that wrote it, or a later one",
        path.display()
    )]
    Newer { path: PathBuf, version: u64 },
}

/// The content of the file: the recorded history of one store. `version` is its format, `store_id` has 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) version: u32,
    /// SHA-256 of the document with an empty checksum, in hex. Empty in memory.
    pub(crate) checksum: String,
    pub(crate) store_id: String,
    pub(crate) namespaces: Vec<NamespaceEntry>,
}

/// One namespace. `config` is its config record in hex. It contains the secret, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamespaceEntry {
    pub(crate) name: String,
    pub(crate) config: String,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleted: bool,
    pub(crate) partitions: Vec<PartitionEntry>,
}

/// One partition and its epoch, below 2^48.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionEntry {
    pub(crate) epoch: u64,
    pub(crate) claims: Vec<ClaimEntry>,
}

/// One claim: a point of history that a partition has reached. Both numbers are below 2^48. The term has 40 lowercase
/// hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimEntry {
    pub(crate) epoch: u64,
    pub(crate) term: String,
    pub(crate) sequence: u64,
}

impl fmt::Debug for NamespaceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NamespaceEntry { name, config: _, deleted, partitions } = self;
        write!(
            f,
            "NamespaceEntry {{ name: {name:?}, config: [secret], deleted: {deleted}, partitions: {partitions:?} }}"
        )
    }
}

/// The part of a document that every format has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Document {
    fn parse(bytes: &[u8], path: &Path) -> Result<Document, StateError> {
        let corrupt = |why| StateError::Corrupt { path: path.to_owned(), why };
        if bytes.len() as u64 > MAX_WITNESS_BYTES {
            return Err(corrupt(format!("it is longer than {MAX_WITNESS_BYTES} bytes")));
        }
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| corrupt(unquoted(&error)))?;
        if version > u64::from(FORMAT) {
            return Err(StateError::Newer { path: path.to_owned(), version });
        }
        let mut document: Document = serde_json::from_slice(bytes).map_err(|error| corrupt(unquoted(&error)))?;
        document.check().map_err(corrupt)?;
        let checksum = std::mem::take(&mut document.checksum);
        match document.sum() {
            Ok(sum) if sum == checksum => Ok(document),
            _ => Err(corrupt("its checksum is wrong".to_owned())),
        }
    }

    fn sum(&self) -> serde_json::Result<String> {
        Ok(to_hex(&Sha256::digest(serde_json::to_vec(self)?)))
    }

    /// The first field that breaks a rule.
    fn check(&self) -> Result<(), String> {
        let held = |holds: bool, rule: fmt::Arguments<'_>| if holds { Ok(()) } else { Err(rule.to_string()) };
        let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lower = |text: &str, digits| hex(text, digits) && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        held((FIRST_FORMAT..=FORMAT).contains(&self.version), format_args!("version is unknown"))?;
        held(hex(&self.store_id, 32), format_args!("store_id is not 32 hex digits"))?;
        for (n, NamespaceEntry { name: _, config, deleted: _, partitions }) in self.namespaces.iter().enumerate() {
            let at = format!("namespaces[{n}]");
            held(from_hex(config).is_some(), format_args!("{at}.config is not hex of even length"))?;
            let fit = partitions.len() <= usize::from(MAX_PARTITIONS);
            held(fit, format_args!("{at}.partitions are more than {MAX_PARTITIONS}"))?;
            for (p, PartitionEntry { epoch, claims }) in partitions.iter().enumerate() {
                let at = format!("{at}.partitions[{p}]");
                held(*epoch < NUMBER_LIMIT, format_args!("{at}.epoch is not below 2^48"))?;
                let fit = claims.len() <= MAX_RECORDED_CLAIMS;
                held(fit, format_args!("{at}.claims are more than {MAX_RECORDED_CLAIMS}"))?;
                for (c, ClaimEntry { epoch, term, sequence }) in claims.iter().enumerate() {
                    held(*epoch < NUMBER_LIMIT, format_args!("{at}.claims[{c}].epoch is not below 2^48"))?;
                    held(*sequence < NUMBER_LIMIT, format_args!("{at}.claims[{c}].sequence is not below 2^48"))?;
                    held(lower(term, 40), format_args!("{at}.claims[{c}].term is not 40 lowercase hex digits"))?;
                }
            }
        }
        Ok(())
    }
}

/// Describes a parse error without the parser's message, which may quote a secret.
fn unquoted(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field is missing, unknown, double or of another type",
        _ => "it is not JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// A state folder that this process has locked. Writes are serialized, because all use one temporary file.
#[derive(Debug)]
pub(crate) struct StateDir {
    folder: PathBuf,
    file: PathBuf,
    writing: Mutex<()>,
    /// `witness.lock`, held.
    _lock: File,
}

impl StateDir {
    /// Creates the folder if it is absent, for this user only, locks it, and reads the file in it.
    pub(crate) fn open(path: &Path) -> Result<(StateDir, Option<Document>), StateError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))?;
        let folder = path.canonicalize().map_err(failed("find", path))?;
        let at = folder.join("witness.lock");
        let lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&at);
        let lock = lock.map_err(failed("open", &at))?;
        match lock.try_lock() {
            Ok(()) => {
                // For error messages. Overwrites the old id with the same number of bytes, which works on a full disk.
                if let Err(error) = (&lock).write_all(format!("{:<11}\n", std::process::id()).as_bytes()) {
                    tracing::warn!(%error, "the process id could not be written to the lock file");
                }
            }
            Err(TryLockError::WouldBlock) => {
                let pid = io::read_to_string(lock.take(32)).ok().and_then(|text| text.trim().parse().ok());
                return Err(StateError::InUse { folder, pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &at)(source)),
        }
        let file = folder.join("witness.json");
        let mut bytes = Vec::new();
        let document = match File::open(&file).and_then(|file| file.take(MAX_WITNESS_BYTES + 1).read_to_end(&mut bytes))
        {
            Ok(_) => Some(Document::parse(&bytes, &file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed("read", &file)(source)),
        };
        Ok((StateDir { folder, file, writing: Mutex::new(()), _lock: lock }, document))
    }

    /// Replaces the file, unless [`StateDir::open`] would refuse the new one. After a success the new file survives a
    /// power cut. After an error the file is the old one or the new one, complete. Blocks on the disk.
    pub(crate) fn write(&self, document: &Document) -> io::Result<()> {
        document.check().map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let bytes = serde_json::to_vec(&Document { checksum: document.sum()?, ..document.clone() })?;
        if bytes.len() as u64 > MAX_WITNESS_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the witness is larger than its limit"));
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = self.folder.join("witness.json.tmp");
        // A leftover does no harm, but on a full disk it takes room.
        replace(&self.file, &temporary, &bytes).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        File::open(&self.folder)?.sync_all()
    }

    /// The path of the file, which may be absent.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// Two lowercase digits for each byte.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of an even number of hex digits in either case; `None` for any other text.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sample() -> Document {
        let claim = ClaimEntry { epoch: 3, term: "0af9".repeat(10), sequence: NUMBER_LIMIT - 1 };
        let partitions = vec![PartitionEntry { epoch: 4, claims: vec![claim] }];
        let namespaces =
            vec![NamespaceEntry { name: "drop".to_owned(), config: to_hex(b"\xfftop"), deleted: false, partitions }];
        Document { version: FIRST_FORMAT, checksum: String::new(), store_id: "0123456789abcdef".repeat(2), namespaces }
    }
    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
    fn refusal(file: &[u8]) -> StateError {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("witness.json"), file).unwrap();
        StateDir::open(dir.path()).unwrap_err()
    }
    fn assert_corrupt(file: &[u8], expected: &str) {
        let error = refusal(file);
        assert!(matches!(&error, StateError::Corrupt { why, .. } if why.starts_with(expected)), "{expected}: {error}");
        assert!(!format!("{error}{error:?}").contains("ff746f70"), "the config is quoted: {error}");
    }

    #[test]
    fn what_is_written_is_read_by_the_next_server_and_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let (state, None) = StateDir::open(&path).unwrap() else { panic!("a document in a new folder") };
        state.write(&sample()).unwrap();
        let modes = [&*path, path.parent().unwrap(), state.path(), &path.join("witness.lock")].map(mode);
        assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, StateError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        drop(state);
        assert_eq!(StateDir::open(&path).unwrap().1, Some(sample()));
    }

    #[test]
    fn an_interrupted_or_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = dir.path().join("witness.json.tmp");
        StateDir::open(dir.path()).unwrap().0.write(&sample()).unwrap();
        fs::write(&temporary, b"{\"version\":1,\"sto").unwrap();
        let (state, found) = StateDir::open(dir.path()).unwrap();
        assert_eq!(found, Some(sample()));
        let next = Document { namespaces: vec![], ..sample() };
        state.write(&next).unwrap();
        assert_eq!((mode(state.path()), temporary.exists()), (0o600, false));
        fs::create_dir(&temporary).unwrap();
        state.write(&sample()).unwrap_err();
        fs::remove_dir(&temporary).unwrap();
        state.write(&Document { store_id: "x".to_owned(), ..sample() }).unwrap_err();
        drop(state);
        let (state, found) = StateDir::open(dir.path()).unwrap();
        assert_eq!(found, Some(next));
        // Writes at once leave one whole file.
        let write = || (0..20).for_each(|_| state.write(&sample()).unwrap());
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(write))));
        drop(state);
        assert_eq!(StateDir::open(dir.path()).unwrap().1, Some(sample()));
    }

    #[test]
    fn a_file_that_is_no_witness_is_corrupt_or_newer_and_is_not_quoted() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert_corrupt(&json.as_bytes()[..json.len() - 1], "it ends too early");
        assert_corrupt(b"\xff\0garbage", "it is not JSON");
        assert_corrupt(&vec![b' '; MAX_WITNESS_BYTES as usize + 1], "it is longer than 67108864 bytes");
        let (partition, big) = ("namespaces[0].partitions[0]", "281474976710655");
        let (claims, many) = (json.find("{\"epoch\":3").unwrap(), json.find("{\"epoch\":4").unwrap());
        let (claim, whole) = (&json[claims..json.len() - 6], &json[many..json.len() - 4]);
        for (from, to, expected) in [
            ("\"name\"", "\"nom\"", "a field is missing, unknown"),
            ("\"partitions\":[", "\"partitions\":\"ff746f70\",\"x\":[", "a field is missing, unknown"),
            ("\"version\":1", "\"version\":0", "version is"),
            ("\"0123", "\"g123", "store_id is"),
            ("\"config\":\"", "\"config\":\"0", "namespaces[0].config is"),
            ("\"0af9", "\"0AF9", &format!("{partition}.claims[0].term is")),
            ("\"epoch\":4", "\"epoch\":281474976710656", &format!("{partition}.epoch is")),
            ("\"epoch\":3", "\"epoch\":281474976710656", &format!("{partition}.claims[0].epoch is")),
            (big, "281474976710656", &format!("{partition}.claims[0].sequence is")),
            (claim, &[claim; 17].join(","), &format!("{partition}.claims are more than 16")),
            (whole, &[whole; 65].join(","), "namespaces[0].partitions are more than 64"),
        ] {
            assert_corrupt(json.replacen(from, to, 1).as_bytes(), expected);
        }
        // Each field has its form, but they are not those that were written.
        assert_corrupt(json.as_bytes(), "its checksum is wrong");
        assert!(matches!(refusal(br#"{"other":[],"version":3}"#), StateError::Newer { version: 3, .. }));
    }

    #[test]
    fn hex_goes_both_ways_and_the_config_is_not_shown() {
        assert_eq!(from_hex(&to_hex(&[0, 0x1f, 0xff])), Some(vec![0, 0x1f, 0xff]));
        assert_eq!(["", "Ab", "a", "+1", "é"].map(from_hex), [Some(vec![]), Some(vec![0xab]), None, None, None]);
        let shown = format!("{:?}", sample());
        assert!(shown.contains("config: [secret]") && !shown.contains("ff746f70"), "{shown}");
    }
}
