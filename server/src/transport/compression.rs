//! Messages that are compressed with gzip. They are decompressed here in pieces, up to the size
//! limit of a message, so all later code sees plain messages only. Touches bytes only.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderName};

use super::requests::{PREFIX, ReadError};

/// The header with the encoding of a call's messages.
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The accepted encodings, for a caller whose encoding is unknown.
pub(super) static ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const ACCEPTED: &str = "identity,gzip";

/// Bytes that compression can add to a message: gzip adds a head, a tail, and some bytes for each
/// block that it can't shrink.
const MAX_GROWTH: usize = 128;
/// The share of the same, as a divisor of the message's length.
const GROWTH_SHARE: usize = 1_024;
/// Usual bytes per compressed byte. More memory is allocated only as data arrives.
const USUAL_RATIO: usize = 4;
/// Most bytes per compressed byte.
const MAX_RATIO: u64 = 1_032;
/// Bytes that are decompressed of a message that declares itself too large.
const PROBE: usize = 64 * 1_024;
/// Bytes that are decompressed in about a microsecond.
const BYTES_PER_MICROSECOND: usize = 256;

/// The encoding of the messages of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Plain.
    Plain,
    /// Messages with the compression flag are gzip.
    Gzip,
}

impl Encoding {
    /// Takes the encoding from the head of a call; `None`: it is unknown.
    pub(super) fn take_from(headers: &mut HeaderMap) -> Option<Self> {
        let Some(encoding) = headers.get(&ENCODING) else { return Some(Self::Plain) };
        let encoding = match encoding.as_bytes() {
            b"identity" => Self::Plain,
            b"gzip" => Self::Gzip,
            _ => return None,
        };
        // The services see plain messages.
        headers.remove(&ENCODING);
        Some(encoding)
    }
}

/// The most bytes of a compressed message with this many plain bytes.
pub(super) fn max_compressed(max: usize) -> usize {
    max + max / GROWTH_SHARE + MAX_GROWTH
}

/// Approximate time to decompress this many bytes, in microseconds.
pub(super) fn work(decompressed: usize) -> u32 {
    u32::try_from(decompressed / BYTES_PER_MICROSECOND).unwrap_or(u32::MAX)
}

/// Decompresses a message with its prefix; it may have at most `max` plain bytes.
pub(super) fn decompress(compressed: &[u8], max: usize) -> Result<Bytes, ReadError> {
    let payload = compressed.get(PREFIX..).ok_or(ReadError::Malformed)?;
    // The trailer of gzip has the plain length, modulo 2^32. If that is too large, only enough is
    // decompressed to detect data that is not gzip.
    let claimed = payload.last_chunk().map_or(0, |claimed| u32::from_le_bytes(*claimed)) as usize;
    let limit = if claimed <= max { claimed } else { max.min(PROBE) };
    let mut message = Vec::with_capacity(PREFIX + limit.min(payload.len() * USUAL_RATIO));
    message.extend_from_slice(&[0; PREFIX]);
    let mut decoder = GzDecoder::new(payload);
    decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut message).map_err(|_| ReadError::Malformed)?;
    let length = message.len() - PREFIX;
    if length > limit {
        let may_be_long = payload.len() as u64 * MAX_RATIO >= 1 << u32::BITS;
        return Err(if claimed > max || may_be_long { ReadError::TooLarge } else { ReadError::Malformed });
    }
    if !decoder.into_inner().is_empty() {
        return Err(ReadError::Malformed);
    }
    let prefix = u32::try_from(length).map_err(|_| ReadError::TooLarge)?.to_be_bytes();
    message[1..PREFIX].copy_from_slice(&prefix);
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn compressed(message: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![1, 0, 0, 0, 0], level);
        encoder.write_all(message).unwrap();
        let mut compressed = encoder.finish().unwrap();
        let length = (compressed.len() - PREFIX) as u32;
        compressed[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        compressed
    }

    #[test]
    fn what_was_packed_is_unpacked_up_to_the_limit() {
        for message in [&[][..], b"short", &[7; 100_000]] {
            for level in [Compression::none(), Compression::fast(), Compression::best()] {
                let compressed = compressed(message, level);
                let plain = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
                assert_eq!(decompress(&compressed, message.len()), Ok(plain.into()));
                assert!(compressed.len() - PREFIX <= max_compressed(message.len()));
                if let Some(less) = message.len().checked_sub(1) {
                    assert_eq!(decompress(&compressed, less), Err(ReadError::TooLarge));
                }
            }
        }
    }

    #[test]
    fn what_is_no_gzip_is_malformed() {
        let whole = compressed(b"a message of some length", Compression::best());
        for end in PREFIX..whole.len() {
            assert_eq!(decompress(&whole[..end], 100), Err(ReadError::Malformed), "{end}");
        }
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(decompress(&wrong, 100), Err(ReadError::Malformed));
        assert_eq!(decompress(&[&whole[..], &[0]].concat(), 100), Err(ReadError::Malformed));
        assert_eq!(decompress(&[&whole[..], &whole[PREFIX..]].concat(), 100), Err(ReadError::Malformed), "two members");
    }
}
