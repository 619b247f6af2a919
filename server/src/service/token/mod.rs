//! The opaque texts that callers send back: page tokens of lists, and resume tokens of streams.
//! Their formats differ, and both are stable across releases. No I/O.

pub(super) mod page;
pub(super) mod resume;
