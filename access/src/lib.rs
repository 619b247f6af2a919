//! The rules of access: who calls, and what they may do. Pure functions and data: the caller reads the files.
//!
//! - [`Policy`]: the policy file: identities, their credentials and their grants;
//! - [`Rules`]: a policy with its tokens and keys; finds the [`Identity`] of a credential;
//! - [`Identity`], [`Role`], [`Scope`]: what a caller may do;
//! - [`tokens`]: bearer tokens and their hashes;
//! - `jwt`: JSON Web Tokens and the keys of their issuers;
//! - [`Denied`]: why a credential is refused;
//! - [`limits`]: the sizes of files and credentials.

mod denied;
mod fields;
mod identity;
mod jwt;
pub mod limits;
mod names;
mod policy;
mod problems;
mod rules;
mod timestamp;
pub mod tokens;

pub use denied::Denied;
pub use identity::{Grant, Identity, Role, Scope};
pub use policy::Policy;
pub use problems::PolicyError;
pub use rules::{Identified, Rules};
