//! A policy with its tokens and keys. Finds the identity of a credential. Pure: the caller passes a reader of files.

use std::{collections::HashMap, fmt, io, sync::Arc, time::SystemTime};

use subtle::ConstantTimeEq as _;

use crate::{
    Denied, Identity, Policy, PolicyError,
    jwt::Issuer,
    limits::{MAX_JWKS_BYTES, MAX_TOKENS_FILE_BYTES},
    problems::{Problems, quoted},
    tokens::{self, Hash, Token, TokenFile},
};

/// The hash to compare with if no token has the id.
const NO_HASH: Hash = [0; 32];

/// The rules of access of a server.
pub struct Rules {
    identities: Vec<Arc<Identity>>,
    certificates: HashMap<String, Arc<Identity>>,
    tokens: HashMap<String, Known>,
    issuers: HashMap<String, Issuer>,
}

/// A token of the file.
struct Known {
    hash: Hash,
    identity: Arc<Identity>,
    expires_at: Option<SystemTime>,
}

/// The caller behind a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The identity.
    pub identity: Arc<Identity>,
    /// When the credential ends, with the leeway of its issuer; `None` if never.
    pub until: Option<SystemTime>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("identities", &self.identities.len())
            .field("certificates", &self.certificates.len())
            .field("tokens", &self.number_of_tokens())
            .field("keys", &self.number_of_keys())
            .finish()
    }
}

impl Rules {
    /// Parses a policy and the files that it names. `read` gets each path as it is written in the policy. The error
    /// has the problems of all files, or those of the policy alone if it is invalid.
    pub fn load(policy_text: &str, mut read: impl FnMut(&str) -> io::Result<Vec<u8>>) -> Result<Self, PolicyError> {
        let Policy { tokens_file, issuers, entries } = Policy::parse(policy_text)?;
        let mut problems = Problems::default();
        let mut identities = Vec::with_capacity(entries.len());
        let mut names = HashMap::with_capacity(entries.len());
        let mut certificates = HashMap::new();
        let mut subjects: HashMap<String, HashMap<String, Arc<Identity>>> = HashMap::new();
        for entry in entries {
            let identity = Arc::new(entry.identity);
            names.insert(identity.name.clone(), identity.clone());
            certificates.extend(entry.certificates.into_iter().map(|name| (name, identity.clone())));
            for subject in entry.subjects {
                subjects.entry(subject.issuer).or_default().insert(subject.name, identity.clone());
            }
            identities.push(identity);
        }

        let mut tokens = HashMap::new();
        if let Some(path) = tokens_file {
            let place = format!("tokens file {}", quoted(&path));
            if let Some(text) = read_text(&path, MAX_TOKENS_FILE_BYTES, &place, &mut read, &mut problems) {
                match TokenFile::parse(&text) {
                    Ok(file) => tokens = bind(file.tokens, &names, &place, &mut problems),
                    Err(error) => problems.add_all(&place, error),
                }
            }
        }

        let mut with_keys = HashMap::with_capacity(issuers.len());
        for issuer in issuers {
            let place = format!("issuer {}, keys file {}", quoted(&issuer.name), quoted(&issuer.jwks_file));
            let Some(text) = read_text(&issuer.jwks_file, MAX_JWKS_BYTES, &place, &mut read, &mut problems) else {
                continue;
            };
            let name = issuer.name.clone();
            match Issuer::new(issuer, subjects.remove(&name).unwrap_or_default(), &text) {
                Ok(issuer) => drop(with_keys.insert(name, issuer)),
                Err(error) => problems.add_all(&place, error),
            }
        }
        problems.or(Self { identities, certificates, tokens, issuers: with_keys })
    }

    /// The identity of the text behind `Bearer `: a token if it begins with `ist_`, a JSON Web Token otherwise.
    pub fn identify_bearer(&self, credential: &[u8], now: SystemTime) -> Result<Identified, Denied> {
        if Self::is_token(credential) {
            self.identify_token(credential, now)
        } else {
            self.identify_jwt(credential, now)
        }
    }

    /// Whether a credential is a token and no JSON Web Token.
    pub fn is_token(credential: &[u8]) -> bool {
        credential.starts_with(tokens::PREFIX.as_bytes())
    }

    /// The identity of a token of the tokens file.
    pub fn identify_token(&self, credential: &[u8], now: SystemTime) -> Result<Identified, Denied> {
        let id = tokens::id_of(credential).ok_or(Denied::Malformed)?;
        let known = self.tokens.get(id);
        // The time of the comparison depends neither on the secret nor on whether the id exists.
        let is_equal = tokens::hash(credential).ct_eq(known.map_or(&NO_HASH, |known| &known.hash));
        let known = known.filter(|_| bool::from(is_equal)).ok_or(Denied::Unknown)?;
        if known.expires_at.is_some_and(|end| now >= end) {
            return Err(Denied::Expired);
        }
        Ok(Identified { identity: known.identity.clone(), until: known.expires_at })
    }

    /// The identity of a JSON Web Token.
    pub fn identify_jwt(&self, credential: &[u8], now: SystemTime) -> Result<Identified, Denied> {
        crate::jwt::identify(&self.issuers, credential, now)
    }

    /// The identity of a client certificate: that of the first name that the policy has. The names have the form of
    /// the policy: `uri:...` or `dns:...`.
    pub fn identify_certificate<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<Arc<Identity>> {
        names.into_iter().find_map(|name| self.certificates.get(name)).cloned()
    }

    /// Every identity, in the order of the policy.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter().map(|identity| &**identity)
    }

    /// The number of tokens, including those that have expired.
    pub fn number_of_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The number of keys of all issuers.
    pub fn number_of_keys(&self) -> usize {
        self.issuers.values().map(Issuer::number_of_keys).sum()
    }
}

/// Reads a file that a policy names.
fn read_text(
    path: &str,
    max_bytes: usize,
    place: &str,
    read: &mut impl FnMut(&str) -> io::Result<Vec<u8>>,
    problems: &mut Problems,
) -> Option<String> {
    match read(path) {
        Err(error) => problems.add(place, format_args!("can't be read: {error}")),
        Ok(bytes) if bytes.len() > max_bytes => problems.add(place, format_args!("more than {max_bytes} bytes")),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(_) => problems.add(place, "no valid UTF-8"),
        },
    }
    None
}

/// The tokens with their identities.
fn bind(
    tokens: Vec<Token>,
    identities: &HashMap<String, Arc<Identity>>,
    place: &str,
    problems: &mut Problems,
) -> HashMap<String, Known> {
    let mut bound = HashMap::with_capacity(tokens.len());
    for Token { id, identity, expires_at, hash } in tokens {
        match identities.get(&identity) {
            Some(identity) => drop(bound.insert(id, Known { hash, identity: identity.clone(), expires_at })),
            None => {
                problems.add(place, format_args!("token {id}: no identity has the name {}", quoted(&identity)));
            }
        }
    }
    bound
}
