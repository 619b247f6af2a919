//! Housekeeping of the allocator (mimalloc). It returns memory to the system only while memory is
//! requested. A server that was busy and is idle would keep unused memory. Touches only the
//! allocator.

use std::hint::black_box;

/// More bytes than any machine has. Before the allocator refuses them, it returns all unused
/// memory.
const IMPOSSIBLE: usize = 1 << 60;

/// Returns unused memory to the system, in less than a millisecond.
pub(crate) fn give_back() {
    let refused = black_box(Vec::<u8>::new()).try_reserve_exact(IMPOSSIBLE);
    debug_assert!(refused.is_err());
}
