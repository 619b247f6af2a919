//! The calls of an administrator: namespaces and their settings, lists, imports, deletion.

mod deletion;
mod identity;
mod lists;
mod namespaces;
mod settings;
