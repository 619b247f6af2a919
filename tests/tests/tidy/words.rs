//! Words that the project does not use. They make prose hard to read: verbs of speech for data, vague verbs for
//! processing steps, and phrases that are not idiomatic English.
//!
//! Every text is checked: prose, strings and identifiers. Identifiers are split at `_` and at case boundaries.
//! Names of test functions are exempt. Every exception has a reason.

use std::collections::HashSet;

use crate::{Finding, tree::File};

/// Each word with what to write instead.
const WORDS: &[(&str, &str)] = &[
    ("anew", "again"),
    ("ask", "request"),
    ("asked", "requested"),
    ("asking", "requesting"),
    ("asks", "requests"),
    ("befalls", "happens to"),
    ("books", "counters, accounts"),
    ("carried", "contained, moved"),
    ("carries", "contains, moves"),
    ("carry", "contain, move"),
    ("goes", "is sent, moves"),
    ("he", "they"),
    ("hear", "receive"),
    ("heard", "received"),
    ("hears", "receives"),
    ("heed", "obey"),
    ("her", "their"),
    ("him", "them"),
    ("his", "their"),
    ("knows", "has, stores"),
    ("lies", "is stored"),
    ("look", "read, lookup"),
    ("looked", "read"),
    ("looks", "reads"),
    ("meets", "encounters"),
    ("said", "stated"),
    ("say", "state, print"),
    ("says", "states, contains"),
    ("she", "they"),
    ("stand", "is"),
    ("stands", "is"),
    ("tell", "return, report"),
    ("tells", "returns, reports"),
    ("told", "returned, reported"),
    ("wants", "needs"),
    ("wear", "use"),
    ("worn", "used"),
];

const PHRASES: &[(&str, &str)] = &[
    ("be it that", "unless, except"),
    ("by itself", "automatically, alone"),
    ("of its own", "separate"),
    ("of our own", "separate"),
    ("of ours", "of this project"),
    ("of theirs", "separate"),
    ("the way of", "the path of"),
];

/// Openings of a clause that is the subject of a sentence: "What is malformed is refused".
const SUBJECTS: &[&str] = &["Who ", "What "];

/// Texts that keep a banned word, each with the reason.
const ALLOWED: &[(&str, &str)] = &[
    ("sold out, looked up", "the name of a row of the benchmarks, which reports of other builds have too"),
    ("soldout_looked_up", "the same"),
    ("sold_out_looked_up", "the same"),
    ("batch_look_up_only", "the same"),
    ("looked_up", "the end of these names"),
    ("looked up*", "the same row, in the page of the benchmarks"),
    ("LATE_POLICY_BUY_ANEW", "a former name, in the list of changes"),
    ("bought_anew", "the same"),
    ("asked_", "the same"),
    ("\"ASK\"", "an error code of Redis"),
    ("wants_write", "a method of the TLS library"),
];

/// This folder lists the words.
const LISTS: &str = "tests/tests/tidy/";

/// The names of all test functions: they may be whole sentences.
pub(crate) fn test_names(files: &[File]) -> HashSet<String> {
    let mut names = HashSet::new();
    for file in files.iter().filter(|file| file.extension() == "rs") {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with("#[") && (line.contains("test]") || line.contains("test(")) {
                is_test = true;
            } else if is_test && line.contains("fn ") {
                names.extend(identifiers(line.split("fn ").nth(1).unwrap_or_default()).next().map(str::to_owned));
                is_test = false;
            }
        }
    }
    names
}

fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|identifier| !identifier.is_empty())
}

/// The words of an identifier, in lower case: `HeardAll`, `heard_all` and `HEARD_ALL` have the same two.
fn words(identifier: &str) -> Vec<String> {
    let characters: Vec<char> = identifier.chars().collect();
    let mut words = vec![String::new()];
    for (i, &c) in characters.iter().enumerate() {
        let after_lower = i > 0 && characters[i - 1].is_ascii_lowercase();
        let before_lower = characters.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let after_upper = i > 0 && characters[i - 1].is_ascii_uppercase();
        if !c.is_ascii_alphabetic() || c.is_ascii_uppercase() && (after_lower || after_upper && before_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphabetic()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

/// The prose of a line without markers of comments.
fn prose(line: &str) -> &str {
    line.trim_start().trim_start_matches(['/', '!', '#', '-', '*', ' ', '<', '>', '|'])
}

/// Whether the line opens a sentence whose subject is a clause. A question may: it ends with a question mark.
fn has_clause_as_subject(line: &str) -> bool {
    // The title of a page, a heading or a label is no sentence.
    if ["<!--", "#", "**"].iter().any(|title| line.starts_with(title) && line.contains("hat "))
        && !line.starts_with("# W")
    {
        return false;
    }
    let text = prose(line);
    let opens = |text: &str| SUBJECTS.iter().any(|subject| text.starts_with(subject)) && !text.contains('?');
    let is_prose = text.len() < line.len() && text.split(' ').count() > 3;
    is_prose && opens(text)
        || text.split(". ").skip(1).any(|sentence| sentence.split(' ').count() > 3 && opens(sentence))
}

pub(crate) fn check(file: &File, test_names: &HashSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.path.starts_with(LISTS) {
        return findings;
    }
    for (line, text) in (1..).zip(file.text.lines()) {
        let text = &ALLOWED.iter().fold(text.to_owned(), |text, (allowed, _)| text.replace(allowed, " "));
        let mut found = |text: String| findings.push(Finding { line, text });
        for identifier in identifiers(text) {
            if test_names.contains(identifier) {
                continue;
            }
            for word in words(identifier) {
                if let Some((_, instead)) = WORDS.iter().find(|(banned, _)| *banned == word) {
                    found(format!("`{word}` in `{identifier}`: write {instead}"));
                }
            }
        }
        let lower = text.to_lowercase();
        for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| has_phrase(&lower, phrase)) {
            found(format!("`{phrase}`: write {instead}"));
        }
        if has_clause_as_subject(text) {
            found("a clause as the subject of a sentence: name the subject".to_owned());
        }
    }
    findings
}

fn has_phrase(line: &str, phrase: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(phrase).any(|(at, _)| {
        !is_letter(line[..at].chars().next_back()) && !is_letter(line[at + phrase.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let file = File::new("server/src/a.rs", text);
        check(&file, &test_names(&[File::new("a.rs", text)])).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_word_is_found_in_prose_strings_and_names() {
        assert_eq!(lines("// He asks it.\nlet a = \"told\";\nfn set_heard() {}\nstruct HeardAll;"), [1, 1, 2, 3, 4]);
        assert_eq!(lines("// The tellers of the heart, other."), [0; 0]);
        assert_eq!(lines("// It runs by itself.\n// Works of ourselves."), [1]);
    }

    #[test]
    fn a_clause_as_a_subject_is_found() {
        assert_eq!(
            lines("// What is malformed is refused.\n// It ends. Who waits is served later.\n// What is it?"),
            [1, 2]
        );
    }

    #[test]
    fn names_of_tests_and_of_rows_are_exempt() {
        assert_eq!(lines("#[tokio::test]\nasync fn a_caller_is_told_once() {}\nfn is_told() {}"), [3]);
        assert_eq!(lines("fast(\"unary, sold out, looked up\")"), [0; 0]);
    }

    #[test]
    fn every_exception_has_a_reason() {
        assert!(ALLOWED.iter().all(|(_, reason)| !reason.is_empty()));
    }
}
