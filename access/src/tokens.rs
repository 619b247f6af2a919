//! Bearer tokens and the file with their hashes. Pure except for [`generate`], which reads the system's randomness.
//!
//! A token is `ist_<id>_<secret>`. The id is public. The file has the SHA-256 of the whole text: the secret has 144
//! random bits, so that a slow hash would add nothing. It is no longer than that because many clients send the whole
//! header with each call.

use std::{collections::HashMap, fmt, fmt::Write as _, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::{
    PolicyError,
    fields::{self, Fields},
    limits::{MAX_TOKENS, MAX_TOKENS_FILE_BYTES},
    names::is_name,
    problems::Problems,
    timestamp,
};

/// The start of every token.
pub(crate) const PREFIX: &str = "ist_";
const ID_DIGITS: usize = 16;
const SECRET_BYTES: usize = 18;
const SECRET_CHARACTERS: usize = 24;

/// The SHA-256 of a token.
pub(crate) type Hash = [u8; 32];

/// A token that was just generated. [`fmt::Debug`] prints only the id.
pub struct NewToken {
    /// The secret text. It is shown once and not stored.
    pub text: String,
    /// The public id.
    pub id: String,
    /// The hash of the text, in hexadecimal.
    pub sha256: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A new token from the randomness of the system.
///
/// # Panics
/// If the system has no randomness.
pub fn generate() -> NewToken {
    let mut random = [0; ID_DIGITS / 2 + SECRET_BYTES];
    OsRng.try_fill_bytes(&mut random).expect("the system has randomness");
    let (id, secret) = random.split_at(ID_DIGITS / 2);
    let id = hex(id);
    let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    let sha256 = hex(&hash(text.as_bytes()));
    NewToken { text, id, sha256 }
}

pub(crate) fn hash(text: &[u8]) -> Hash {
    Sha256::digest(text).into()
}

/// The id of a token; `None` if the text has not the form of a token.
pub(crate) fn id_of(credential: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(credential).ok()?;
    let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_DIGITS)?;
    let secret = secret.strip_prefix('_')?;
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (is_hex(id, ID_DIGITS) && secret.len() == SECRET_CHARACTERS && secret.bytes().all(is_base64url)).then_some(id)
}

/// Whether a text contains a token, or the start of one. Such a text is no name and is never printed: it was put into
/// the wrong place.
pub(crate) fn is_in(text: &str) -> bool {
    let is_token = |(start, _): (usize, &str)| {
        let rest = text[start + PREFIX.len()..].split_at_checked(ID_DIGITS);
        rest.is_some_and(|(id, secret)| is_hex(id, ID_DIGITS) && secret.starts_with('_'))
    };
    text.match_indices(PREFIX).any(is_token)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_hash(text: &str) -> Option<Hash> {
    if !is_hex(text, 64) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// A valid tokens file. [`fmt::Debug`] prints no hash.
#[derive(Debug)]
pub struct TokenFile {
    /// The tokens in the order of the file.
    pub tokens: Vec<Token>,
}

/// One entry of a tokens file. [`fmt::Debug`] prints no hash.
#[derive(Clone)]
pub struct Token {
    /// The public id.
    pub id: String,
    /// The name of the identity.
    pub identity: String,
    /// When the token ends.
    pub expires_at: Option<SystemTime>,
    pub(crate) hash: Hash,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, identity, expires_at, hash: _ } = self;
        f.debug_struct("Token")
            .field("id", id)
            .field("identity", identity)
            .field("expires_at", expires_at)
            .finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Parses the text of a tokens file. The error has all problems of the file. Whether the identities exist is not
    /// checked: they are in the policy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut problems = Problems::default();
        let mut file = Fields::new("", fields::parse(text, MAX_TOKENS_FILE_BYTES)?, &mut problems);
        let tables = file.tables("token", MAX_TOKENS);
        file.finish();
        let mut tokens: Vec<Token> = Vec::with_capacity(tables.len());
        let mut ids: HashMap<String, usize> = HashMap::with_capacity(tables.len());
        let mut hashes: HashMap<Hash, usize> = HashMap::with_capacity(tables.len());
        for (number, table) in (1..).zip(tables) {
            let mut fields = Fields::new(place(number, &table), table, &mut problems);
            let Some(token) = parse_token(&mut fields) else {
                fields.finish();
                continue;
            };
            if let Some(first) = ids.insert(token.id.clone(), number) {
                fields.problem(format_args!("token {first} has the same id"));
            }
            if let Some(first) = hashes.insert(token.hash, number) {
                fields.problem(format_args!("token {first} has the same `sha256`"));
            }
            fields.finish();
            tokens.push(token);
        }
        problems.or(Self { tokens })
    }
}

/// The place of a token. An id that is no id may be a secret and is not printed.
fn place(number: usize, table: &Table) -> String {
    match table.get("id").and_then(Value::as_str).filter(|id| is_hex(id, ID_DIGITS)) {
        Some(id) => format!("token {number} (id {id})"),
        None => format!("token {number}"),
    }
}

fn parse_token(fields: &mut Fields<'_>) -> Option<Token> {
    let (id, identity, sha256) = (fields.text("id"), fields.text("identity"), fields.text("sha256"));
    let is_id = id.as_ref().is_none_or(|id| is_hex(id, ID_DIGITS));
    if !is_id {
        fields.problem(format_args!("`id` has not {ID_DIGITS} lower-case hexadecimal digits"));
    }
    let is_identity = identity.as_ref().is_none_or(|identity| is_name(identity));
    if !is_identity {
        fields.problem("`identity` is no name of an identity");
    }
    let hash = sha256.as_deref().and_then(parse_hash);
    if sha256.is_some() && hash.is_none() {
        fields.problem("`sha256` has not 64 lower-case hexadecimal digits");
    }
    let mut expires_at = None;
    if let Some(value) = fields.take("expires_at") {
        expires_at = value.as_datetime().and_then(timestamp::parse);
        if expires_at.is_none() {
            fields.problem("`expires_at` is no date-time with an offset, from 1970 to 9999");
            return None;
        }
    }
    Some(Token { id: id.filter(|_| is_id)?, identity: identity.filter(|_| is_identity)?, expires_at, hash: hash? })
}

/// The text of the file with one more token. The text before it stays as it is.
pub fn append(file_text: &str, token: &NewToken, identity: &str, expires_at: Option<SystemTime>) -> String {
    append_entry(file_text, &token.id, identity, &token.sha256, expires_at)
}

fn append_entry(file_text: &str, id: &str, identity: &str, sha256: &str, expires_at: Option<SystemTime>) -> String {
    let mut text = file_text.to_owned();
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    let _ = write!(text, "[[token]]\nid = {}\nidentity = {}\n", string(id), string(identity));
    let _ = writeln!(text, "sha256 = {}", string(sha256));
    if let Some(time) = expires_at {
        let _ = writeln!(text, "expires_at = {}", timestamp::format(time));
    }
    text
}

/// A TOML string with this content.
fn string(content: &str) -> String {
    content.chars().fold(String::from('"'), |mut text, c| {
        let _ = match c {
            '"' | '\\' => write!(text, "\\{c}"),
            c if c.is_control() => write!(text, "\\U{:08X}", u32::from(c)),
            c => write!(text, "{c}"),
        };
        text
    }) + "\""
}

/// The text of the file without this token; `None` if no token has the id or the file is invalid. Other entries and
/// their comments stay as they are, if each token has the form `[[token]]`.
pub fn revoke(file_text: &str, id: &str) -> Option<String> {
    let before = TokenFile::parse(file_text).ok()?.tokens;
    let rest: Vec<Token> = before.iter().filter(|token| token.id != id).cloned().collect();
    if rest.len() == before.len() {
        return None;
    }
    let is_rest = |text: &String| {
        TokenFile::parse(text).is_ok_and(|file| {
            let hashes = |tokens: &[Token]| tokens.iter().map(|token| token.hash).collect::<Vec<_>>();
            hashes(&file.tokens) == hashes(&rest)
        })
    };
    remove_block(file_text, id).filter(is_rest).or_else(|| {
        // The tokens are written in another form: the file is written again, without comments.
        Some(rest.iter().fold(String::new(), |text, token| {
            append_entry(&text, &token.id, &token.identity, &hex(&token.hash), token.expires_at)
        }))
    })
}

/// The text without the block of a token: its comment, its header and its fields.
fn remove_block(file_text: &str, id: &str) -> Option<String> {
    let lines: Vec<&str> = file_text.split_inclusive('\n').collect();
    let headers = lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("[[")).map(|(at, _)| at);
    let mut starts: Vec<usize> = headers
        .map(|header| header - lines[..header].iter().rev().take_while(|line| line.starts_with('#')).count())
        .collect();
    starts.push(lines.len());
    let (from, to) = starts.windows(2).map(|window| (window[0], window[1])).find(|&(from, to)| {
        let block = TokenFile::parse(&lines[from..to].concat());
        block.is_ok_and(|block| block.tokens.iter().any(|token| token.id == id))
    })?;
    let text = lines[..from].concat() + &lines[to..].concat();
    match text.trim_end_matches('\n') {
        "" => Some(String::new()),
        rest if to == lines.len() => Some(format!("{rest}\n")),
        _ => Some(text),
    }
}
