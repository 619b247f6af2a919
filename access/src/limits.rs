//! The limits of the files and of the credentials. Data only.

/// The size of the policy file.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;
/// The size of the tokens file.
pub const MAX_TOKENS_FILE_BYTES: usize = 32 * 1024 * 1024;
/// The size of a file of keys.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;
/// Identities of a policy.
pub const MAX_IDENTITIES: usize = 10_000;
/// Grants of one identity.
pub const MAX_GRANTS: usize = 64;
/// Issuers of JSON Web Tokens.
pub const MAX_ISSUERS: usize = 16;
/// Entries of the tokens file.
pub const MAX_TOKENS: usize = 100_000;
/// Keys of one issuer.
pub const MAX_KEYS: usize = 64;
/// The size of a credential in a call.
pub const MAX_CREDENTIAL_BYTES: usize = 8_192;
/// The size of the decoded header of a JSON Web Token.
pub const MAX_JWT_HEADER_BYTES: usize = 2_048;
/// The size of the decoded claims of a JSON Web Token.
pub const MAX_JWT_CLAIMS_BYTES: usize = 4_096;
/// The size of the id of a key.
pub const MAX_KEY_ID_BYTES: usize = 256;
/// The clock skew that an issuer may have.
pub const MAX_LEEWAY_SECONDS: u64 = 300;

/// The size of the name of an identity.
pub(crate) const MAX_IDENTITY_BYTES: usize = 63;
/// The size of a namespace pattern without its `*`: the same as that of the name of a namespace.
pub(crate) const MAX_PATTERN_BYTES: usize = 63;
/// The sizes of an RSA key.
pub(crate) const MIN_RSA_BITS: usize = 2_048;
pub(crate) const MAX_RSA_BITS: usize = 8_192;
/// The last second of the year 9999: the largest time that a credential may contain.
pub(crate) const MAX_UNIX_SECONDS: u64 = 253_402_300_799;
