//! Resume tokens: the position of a stream as an opaque text. A token names the history that it
//! belongs to, so a token of lost changes fences its partition. Only a server with the secret of
//! the namespace can create one. A checksum distinguishes a damaged token from a token of another
//! secret. No I/O.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use inventory_sentinel::Reason;
use sha2::{Digest as _, Sha256};

use crate::{
    domain::{HistoryPoint, Id, Invalid, Term},
    failure::Failure,
    namespaces::Namespace,
};

/// The version of the format.
const VERSION: u8 = 2;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;
/// Bytes of one partition: epoch, term, sequence, and the sequence from which the stream continues.
const PARTITION_BYTES: usize = 6 + Term::LENGTH / 2 + 6 + 6;

/// The content of a token, for each partition.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::service) struct ResumeToken {
    /// The last change that the feed had read when the token was created.
    pub(in crate::service) claims: Vec<HistoryPoint>,
    /// The sequence after which the stream continues. It is at most that of the claim.
    pub(in crate::service) positions: Vec<u64>,
}

/// The resume token of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::service) enum Resume {
    /// There is no token.
    No,
    At(ResumeToken),
    /// The token belongs to another namespace, or to an earlier one with this name.
    Elsewhere,
}

/// The token of a stream that continues after these claims.
pub(in crate::service) fn of_claims(namespace: &Namespace, claims: &[HistoryPoint]) -> String {
    let positions: Vec<u64> = claims.iter().map(|claim| claim.sequence).collect();
    encode(namespace, claims, &positions)
}

/// The token of a stream that continues after these positions, in the history of these claims.
pub(in crate::service) fn encode(namespace: &Namespace, claims: &[HistoryPoint], positions: &[u64]) -> String {
    let mut bytes = vec![VERSION];
    for (claim, position) in claims.iter().zip(positions) {
        bytes.extend_from_slice(&claim.epoch.to_be_bytes()[2..]);
        bytes.extend(claim.term.as_bytes().chunks_exact(2).map(|digits| digit(digits[0]) << 4 | digit(digits[1])));
        bytes.extend_from_slice(&claim.sequence.to_be_bytes()[2..]);
        bytes.extend_from_slice(&position.to_be_bytes()[2..]);
    }
    let tag = namespace.tag(&bytes);
    bytes.extend_from_slice(&tag);
    bytes.extend_from_slice(&checksum(&bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the token of a request.
pub(in crate::service) fn decode(namespace: &Namespace, token: &str) -> Result<Resume, Failure> {
    if token.is_empty() {
        return Ok(Resume::No);
    }
    parse(namespace, token).ok_or_else(|| Invalid::new(Reason::InvalidResumeToken, "resume_token").into())
}

fn parse(namespace: &Namespace, token: &str) -> Option<Resume> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (rest, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (text, tag) = rest.split_last_chunk::<{ size_of::<Id>() }>()?;
    let (&[version], partitions) = text.split_first_chunk()?;
    if *sum != checksum(rest) || version != VERSION {
        return None;
    }
    if partitions.is_empty() || partitions.len() % PARTITION_BYTES != 0 {
        return None;
    }
    if !namespace.has_tag(text, tag) || partitions.len() / PARTITION_BYTES != namespace.epochs.len() {
        return Some(Resume::Elsewhere);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let (mut claims, mut positions) = (Vec::new(), Vec::new());
    for partition in partitions.chunks_exact(PARTITION_BYTES) {
        let (epoch, rest) = partition.split_at(6);
        let (term, rest) = rest.split_at(Term::LENGTH / 2);
        let (sequence, position) = rest.split_at(6);
        let name: String = term.iter().map(|byte| format!("{byte:02x}")).collect();
        let term = Term::parse(name.as_bytes())?;
        claims.push(HistoryPoint { epoch: number(epoch), term, sequence: number(sequence) });
        positions.push(number(position));
    }
    Some(Resume::At(ResumeToken { claims, positions }))
}

/// The value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::digest(bytes);
    std::array::from_fn(|i| hash[i])
}
