//! Messages that are packed with gzip: unpacked here, piece by piece, up to what a message may be, so that all that comes
//! after sees plain messages only. Touches bytes and nothing else.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderName};

use super::requests::{PREFIX, Unread};

/// How the messages of a call are packed.
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How they may be packed, for the caller of a call whose are not.
pub(super) static ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const ACCEPTED: &str = "identity,gzip";

/// Bytes that a message may grow by when it is packed: gzip adds a head, a tail, and some bytes for each block that it
/// can't make smaller.
const MOST_GROWTH: usize = 128;
/// The share of the same, as a divisor of the message's length.
const GROWTH_SHARE: usize = 1_024;
/// What a byte unpacks to usually: what is more takes memory as it comes.
const USUAL_RATIO: usize = 4;
/// What a byte unpacks to at most.
const MOST_RATIO: u64 = 1_032;
/// Bytes that are unpacked of a message that says itself that it is too large.
const PROBE: usize = 64 * 1_024;
/// Bytes that are unpacked in about a microsecond.
const BYTES_PER_MICROSECOND: usize = 256;

/// How the messages of one call come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// As they are.
    Plain,
    /// Those that say so are packed with gzip.
    Gzip,
}

impl Packing {
    /// Takes the packing from the head of a call; `None`: it is not known here.
    pub(super) fn take_from(headers: &mut HeaderMap) -> Option<Self> {
        let Some(encoding) = headers.get(&ENCODING) else { return Some(Self::Plain) };
        let packing = match encoding.as_bytes() {
            b"identity" => Self::Plain,
            b"gzip" => Self::Gzip,
            _ => return None,
        };
        // The services see what was unpacked.
        headers.remove(&ENCODING);
        Some(packing)
    }
}

/// The most bytes that a message of so many bytes has when it is packed.
pub(super) fn most_packed(max: usize) -> usize {
    max + max / GROWTH_SHARE + MOST_GROWTH
}

/// About how long it takes to unpack so many bytes, in microseconds.
pub(super) fn work(unpacked: usize) -> u32 {
    u32::try_from(unpacked / BYTES_PER_MICROSECOND).unwrap_or(u32::MAX)
}

/// Unpacks a message, prefix and all, that has `max` bytes at most when it is unpacked.
pub(super) fn unpack(packed: &[u8], max: usize) -> Result<Bytes, Unread> {
    let payload = packed.get(PREFIX..).ok_or(Unread::Malformed)?;
    // The last bytes of gzip say how long it is unpacked, modulo 2^32. One that says too much is unpacked only until it is
    // clear that it is gzip at all.
    let claimed = payload.last_chunk().map_or(0, |claimed| u32::from_le_bytes(*claimed)) as usize;
    let limit = if claimed <= max { claimed } else { max.min(PROBE) };
    let mut message = Vec::with_capacity(PREFIX + limit.min(payload.len() * USUAL_RATIO));
    message.extend_from_slice(&[0; PREFIX]);
    let mut decoder = GzDecoder::new(payload);
    decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut message).map_err(|_| Unread::Malformed)?;
    let length = message.len() - PREFIX;
    if length > limit {
        let may_be_long = payload.len() as u64 * MOST_RATIO >= 1 << u32::BITS;
        return Err(if claimed > max || may_be_long { Unread::TooLarge } else { Unread::Malformed });
    }
    if !decoder.into_inner().is_empty() {
        return Err(Unread::Malformed);
    }
    let prefix = u32::try_from(length).map_err(|_| Unread::TooLarge)?.to_be_bytes();
    message[1..PREFIX].copy_from_slice(&prefix);
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(message: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![1, 0, 0, 0, 0], level);
        encoder.write_all(message).unwrap();
        let mut packed = encoder.finish().unwrap();
        let length = (packed.len() - PREFIX) as u32;
        packed[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        packed
    }

    #[test]
    fn what_was_packed_is_unpacked_up_to_the_limit() {
        for message in [&[][..], b"short", &[7; 100_000]] {
            for level in [Compression::none(), Compression::fast(), Compression::best()] {
                let packed = packed(message, level);
                let plain = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
                assert_eq!(unpack(&packed, message.len()), Ok(plain.into()));
                assert!(packed.len() - PREFIX <= most_packed(message.len()));
                if let Some(less) = message.len().checked_sub(1) {
                    assert_eq!(unpack(&packed, less), Err(Unread::TooLarge));
                }
            }
        }
    }

    #[test]
    fn what_is_no_gzip_is_malformed() {
        let whole = packed(b"a message of some length", Compression::best());
        for end in PREFIX..whole.len() {
            assert_eq!(unpack(&whole[..end], 100), Err(Unread::Malformed), "{end}");
        }
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(unpack(&wrong, 100), Err(Unread::Malformed));
        assert_eq!(unpack(&[&whole[..], &[0]].concat(), 100), Err(Unread::Malformed));
        assert_eq!(unpack(&[&whole[..], &whole[PREFIX..]].concat(), 100), Err(Unread::Malformed), "two members");
    }
}
