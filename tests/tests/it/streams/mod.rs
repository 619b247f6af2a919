//! The streams of events, of stock and of protection.

pub(crate) mod events;
pub(crate) mod stock;
