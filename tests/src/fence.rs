//! STORE_FENCED: the content of the refusal, and the wait until a server has noticed a loss.

use std::fmt::Debug;

use inventory_sentinel::{Reason, v1};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{assert_refused, eventually, model::execute::may_repeat, reason};

/// The metadata of STORE_FENCED.
#[derive(Clone, Debug, PartialEq)]
pub struct Fence {
    /// The partition.
    pub partition: i32,
    /// The newest change that was acknowledged and is lost.
    pub seen: v1::HistoryPoint,
    /// The last sequence of that term that the store still has.
    pub kept_sequence: i64,
}

/// Checks that a call was refused as STORE_FENCED with all of its metadata.
pub fn assert_fenced<T: Debug>(result: Result<T, Status>) -> Fence {
    let status = result.expect_err("STORE_FENCED");
    assert_refused(Err::<(), _>(status.clone()), Reason::StoreFenced, None);
    let metadata = status.get_details_error_info().expect("an ErrorInfo").metadata;
    let text = |name: &str| metadata.get(name).unwrap_or_else(|| panic!("no {name} in {metadata:?}"));
    let number = |name: &str| text(name).parse().unwrap_or_else(|_| panic!("{name} is no number in {metadata:?}"));
    let fence = Fence {
        partition: number("partition") as i32,
        seen: v1::HistoryPoint {
            epoch: number("seen_epoch"),
            term: text("seen_term").clone(),
            sequence: number("seen_sequence"),
        },
        kept_sequence: number("kept_sequence"),
    };
    assert_point(&fence.seen);
    assert!((0..fence.seen.sequence).contains(&fence.kept_sequence), "{fence:?}");
    fence
}

/// Checks the position in a history: its epoch, the name of its term, its sequence.
pub fn assert_point(point: &v1::HistoryPoint) {
    assert!(point.epoch > 0 && point.sequence > 0, "{point:?}");
    let is_hex = |name: &str| name.len() == 40 && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    assert!(is_hex(&point.term), "{point:?}");
}

/// Repeats a call until it is refused as STORE_FENCED. Before that the store may be unavailable; every other answer
/// fails the test, whichever try gets it.
pub async fn until_fenced<T: Debug>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Status>) -> Fence {
    eventually(&format!("{what} is STORE_FENCED"), async || match call().await {
        Err(status) if may_repeat(&status) => None,
        Err(status) if reason(&status) == Reason::StoreFenced => Some(assert_fenced(Err::<(), _>(status))),
        answer => panic!("{what} of a store that lost changes: {answer:?}"),
    })
    .await
}
