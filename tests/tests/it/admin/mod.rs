//! The calls of an administrator: namespaces and their settings, lists, imports, deletion.

mod deletion;
mod identity;
mod imports;
mod lists;
mod namespaces;
mod quota;
mod settings;
