//! The output of commands: aligned tables for humans, one JSON object a line for programs. Writes to standard output.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use serde::Serialize;

use crate::table::{Column, Table, shown};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object a line; the default where standard output is no terminal.
    #[arg(long, global = true, conflicts_with = "table", help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print tables; the default where standard output is a terminal.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) table: bool,
}

/// The standard output of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    is_json: bool,
    is_terminal: bool,
}

/// A result: one line of a table, or one JSON object whose keys are the names of the fields in proto/.
pub(crate) trait Row: Serialize {
    /// The columns of the table.
    const COLUMNS: &'static [Column];

    /// The cells of the columns.
    fn cells(&self) -> Vec<String>;
}

impl Output {
    pub(crate) fn new(args: OutputArgs) -> Output {
        let is_terminal = io::stdout().is_terminal();
        Output { is_json: args.json || (!args.table && !is_terminal), is_terminal }
    }

    pub(crate) fn is_json(self) -> bool {
        self.is_json
    }

    /// Whether a table can be drawn again in its place.
    pub(crate) fn can_redraw(self) -> bool {
        self.is_terminal && !self.is_json
    }

    /// Prints one object.
    pub(crate) fn json(self, object: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(object)?;
        line.push('\n');
        write(&line)
    }

    /// Prints one result.
    pub(crate) fn row<R: Row>(self, row: &R) -> io::Result<()> {
        let mut listing = self.listing();
        listing.push(row)?;
        listing.end()
    }

    /// Prints a result with all its fields, one a line of the table.
    pub(crate) fn details(self, object: &impl Serialize, fields: &[(&str, String)]) -> io::Result<()> {
        if self.is_json {
            return self.json(object);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: String = fields.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
        write(&lines)
    }

    /// Begins a list. Lines of JSON are printed at once, a table at its end.
    pub(crate) fn listing(self) -> Listing {
        Listing { output: self, table: None }
    }

    /// A sentence beside the table; not printed with JSON.
    pub(crate) fn remark(self, text: &str) -> io::Result<()> {
        if self.is_json { Ok(()) } else { write(&format!("{}\n", shown(text))) }
    }

    /// Prints text as it is, in one piece.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        write(text)
    }
}

/// A list that is being printed.
pub(crate) struct Listing {
    output: Output,
    table: Option<Table>,
}

impl Listing {
    pub(crate) fn push<R: Row>(&mut self, row: &R) -> io::Result<()> {
        if self.output.is_json {
            return self.output.json(row);
        }
        self.table.get_or_insert_with(|| Table::new(R::COLUMNS)).push(row.cells());
        Ok(())
    }

    /// Prints the table, if there is one.
    pub(crate) fn end(self) -> io::Result<()> {
        match self.table {
            Some(table) => write(&table.to_string()),
            None => self.output.remark("none"),
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A sentence for humans on standard error.
pub(crate) fn note(text: &str) {
    // Without a standard error the note is dropped.
    let _ = writeln!(io::stderr(), "note: {}", shown(text));
}
