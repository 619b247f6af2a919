//! The history of a partition as bytes: claims, the fence, the state record. Pure, no I/O.

use tokio::time::Instant;

use crate::bytes::{ByteReader, put_u48};
use crate::codes::{
    GateMode, VerdictCode,
    state_flags::{EMPTIED, GATED},
};
use crate::domain::{Clock, Fence, FenceId, HistoryPoint, Knowledge, StoreTime, Term, Verdict};

/// The versions of a state record, in namespaces of format 2 and 3. Fields of both have the same offset in both.
pub(crate) const STATE_VERSIONS: [u8; 2] = [2, 3];
/// The length of a state record in a namespace of format 1, which has no version.
const STATE_LENGTH_1: usize = 51;
/// The number of bytes between the sequence of a state record and the first sequence of its term, which precedes its
/// flags.
const UP_TO_FLAGS: usize = 6 + 8 + 1 + 6 * 4;

/// The knowledge as an argument of the script, for a connection to a store that has this replication id. Its first
/// letter is in upper case if the replication id names the term of the only claim. Then the script need not read the id
/// for each change. The end contains the expected instant of the partition's clock, so call this just before the call
/// is sent.
pub(crate) fn encode_knowledge(knowledge: &Knowledge, replid: Option<Term>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + knowledge.claims.len() * (12 + Term::LENGTH) + 6);
    let gates = if knowledge.gates { GateMode::Gates } else { GateMode::DoesNotGate }.byte();
    let is_same_run = matches!(knowledge.claims.as_slice(), [claim] if Some(claim.term) == replid);
    out.push(if is_same_run { gates.to_ascii_uppercase() } else { gates });
    for claim in &knowledge.claims {
        put_u48(&mut out, claim.epoch);
        out.extend_from_slice(claim.term.as_bytes());
        put_u48(&mut out, claim.sequence);
    }
    let expected = knowledge.reading.and_then(|reading| reading.expected(Instant::now()));
    put_u48(&mut out, expected.map_or(0, |at| at.0));
    out
}

/// The fence in a reply; `None` inside: the partition has none.
pub(crate) fn fence_from(bytes: &[u8], clock: Clock) -> Option<Option<Fence>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let mut bytes = ByteReader(bytes);
    let is_gated = bytes.u8()? & GATED != 0;
    let noticed_at = clock.time_of_day(StoreTime(bytes.u48()?));
    let seen = bytes.history_point()?;
    let kept = bytes.u48()?;
    Some(Some(Fence { noticed_at, seen, kept, id: FenceId::parse(bytes.0)?, is_gated }))
}

/// The verdicts in a reply, in the order of the claims; empty if all are part of the history.
pub(crate) fn verdicts_from(bytes: &[u8]) -> Option<Vec<Verdict>> {
    let verdict = |byte: &u8| {
        Some(match VerdictCode::from_byte(*byte)? {
            VerdictCode::Part => Verdict::Part,
            VerdictCode::Settled => Verdict::Settled,
            VerdictCode::Unproven => Verdict::Unproven,
            VerdictCode::Lost => Verdict::Lost,
        })
    };
    bytes.iter().map(verdict).collect()
}

/// The position of a partition in its history, and whether it is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Its last change.
    pub at: HistoryPoint,
    /// Whether it lost changes and was not settled.
    pub is_fenced: bool,
}

/// Decodes the state record of a partition.
pub fn state_from(record: &[u8]) -> Option<PartitionState> {
    let mut bytes = ByteReader(record);
    if record.len() == STATE_LENGTH_1 {
        let at = HistoryPoint { epoch: bytes.u48()?, term: Term::NONE, sequence: bytes.u48()? };
        return Some(PartitionState { at, is_fenced: false });
    }
    if !STATE_VERSIONS.contains(&bytes.u8()?) {
        return None;
    }
    let at = bytes.history_point()?;
    bytes.take(UP_TO_FLAGS)?;
    let _first_of_term = bytes.u48()?;
    Some(PartitionState { at, is_fenced: bytes.u8()? & (GATED | EMPTIED) != 0 })
}

impl ByteReader<'_> {
    /// Epoch, term and sequence.
    pub(crate) fn history_point(&mut self) -> Option<HistoryPoint> {
        Some(HistoryPoint { epoch: self.u48()?, term: self.term()?, sequence: self.u48()? })
    }

    /// The name of a term.
    pub(crate) fn term(&mut self) -> Option<Term> {
        Term::parse(self.take(Term::LENGTH)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_its_place_in_either_format() {
        let old: Vec<u8> = [&[0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 1, 2][..], &[0; 39]].concat();
        let at = HistoryPoint { epoch: 7, term: Term::NONE, sequence: 258 };
        assert_eq!(state_from(&old), Some(PartitionState { at, is_fenced: false }));
        let term = Term::parse(&[b'a'; 40]).expect("a term");
        let state = |flags: u8| {
            [&[2, 0, 0, 0, 0, 0, 7][..], term.as_bytes(), &[0, 0, 0, 0, 1, 2], &[0; 39], &[0; 6], &[flags], &[0; 6]]
                .concat()
        };
        assert_eq!(state(0).len(), 105);
        let at = HistoryPoint { term, ..at };
        for (flags, is_fenced) in [(0, false), (1, true), (2, true), (4, false), (8, false), (13, true)] {
            assert_eq!(state_from(&state(flags)), Some(PartitionState { at, is_fenced }), "{flags}");
        }
        assert_eq!(state_from(&state(0)[..60]), None);
        assert_eq!(state_from(&[9; 105]), None);
    }

    #[test]
    fn knowledge_says_whether_the_process_is_the_same() {
        let term = |digit: u8| Term::parse(&[digit; 40]).expect("a term");
        let claim = |digit| HistoryPoint { epoch: 7, term: term(digit), sequence: 258 };
        let mode = |gates, claims: &[_], replid| {
            let encoded = encode_knowledge(&Knowledge { gates, claims: claims.to_vec(), reading: None }, replid);
            assert_eq!(encoded.len(), 1 + 52 * claims.len() + 6);
            assert_eq!(encoded[encoded.len() - 6..], [0; 6]);
            encoded[0]
        };
        assert_eq!(mode(true, &[claim(b'a')], Some(term(b'a'))), b'G');
        assert_eq!(mode(false, &[claim(b'a')], Some(term(b'a'))), b'N');
        assert_eq!(mode(true, &[claim(b'a')], Some(term(b'b'))), b'g');
        assert_eq!(mode(true, &[claim(b'a'), claim(b'b')], Some(term(b'a'))), b'g');
        assert_eq!((mode(true, &[claim(b'a')], None), mode(true, &[], Some(term(b'a')))), (b'g', b'g'));
    }

    #[test]
    fn a_term_is_forty_hexadecimal_digits() {
        assert!(Term::parse(&[b'f'; 40]).is_some());
        for bad in [&[b'g'; 40][..], &[b'F'; 40], &[b'a'; 39], &[b'a'; 41]] {
            assert_eq!(Term::parse(bad), None);
        }
    }
}
