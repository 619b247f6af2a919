//! The algorithms that a policy may name. Pure.

use jsonwebtoken::{Algorithm, AlgorithmFamily};

/// Every algorithm with a public key, with its name.
const ALLOWED: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The algorithm with exactly this name, or why it is not allowed.
pub(crate) fn parse(name: &str) -> Result<Algorithm, &'static str> {
    if let Some((_, algorithm)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) {
        return Ok(*algorithm);
    }
    Err(match name.to_ascii_lowercase() {
        lower if lower == "none" => "a token without a signature is never accepted",
        lower if lower.starts_with("hs") => "an algorithm with a shared secret is never accepted",
        _ => "not supported; RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA are",
    })
}

/// Every algorithm of a family.
pub(crate) fn of_family(family: AlgorithmFamily) -> Vec<Algorithm> {
    ALLOWED.iter().map(|(_, algorithm)| *algorithm).filter(|algorithm| algorithm.family() == family).collect()
}
