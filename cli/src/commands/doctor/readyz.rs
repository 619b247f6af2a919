//! `/readyz` of the operator's HTTP port: the unhealthy components of the server, and their fixes. One GET
//! over HTTP/1.1, with or without TLS.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::Check;
use crate::{failure::Failure, security::handshake_advice, table::shown};

/// The most bytes of a response that are read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// The first words of the server's fixes.
const FIXES: &[&str] = &[
    "grant ", "set ", "settle ", "correct ", "name ", "wait ", "check ", "inspect ", "read ", "see ", "make ", "use ",
];
/// The states of a promise.
const STATES: [&str; 3] = ["kept: ", "broken: ", "not checked: "];

/// The URL of the port.
#[derive(Debug)]
pub(super) struct AdminUrl {
    text: String,
    authority: String,
    address: (String, u16),
    is_tls: bool,
}

/// Reads `http://host:port` or `https://host:port`.
pub(super) fn parse(text: &str) -> Result<AdminUrl, Failure> {
    let wrong = || {
        let what = format!("--admin-url {} is no http:// or https:// URL without a path", shown(text));
        Failure::usage(what, "write it as in --admin-url http://127.0.0.1:9464")
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme @ ("http" | "https")), Some(host), "" | "/") = (uri.scheme_str(), uri.host(), uri.path()) else {
        return Err(wrong());
    };
    let is_tls = scheme == "https";
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let text = text.trim_end_matches('/').to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Ok(AdminUrl { text, authority, address: (host, port), is_tls })
}

/// `ca`: the trusted CAs in PEM; `None`: the roots of the system.
pub(super) async fn check(url: &AdminUrl, ca: Option<&[u8]>, limit: Duration) -> Check {
    let answer = match timeout(limit, get(url, ca)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    match answer {
        // A server may not have this port, or it may not be reachable from this machine.
        Err(error) => Check::warn(
            "readyz",
            format!("not checked: {}/readyz does not respond ({error})", url.text),
            unreachable_advice(&error, url.is_tls),
        ),
        Ok((200, _)) => Check::ok("readyz", "every component is well"),
        Ok((503, body)) => {
            let faults: Vec<&str> = body.lines().filter(|line| !line.ends_with(": ok") && !is_promise(line)).collect();
            let fixes: Vec<String> = faults.iter().flat_map(|fault| fixes(fault)).collect();
            let next = match fixes.is_empty() {
                true => "start the store, or read the log of the server".to_owned(),
                false => fixes.join("; "),
            };
            Check::fail("readyz", faults.join("; "), next)
        }
        Ok((status, _)) => Check::warn(
            "readyz",
            format!("{}/readyz answers with the status {status}", url.text),
            "name the operator's port of the server with --admin-url",
        ),
    }
}

/// The next step if the port does not respond as expected. A port with TLS ends a plain connection in various ways.
fn unreachable_advice(error: &io::Error, is_tls: bool) -> &'static str {
    use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
    match (error.kind(), is_tls) {
        (InvalidData | ConnectionReset | UnexpectedEof, false) => "begin --admin-url with https:// if the port has TLS",
        (_, true) if error.to_string().contains("InvalidContentType") => {
            "begin --admin-url with http:// if the port has no TLS"
        }
        _ => handshake_advice(&error.to_string())
            .unwrap_or("name the operator's port with --admin-url if it can be reached from here"),
    }
}

/// Whether a line is about a promise, which GetServerInfo has too, and not about a component.
fn is_promise(line: &str) -> bool {
    let state = line.split_once(": ").map_or("", |(_, rest)| rest);
    STATES.iter().any(|begin| state.starts_with(begin))
}

/// The fixes that a component's line names, each behind its fault.
pub(super) fn fixes(line: &str) -> Vec<String> {
    let of_fault = |fault: &str| {
        let (_, fix) = fault.rsplit_once(": ")?;
        FIXES.iter().any(|word| fix.starts_with(word)).then(|| fix.to_owned())
    };
    line.split("; ").filter_map(of_fault).collect()
}

/// The status and the body.
async fn get(url: &AdminUrl, ca: Option<&[u8]>) -> io::Result<(u16, String)> {
    let (host, port) = &url.address;
    let stream = TcpStream::connect((host.as_str(), *port)).await?;
    if !url.is_tls {
        return exchange(url, stream).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    exchange(url, TlsConnector::from(Arc::new(tls(ca)?)).connect(name, stream).await?).await
}

/// TLS without a client certificate: the operator's port needs none.
fn tls(ca: Option<&[u8]>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn exchange(url: &AdminUrl, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<(u16, String)> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", url.authority);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await {
        // A server may close the connection without the close message of TLS.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof || answer.is_empty() => return Err(error),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer);
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_http)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|head| head.split(' ').nth(1)?.parse().ok());
    Ok((status.ok_or_else(no_http)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let url = parse("http://[::1]:9464/").expect("a URL");
        assert_eq!((url.address, url.authority.as_str()), (("::1".to_owned(), 9464), "[::1]:9464"));
        let url = parse("https://metrics.shop.internal").expect("a URL");
        assert!(url.is_tls && url.address.1 == 443);
        for wrong in ["", "127.0.0.1:9464", "ftp://h", "http://h/readyz", "nonsense"] {
            assert_eq!(parse(wrong).expect_err(wrong).code(), Failure::USAGE);
        }
    }

    #[test]
    fn the_fix_that_the_server_names_is_the_next_step() {
        let denied =
            "store: the Redis user of the service lacks permissions: grant +zrem ~is:* (docs/operate/permissions.md)";
        assert_eq!(fixes(denied), ["grant +zrem ~is:* (docs/operate/permissions.md)"]);
        let faults = "store: the store evicts (maxmemory-policy allkeys-lru), which loses stock: set maxmemory-policy \
                      noeviction; the store is a \"slave\" and not the primary: name the primary";
        assert_eq!(fixes(faults), ["set maxmemory-policy noeviction", "name the primary"]);
        assert!(fixes("store: Connection refused").is_empty());
    }
}
