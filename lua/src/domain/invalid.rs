//! Why a field of a request is refused. Plain data, no I/O.

use inventory_sentinel::Reason;

/// A field of a request that is refused, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The reason of the catalogue.
    pub reason: Reason,
    /// The path of the field in the request, as `BadRequest` names it.
    pub field: String,
    /// A detail, for example the limit; may be empty.
    pub detail: String,
}

impl Invalid {
    /// Refuses this field for this reason.
    pub fn new(reason: Reason, field: impl Into<String>) -> Self {
        Self { reason, field: field.into(), detail: String::new() }
    }

    /// Adds a detail.
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}
