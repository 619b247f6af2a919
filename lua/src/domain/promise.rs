//! The promises that an OK of the service depends on, with the result of their last check. Plain data, no I/O.

use std::fmt;

/// Whether something that an OK depends on holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromiseState {
    /// It holds.
    Kept,
    /// It does not hold.
    Broken,
    /// It could not be checked, or this server does not make this promise.
    NotChecked,
}

/// One thing that an OK depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub state: PromiseState,
    /// For people: the finding, or why it was not checked, and the remedy.
    pub detail: String,
}

impl Promise {
    /// It holds.
    pub fn kept(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: PromiseState::Kept, detail: detail.into() }
    }

    /// It does not hold.
    pub fn broken(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: PromiseState::Broken, detail: detail.into() }
    }

    /// It could not be checked, or does not apply.
    pub fn not_checked(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: PromiseState::NotChecked, detail: detail.into() }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            PromiseState::Kept => "kept",
            PromiseState::Broken => "broken",
            PromiseState::NotChecked => "not checked",
        };
        write!(f, "{}: {state}: {}", self.name, self.detail)
    }
}
