//! HTTP/2 frames, header blocks and gRPC messages as bytes. Builds bytes and reads frame headers; opens nothing and
//! keeps no state.

/// The first bytes of every connection of a client.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 9;
/// The largest payload that a peer takes by default, in bytes.
pub(super) const MAX_PAYLOAD: usize = 16_384;
/// The window of a connection and of a stream before any SETTINGS or WINDOW_UPDATE, in bytes.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;
/// The largest window of HTTP/2, in bytes.
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Types of frames.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
    /// A type that no standard defines.
    pub(in super::super) const UNKNOWN: u8 = 0xee;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in super::super) const NONE: u8 = 0;
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
}

/// Identifiers of settings.
pub(super) mod setting {
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// The error code CANCEL.
const CANCEL: u32 = 8;

/// Appends a frame.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a SETTINGS frame.
pub(super) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(out, kind::SETTINGS, flag::NONE, 0, &payload);
}

/// Appends a WINDOW_UPDATE frame.
pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    frame(out, kind::WINDOW_UPDATE, flag::NONE, stream, &bytes.to_be_bytes());
}

/// Appends an RST_STREAM frame.
pub(super) fn reset(out: &mut Vec<u8>, stream: u32) {
    frame(out, kind::RST_STREAM, flag::NONE, stream, &CANCEL.to_be_bytes());
}

/// A gRPC message: its five bytes of prefix and its body.
pub(super) fn message(body: &[u8]) -> Vec<u8> {
    [&prefix(body.len())[..], body].concat()
}

/// The prefix of a gRPC message of so many bytes.
pub(super) fn prefix(bytes: usize) -> [u8; 5] {
    let [a, b, c, d] = (bytes as u32).to_be_bytes();
    [0, a, b, c, d]
}

/// The header block of a gRPC call.
pub(super) fn call_block(path: &str) -> Vec<u8> {
    // `:method: POST`, `:scheme: http` and names of the static table; values as plain literals.
    let mut block = vec![0x83, 0x86, 0x04];
    string(&mut block, path.as_bytes());
    block.push(0x01);
    string(&mut block, b"localhost");
    // `content-type` has the index 31.
    integer(&mut block, 0, 4, 31);
    string(&mut block, b"application/grpc");
    literal(&mut block, b"te", b"trailers");
    block
}

/// Appends a header field with a name and a unique value, which is not put into the dynamic table.
pub(super) fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    string(block, name);
    string(block, value);
}

/// Appends a header field that is put into the dynamic table.
pub(super) fn indexed_literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x40);
    string(block, name);
    string(block, value);
}

/// The newest entry of the dynamic table as a header field.
pub(super) const NEWEST_ENTRY: u8 = 0x80 | 62;

fn string(block: &mut Vec<u8>, value: &[u8]) {
    integer(block, 0, 7, value.len());
    block.extend_from_slice(value);
}

/// An integer of HPACK behind the pattern in the upper bits of its first byte.
fn integer(block: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        block.push(pattern | value as u8);
        return;
    }
    block.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }
}

/// The four bytes at the start of a payload as a number.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*payload.first_chunk()?))
}

/// The name of an error code.
pub(super) fn error_name(code: u32) -> String {
    let name = match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => return format!("code {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        window_update(&mut bytes, 7, 1_000);
        let head = Head::read(bytes.first_chunk().unwrap());
        assert_eq!(head, Head { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream: 7 });
        assert_eq!(number(&bytes[HEADER_BYTES..]), Some(1_000));
    }

    /// The example of RFC 7541, section C.1.
    #[test]
    fn integers_are_those_of_hpack() {
        let mut bytes = Vec::new();
        integer(&mut bytes, 0, 5, 10);
        integer(&mut bytes, 0, 5, 1337);
        assert_eq!(bytes, [10, 31, 154, 10]);
    }
}
