//! The characters of the names in a policy. Pure.

use crate::{
    limits::{MAX_IDENTITY_BYTES, MAX_PATTERN_BYTES},
    tokens,
};

/// Whether a text may be the name of an identity.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_IDENTITY_BYTES).contains(&text.len()) && text.bytes().all(is_name_byte) && !tokens::is_in(text)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Why a text is no pattern of namespaces.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), &'static str> {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    if name.contains('*') {
        Err("`*` is only allowed at the end")
    } else if name.len() > MAX_PATTERN_BYTES {
        Err("the namespace is too long")
    } else if !name.bytes().all(is_name_byte) {
        Err("a namespace has only A-Z a-z 0-9 . _ -")
    } else if tokens::is_in(name) {
        Err("a token is no namespace")
    } else {
        Ok(())
    }
}

/// Why a text is no name of a certificate.
pub(crate) fn check_certificate(name: &str) -> Result<(), &'static str> {
    if tokens::is_in(name) {
        Err("a token is no name")
    } else if let Some(uri) = name.strip_prefix("uri:") {
        match uri.split_once(':') {
            _ if !uri.bytes().all(|byte| byte.is_ascii_graphic()) => Err("a URI has only visible ASCII characters"),
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(()),
            _ => Err("the URI has no scheme"),
        }
    } else if let Some(dns) = name.strip_prefix("dns:") {
        let is_dns_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        match dns {
            "" => Err("the DNS name is empty"),
            _ if dns.contains('*') => Err("a DNS name has no wildcard"),
            _ if !dns.bytes().all(is_dns_byte) => Err("a DNS name has only a-z 0-9 . - _"),
            _ => Ok(()),
        }
    } else {
        Err("the name of a certificate begins with uri: or dns:")
    }
}
