//! Attacks on JSON Web Tokens.
