//! The policy file: identities, their credentials and their grants. Pure: parses a text, reads no file.
//!
//! Everything is checked before anything is used. The error lists all problems, so that one correction is enough.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use jsonwebtoken::Algorithm;
use toml::{Table, Value};

use crate::{
    Grant, Identity, PolicyError, Role, Scope,
    fields::{self, Fields},
    jwt::algorithm,
    limits::{MAX_GRANTS, MAX_IDENTITIES, MAX_ISSUERS, MAX_LEEWAY_SECONDS, MAX_POLICY_BYTES},
    names,
    problems::{Problems, quoted},
};

const DEFAULT_LEEWAY_SECONDS: u64 = 30;

/// A valid policy file, without the files that it names.
pub struct Policy {
    pub(crate) tokens_file: Option<String>,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) entries: Vec<Entry>,
}

/// An issuer of JSON Web Tokens.
pub(crate) struct Issuer {
    pub(crate) name: String,
    pub(crate) audiences: HashSet<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) jwks_file: String,
    pub(crate) leeway: Duration,
}

/// An identity with its credentials.
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    pub(crate) certificates: Vec<String>,
    pub(crate) subjects: Vec<Subject>,
}

/// A subject of an issuer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) issuer: String,
    pub(crate) name: String,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("issuers", &self.issuers.len())
            .field("identities", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Parses the text of a policy file. The error has all problems of the file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut problems = Problems::default();
        let mut file = Fields::new("", fields::parse(text, MAX_POLICY_BYTES)?, &mut problems);
        let tokens_file = file.optional_text("tokens_file");
        let issuers = file.tables("issuer", MAX_ISSUERS);
        let identities = file.tables("identity", MAX_IDENTITIES);
        file.finish();
        let issuers = parse_issuers(issuers, &mut problems);
        let entries = (1..)
            .zip(identities)
            .map(|(number, table)| parse_entry(Fields::new(place("identity", number, &table), table, &mut problems)))
            .collect();
        let policy = Self { tokens_file, issuers, entries };
        policy.check_unique(&mut problems);
        problems.or(policy)
    }

    /// Every name and credential belongs to one identity, and every subject to an issuer of the policy.
    fn check_unique(&self, problems: &mut Problems) {
        let issuers: HashSet<&str> = self.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let mut names = HashMap::new();
        let mut certificates = HashMap::new();
        let mut subjects = HashMap::new();
        for (number, entry) in (1..).zip(&self.entries) {
            let place = place_of("identity", number, &entry.identity.name);
            if let Some(first) = names.insert(entry.identity.name.as_str(), number)
                && !entry.identity.name.is_empty()
            {
                problems.add(&place, format_args!("identity {first} has the same name"));
            }
            for certificate in &entry.certificates {
                if let Some(first) = certificates.insert(certificate.as_str(), number) {
                    problems.add(
                        &place,
                        format_args!("certificate {} is already used by identity {first}", quoted(certificate)),
                    );
                }
            }
            for subject in &entry.subjects {
                let Subject { issuer, name } = subject;
                if !issuers.contains(issuer.as_str()) {
                    problems.add(&place, format_args!("subject {}: unknown issuer {}", quoted(name), quoted(issuer)));
                }
                if let Some(first) = subjects.insert(subject, number) {
                    problems.add(
                        &place,
                        format_args!(
                            "subject {} of {} is already used by identity {first}",
                            quoted(name),
                            quoted(issuer)
                        ),
                    );
                }
            }
        }
    }
}

fn place_of(kind: &str, number: usize, name: &str) -> String {
    if name.is_empty() { format!("{kind} {number}") } else { format!("{kind} {}", quoted(name)) }
}

/// The place of a table: its name, or its number if it has none.
fn place(kind: &str, number: usize, table: &Table) -> String {
    let key = if kind == "issuer" { "issuer" } else { "name" };
    place_of(kind, number, table.get(key).and_then(Value::as_str).unwrap_or_default())
}

fn parse_issuers(tables: Vec<Table>, problems: &mut Problems) -> Vec<Issuer> {
    let mut names = HashSet::new();
    let mut issuers = Vec::new();
    for (number, table) in (1..).zip(tables) {
        let mut fields = Fields::new(place("issuer", number, &table), table, problems);
        let name = fields.text("issuer").unwrap_or_default();
        if !name.is_empty() && !names.insert(name.clone()) {
            fields.problem("another issuer has the same name");
        }
        issuers.push(parse_issuer(name, fields));
    }
    issuers
}

fn parse_issuer(name: String, mut fields: Fields<'_>) -> Issuer {
    let mut audiences = HashSet::new();
    for audience in fields.texts("audiences") {
        if let Some(duplicate) = audiences.replace(audience) {
            fields.problem(format_args!("audience {} is listed twice", quoted(&duplicate)));
        }
    }
    let mut algorithms = Vec::new();
    for name in fields.texts("algorithms") {
        match algorithm::parse(&name) {
            Ok(algorithm) if algorithms.contains(&algorithm) => {
                fields.problem(format_args!("algorithm {} is listed twice", quoted(&name)));
            }
            Ok(algorithm) => algorithms.push(algorithm),
            Err(problem) => fields.problem(format_args!("algorithm {}: {problem}", quoted(&name))),
        }
    }
    let jwks_file = fields.text("jwks_file").unwrap_or_default();
    let leeway = parse_leeway(&mut fields);
    fields.finish();
    Issuer { name, audiences, algorithms, jwks_file, leeway }
}

fn parse_leeway(fields: &mut Fields<'_>) -> Duration {
    let seconds = match fields.take("leeway_seconds") {
        None => Some(DEFAULT_LEEWAY_SECONDS),
        Some(value) => value.as_integer().and_then(|seconds| u64::try_from(seconds).ok()),
    };
    match seconds {
        Some(seconds) if seconds <= MAX_LEEWAY_SECONDS => return Duration::from_secs(seconds),
        _ => fields.problem(format_args!("`leeway_seconds` is no whole number from 0 to {MAX_LEEWAY_SECONDS}")),
    }
    Duration::ZERO
}

fn parse_entry(mut fields: Fields<'_>) -> Entry {
    let name = fields.text("name").unwrap_or_default();
    if !name.is_empty() && !names::is_name(&name) {
        fields.problem("a name has 1 to 63 of A-Z a-z 0-9 . _ -");
    }
    let certificates = fields.optional_texts("certificates");
    for certificate in &certificates {
        if let Err(problem) = names::check_certificate(certificate) {
            fields.problem(format_args!("certificate {}: {problem}", quoted(certificate)));
        }
    }
    let listed = fields.tables("subjects", MAX_IDENTITIES);
    let subjects = each(&mut fields, "subject", listed, parse_subject);
    let listed = fields.tables("grants", MAX_GRANTS);
    let grants = each(&mut fields, "grant", listed, parse_grant);
    fields.finish();
    Entry { identity: Identity { name, grants }, certificates, subjects }
}

/// Parses the tables of a list within another table.
fn each<T>(outer: &mut Fields<'_>, kind: &str, tables: Vec<Table>, parse: impl Fn(Fields<'_>) -> Option<T>) -> Vec<T> {
    let place = outer.place().to_owned();
    (1..)
        .zip(tables)
        .filter_map(|(number, table)| parse(Fields::new(format!("{place}, {kind} {number}"), table, outer.problems())))
        .collect()
}

fn parse_subject(mut fields: Fields<'_>) -> Option<Subject> {
    let (issuer, name) = (fields.text("issuer"), fields.text("subject"));
    fields.finish();
    Some(Subject { issuer: issuer?, name: name? })
}

fn parse_grant(mut fields: Fields<'_>) -> Option<Grant> {
    let name = fields.text("role");
    let role = name.as_deref().and_then(|name| Role::ALL.into_iter().find(|role| role.as_str() == name));
    if let (Some(name), None) = (&name, role) {
        fields.problem(format_args!("unknown role {}", quoted(name)));
    }
    let mut patterns = Vec::new();
    match role {
        Some(Role::Metrics) if fields.take("namespaces").is_some() => {
            fields.problem("the role metrics has no namespaces");
        }
        Some(Role::Metrics) => {}
        Some(_) => patterns = fields.texts("namespaces"),
        None => patterns = fields.optional_texts("namespaces"),
    }
    for pattern in &patterns {
        if let Err(problem) = names::check_pattern(pattern) {
            fields.problem(format_args!("namespace {}: {problem}", quoted(pattern)));
        }
    }
    fields.finish();
    let scope = Scope::new(patterns.iter().map(String::as_str));
    Some(Grant { role: role?, scope })
}
