//! Rows of CSV files: a SKU and its units, with or without a line of names. Reads the whole
//! file or standard input first: a malformed row is found before anything is sent.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use csv::{ReaderBuilder, StringRecord};

use crate::{failure::Failure, table::shown};

/// The largest file that is read, in bytes.
const MAX_CSV_BYTES: u64 = 256 * 1024 * 1024;
/// The most rows of a file.
const MAX_CSV_ROWS: usize = 1_000_000;

/// One row of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StockRow {
    /// Its line in the file, from 1.
    pub(crate) line: u64,
    /// The SKU, unchanged.
    pub(crate) sku: String,
    /// The units.
    pub(crate) units: i64,
}

/// One figure of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// The SKU.
    pub(crate) sku: String,
    /// Units available after the settlement.
    pub(crate) available: i64,
    /// Whether units of older holds return.
    pub(crate) old_holds_return: bool,
}

/// Reads the columns `sku` and `on_hand`.
pub(crate) fn stock_rows(path: &Path) -> Result<Vec<StockRow>, Failure> {
    let name = path.display().to_string();
    let rows = parse(&name, &read(path)?, &["sku", "on_hand"], 2)?;
    rows.into_iter()
        .map(|(line, fields)| {
            let units = number(&name, line, "on_hand", &fields[1])?;
            Ok(StockRow { line, sku: fields[0].clone(), units })
        })
        .collect()
}

/// Reads the columns `sku`, `available` and, if it is there, `old_holds_return`.
pub(crate) fn figures(path: &Path) -> Result<Vec<Figure>, Failure> {
    let name = path.display().to_string();
    let rows = parse(&name, &read(path)?, &["sku", "available", "old_holds_return"], 2)?;
    rows.into_iter()
        .map(|(line, fields)| {
            let old_holds_return = match fields.get(2).map(|field| field.trim()) {
                None | Some("" | "false") => false,
                Some("true") => true,
                Some(_) => return Err(malformed(&name, line, "old_holds_return is neither true nor false")),
            };
            let available = number(&name, line, "available", &fields[1])?;
            Ok(Figure { sku: fields[0].clone(), available, old_holds_return })
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |problem: &dyn std::fmt::Display| {
        Failure::usage(
            shown(&format!("can't read {}: {problem}", path.display())),
            "name a CSV file, or - for standard input",
        )
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| unreadable(&error))?)
    };
    let mut bytes = Vec::new();
    source.take(MAX_CSV_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_CSV_BYTES {
        return Err(unreadable(&format_args!("it has more than {MAX_CSV_BYTES} bytes: split it")));
    }
    Ok(bytes)
}

/// The fields of each row in the order of `columns`, of which the first `required` must be there, and its line.
fn parse(name: &str, bytes: &[u8], columns: &[&str], required: usize) -> Result<Vec<(u64, Vec<String>)>, Failure> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let (mut rows, mut seen) = (Vec::new(), HashMap::new());
    // The position of each column.
    let mut places: Vec<usize> = (0..columns.len()).collect();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, |position| line_of(bytes, position));
            malformed(name, line, "not UTF-8")
        })?;
        let line = record.position().map_or(0, |position| line_of(bytes, position));
        if i == 0
            && let Some(named) = header(&record, columns, required)
        {
            places = named;
            continue;
        }
        let fields: Vec<String> = places.iter().map_while(|&place| record.get(place)).map(str::to_owned).collect();
        if fields.len() < required || record.len() > places.len() {
            return Err(malformed(
                name,
                line,
                &format!("{} fields instead of {}", record.len(), columns[..required].join(",")),
            ));
        }
        if let Some(first) = seen.insert(fields[0].clone(), line) {
            return Err(malformed(name, line, &format!("SKU {:?} is in line {first} too", fields[0])));
        }
        rows.push((line, fields));
        if rows.len() > MAX_CSV_ROWS {
            return Err(malformed(name, line, &format!("more than {MAX_CSV_ROWS} rows: split the file")));
        }
    }
    if rows.is_empty() {
        return Err(malformed(name, 1, "no row"));
    }
    Ok(rows)
}

/// The line of a record. Its position is that before the empty lines which are skipped in front of it.
fn line_of(bytes: &[u8], position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).unwrap_or(bytes.len()).min(bytes.len());
    let skipped = bytes[from..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + skipped.filter(|&&byte| byte == b'\n').count() as u64
}

/// The position of each column, if this line is a header.
fn header(record: &StringRecord, columns: &[&str], required: usize) -> Option<Vec<usize>> {
    let place = |column: &&str| record.iter().position(|field| field.trim().eq_ignore_ascii_case(column));
    let places: Vec<usize> = columns.iter().map_while(place).collect();
    (places.len() >= required && places.len() == record.len()).then_some(places)
}

fn number(name: &str, line: u64, column: &str, text: &str) -> Result<i64, Failure> {
    text.trim().parse().map_err(|_| malformed(name, line, &format!("{column} is {text:?} and no whole number")))
}

fn malformed(name: &str, line: u64, problem: &str) -> Failure {
    let what = shown(&format!("{name}, line {line}: {problem}; nothing was changed"));
    Failure::usage(what, "correct the file, and repeat the command")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<(u64, Vec<String>)>, Failure> {
        parse("f.csv", text.as_bytes(), &["sku", "on_hand"], 2)
    }

    fn found(text: &str) -> Vec<(u64, String, String)> {
        let rows = rows(text).unwrap_or_else(|failure| panic!("{text:?}: {failure}"));
        rows.into_iter().map(|(line, mut fields)| (line, fields.remove(0), fields.remove(0))).collect()
    }

    #[test]
    fn a_line_of_names_is_optional() {
        let one = |line, sku: &str| vec![(line, sku.to_owned(), "3".to_owned())];
        assert_eq!(found("ps5,3\n"), one(1, "ps5"));
        assert_eq!(found("sku,on_hand\nps5,3"), one(2, "ps5"));
        assert_eq!(found("On_Hand, SKU\r\n3,ps5\r\n"), one(2, "ps5"));
        assert_eq!(found("\u{feff}sku,on_hand\n\n\"a, \"\"b\"\" / ü\",3\n"), one(3, "a, \"b\" / ü"));
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        for (text, expected) in [
            ("a,1\nb\n", "line 2: 1 fields"),
            ("a,1,2\n", "line 1: 3 fields"),
            ("a,1\n\nb,2\na,3\n", "line 4: SKU \"a\" is in line 1 too"),
            ("", "line 1: no row"),
            ("sku,on_hand\n", "no row"),
        ] {
            let failure = rows(text).expect_err(text);
            assert!(failure.to_string().contains(expected), "{failure}");
            assert_eq!(failure.code(), Failure::USAGE);
        }
        let failure = parse("f.csv", b"a,1\n\xff,2\n", &["sku", "on_hand"], 2).expect_err("no text");
        assert!(failure.to_string().contains("line 2: not UTF-8"), "{failure}");
        assert!(number("f.csv", 7, "on_hand", "1.5").is_err() && number("f.csv", 7, "on_hand", " 5 ").is_ok());
    }
}
