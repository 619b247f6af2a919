//! The bearer token of a client: a fixed one, or that of a file, which is read again while the client runs. It reads
//! that file; it opens no connection.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// How long the token of a file is used before the file is read again. A file that is replaced is noticed by the first
/// call after this time.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// The longest token, in bytes; the server accepts no longer one.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The source of a token.
#[derive(Clone)]
pub(crate) enum TokenSource {
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSource::Text(_) => f.write_str("Text(redacted)"),
            TokenSource::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why there is no token. Never contains the token.
#[derive(Debug)]
pub(crate) enum TokenError {
    Malformed(&'static str),
    Unreadable(PathBuf, io::Error),
}

/// The credentials of all calls of one client.
#[derive(Debug, Default)]
pub(crate) struct Credentials(Token);

/// A value is marked as sensitive: `Debug` does not show it, and HTTP/2 does not index it.
#[derive(Debug, Default)]
enum Token {
    #[default]
    None,
    Fixed(MetadataValue<Ascii>),
    File(TokenFile),
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    last: Mutex<LastRead>,
}

/// The last valid content of the file.
#[derive(Debug)]
struct LastRead {
    value: MetadataValue<Ascii>,
    read_at: Instant,
    /// Whether the last attempt failed: a failure is logged once.
    is_failing: bool,
}

impl Credentials {
    /// Reads the token.
    pub(crate) fn load(source: Option<&TokenSource>) -> Result<Credentials, TokenError> {
        let token = match source {
            None => Token::None,
            Some(TokenSource::Text(text)) => Token::Fixed(bearer(text).map_err(TokenError::Malformed)?),
            Some(TokenSource::File(path)) => {
                let value = read(path).map_err(|error| TokenError::Unreadable(path.clone(), error))?;
                let last = LastRead { value, read_at: Instant::now(), is_failing: false };
                Token::File(TokenFile { path: path.clone(), last: Mutex::new(last) })
            }
        };
        Ok(Credentials(token))
    }

    /// Adds `authorization` to the metadata of a request.
    pub(crate) fn attach(&self, metadata: &mut MetadataMap) {
        let value = match &self.0 {
            Token::None => return,
            Token::Fixed(value) => value.clone(),
            Token::File(file) => file.current(RELOAD_INTERVAL),
        };
        metadata.insert("authorization", value);
    }
}

impl TokenFile {
    /// The current token. Reads the file if the last attempt is at least `interval` old; callers wait for the one that
    /// reads, so that none sends a replaced token after a pause. The content is compared and not the time of change,
    /// which is the same after some replacements.
    fn current(&self, interval: Duration) -> MetadataValue<Ascii> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.read_at.elapsed() >= interval {
            last.read_at = Instant::now();
            match read(&self.path) {
                Ok(value) => {
                    if value != last.value {
                        tracing::debug!(path = %self.path.display(), "the bearer token has changed");
                        last.value = value;
                    }
                    last.is_failing = false;
                }
                Err(error) if !last.is_failing => {
                    last.is_failing = true;
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "can't read the bearer token: the last one is still used");
                }
                Err(_) => {}
            }
        }
        last.value.clone()
    }
}

/// Reads a token file. Space around the token is ignored, for example the line end of an editor.
fn read(path: &Path) -> io::Result<MetadataValue<Ascii>> {
    let invalid = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
    let file = File::open(path)?;
    // To read a pipe or a terminal could block all callers.
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(2 * MAX_TOKEN_BYTES as u64).read_to_end(&mut content)?;
    let text = std::str::from_utf8(&content).map_err(|_| invalid("it is not UTF-8"))?;
    bearer(text.trim()).map_err(invalid)
}

/// The value of `authorization`.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, &'static str> {
    if token.is_empty() {
        return Err("the token is empty");
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err("the token has more than 8,192 bytes");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token contains a space or a character that is not ASCII");
    }
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| "the token is malformed")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "ist_3f9a1c0b7d2e4a68_secret";

    fn sent(credentials: &Credentials) -> Option<String> {
        let mut metadata = MetadataMap::new();
        credentials.attach(&mut metadata);
        metadata.get("authorization").map(|value| value.to_str().unwrap().to_owned())
    }

    fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_token_is_sent_as_bearer_and_never_shown() {
        assert_eq!(sent(&Credentials::default()), None);
        let (_folder, path) = file_with(&format!("{SECRET}\n"));
        for source in [TokenSource::Text(SECRET.to_owned()), TokenSource::File(path)] {
            let credentials = Credentials::load(Some(&source)).unwrap();
            assert_eq!(sent(&credentials), Some(format!("Bearer {SECRET}")));
            let mut metadata = MetadataMap::new();
            credentials.attach(&mut metadata);
            let shown = format!("{source:?} {credentials:?} {metadata:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn a_malformed_token_is_refused_without_being_shown() {
        for text in ["", "secret token", "secr\u{e9}t", "secret\n", &"secret".repeat(2_000)] {
            let source = TokenSource::Text(text.to_owned());
            let error = Credentials::load(Some(&source)).unwrap_err();
            assert!(matches!(error, TokenError::Malformed(_)) && !format!("{error:?}").contains("secret"));
        }
        for text in ["", "\n", "secret token", &"secret".repeat(2_000)] {
            let (_folder, path) = file_with(text);
            let error = Credentials::load(Some(&TokenSource::File(path))).unwrap_err();
            assert!(matches!(error, TokenError::Unreadable(..)) && !format!("{error:?}").contains("secret"));
        }
        let (folder, _) = file_with("");
        assert!(Credentials::load(Some(&TokenSource::File(folder.path().to_owned()))).is_err());
    }

    #[test]
    fn a_replaced_file_is_used_and_a_broken_one_is_not() {
        let (folder, path) = file_with("first");
        let Credentials(Token::File(file)) = Credentials::load(Some(&TokenSource::File(path.clone()))).unwrap() else {
            panic!("a file");
        };
        let current = |interval| file.current(interval).to_str().unwrap().to_owned();
        std::fs::write(&path, "second").unwrap();
        assert_eq!(current(Duration::from_secs(60)), "Bearer first", "the interval has not passed");
        assert_eq!(current(Duration::ZERO), "Bearer second");
        std::fs::write(&path, "").unwrap();
        assert_eq!(current(Duration::ZERO), "Bearer second");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(current(Duration::ZERO), "Bearer second");
        // As Kubernetes does it: the file is a symbolic link that is replaced.
        std::fs::write(folder.path().join("other"), "third").unwrap();
        std::os::unix::fs::symlink(folder.path().join("other"), &path).unwrap();
        assert_eq!(current(Duration::ZERO), "Bearer third");
    }
}
