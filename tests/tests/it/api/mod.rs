//! The form of a call: fields, bytes on the wire, and the reason of each refusal.

mod input;
mod refusals;
mod wire;
