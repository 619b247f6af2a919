//! The problems of a policy and its files. Data only.

use std::fmt;

use crate::tokens;

/// The problems of a policy, of its tokens or of its keys. None contains a credential or a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Every problem, each with its place.
    pub problems: Vec<String>,
}

/// The number of problems in the text of an error. The rest is only counted.
const SHOWN: usize = 20;

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.problems.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
        f.write_str(&shown.join("; "))?;
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            rest => write!(f, "; and {rest} more problems"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Collects problems.
#[derive(Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// Adds a problem of this place. The file itself is the empty place.
    pub(crate) fn add(&mut self, place: &str, problem: impl fmt::Display) {
        self.0.push(if place.is_empty() { problem.to_string() } else { format!("{place}: {problem}") });
    }

    /// Adds all problems of a file.
    pub(crate) fn add_all(&mut self, place: &str, error: PolicyError) {
        error.problems.iter().for_each(|problem| self.add(place, problem));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, if there is no problem.
    pub(crate) fn or<T>(self, value: T) -> Result<T, PolicyError> {
        if self.0.is_empty() { Ok(value) } else { Err(PolicyError { problems: self.0 }) }
    }
}

/// A value of a file in quotation marks, shortened. A token in the wrong place is not shown.
pub(crate) fn quoted(text: &str) -> String {
    if tokens::is_in(text) {
        return "\"(a token)\"".to_owned();
    }
    const SHOWN: usize = 80;
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() { format!("{start:?}...") } else { format!("{start:?}") }
}
