//! Reads the fields of a TOML table and collects the problems of all of them. A key that nobody reads is a problem.
//! Never prints a value: a secret may be in the wrong field.

use toml::{Table, Value};

use crate::{
    names::is_name,
    problems::{PolicyError, Problems, quoted},
};

/// Parses a file. The error has the position, but no text of the file.
pub(crate) fn parse(text: &str, max_bytes: usize) -> Result<Table, PolicyError> {
    let problem = if text.len() > max_bytes {
        format!("the file has more than {max_bytes} bytes")
    } else {
        match text.parse::<Table>() {
            Ok(table) => return Ok(table),
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
                format!("line {line}, column {column}: no valid TOML")
            }
        }
    };
    Err(PolicyError { problems: vec![problem] })
}

/// The unread fields of a table.
pub(crate) struct Fields<'a> {
    place: String,
    table: Table,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(place: impl Into<String>, table: Table, problems: &'a mut Problems) -> Self {
        Self { place: place.into(), table, problems }
    }

    /// Adds a problem of this table.
    pub(crate) fn problem(&mut self, problem: impl std::fmt::Display) {
        self.problems.add(&self.place, problem);
    }

    /// Where the problems of other tables are added.
    pub(crate) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Takes a field as it is.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    /// A text that may be absent, but not empty.
    pub(crate) fn optional_text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => return Some(text),
            Value::String(_) => self.problem(format_args!("`{key}` is empty")),
            _ => self.problem(format_args!("`{key}` is no string")),
        }
        None
    }

    /// A text that must be present and not empty.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.problem(format_args!("`{key}` is missing"));
        }
        self.optional_text(key)
    }

    /// A list of texts that must be present and have an entry.
    pub(crate) fn texts(&mut self, key: &str) -> Vec<String> {
        match self.table.get(key) {
            None => self.problem(format_args!("`{key}` is missing")),
            Some(Value::Array(values)) if values.is_empty() => self.problem(format_args!("`{key}` has no entry")),
            Some(_) => {}
        }
        self.optional_texts(key)
    }

    /// A list of texts, none of them empty. An absent key is an empty list.
    pub(crate) fn optional_texts(&mut self, key: &str) -> Vec<String> {
        let values = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(_) => {
                self.problem(format_args!("`{key}` is no list of strings"));
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(values.len());
        for (number, value) in (1..).zip(values) {
            match value {
                Value::String(text) if !text.is_empty() => texts.push(text),
                Value::String(_) => self.problem(format_args!("`{key}` {number} is empty")),
                _ => self.problem(format_args!("`{key}` {number} is no string")),
            }
        }
        texts
    }

    /// A list of tables, at most `max`. Empty if the key is absent.
    pub(crate) fn tables(&mut self, key: &str, max: usize) -> Vec<Table> {
        let values = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(_) => {
                self.problem(format_args!("`{key}` is no list of tables"));
                return Vec::new();
            }
        };
        if values.len() > max {
            self.problem(format_args!("{} entries of `{key}`, {max} at most", values.len()));
            return Vec::new();
        }
        let mut tables = Vec::with_capacity(values.len());
        for (number, value) in (1..).zip(values) {
            match value {
                Value::Table(table) => tables.push(table),
                _ => self.problem(format_args!("`{key}` {number} is no table")),
            }
        }
        tables
    }

    /// Adds a problem for each field that was not read.
    pub(crate) fn finish(self) {
        for key in self.table.keys() {
            match is_name(key) {
                true => self.problems.add(&self.place, format_args!("unknown key {}", quoted(key))),
                false => self.problems.add(&self.place, "unknown key"),
            }
        }
    }
}
