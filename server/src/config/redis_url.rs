//! The address of a Redis, with a password that is never shown. Pure data.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// The URL of a Redis or Valkey. `Debug` and `Display` leave its secrets out.
///
/// Any text is taken, so that a wrong one is never echoed by the argument parser;
/// [`RedisUrl::connection_info`] says what is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL of the Redis that listens at this unix socket.
    pub fn unix(socket: &Path) -> RedisUrl {
        let mut url = String::from("unix://");
        for &byte in socket.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => url.push(byte as char),
                _ => url.push_str(&format!("%{byte:02X}")),
            }
        }
        RedisUrl(url)
    }

    /// Whether it leads to no other machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        let is_loopback = |host: &str| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        self.connection_info().is_ok_and(|info| match info.addr() {
            ConnectionAddr::Unix(_) => true,
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => is_loopback(host),
            _ => false,
        })
    }

    /// How to connect.
    ///
    /// # Errors
    /// One line that says what is wrong with the URL, without its secrets.
    pub fn connection_info(&self) -> Result<ConnectionInfo, String> {
        let scheme = self.0.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => {}
            "rediss" | "valkeys" => {
                return Err("this build has no TLS to Redis: use redis:// on a trusted network, a local TLS proxy, or a unix socket".to_owned());
            }
            _ => {
                return Err("not a Redis URL: write redis://[user:password@]host:port[/db] or unix:///path/to/socket"
                    .to_owned());
            }
        }
        let info = self.0.as_str().into_connection_info().map_err(|error| {
            // The parser quotes no part of the user info: only database numbers and protocol names.
            format!("not a valid Redis URL ({error})")
        })?;
        match info.addr() {
            ConnectionAddr::Unix(path) if !path.is_absolute() => Err("the socket's path must be absolute".to_owned()),
            _ => Ok(info),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<RedisUrl, Infallible> {
        Ok(RedisUrl(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    /// Leaves out whatever may be a secret: the user info, and the query, where unix URLs keep it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("(hidden)");
        };
        let (hidden, rest) = match rest.rsplit_once('@') {
            // From the last `@`: a password that was not percent-encoded may hold any character.
            Some((_, rest)) if !scheme.ends_with("unix") => ("***@", rest),
            _ => ("", rest),
        };
        let place = rest.split(['?', '#']).next().unwrap_or_default();
        let hidden_query = if place.len() < rest.len() { "?***" } else { "" };
        write!(f, "{}://{hidden}{}{hidden_query}", scheme.escape_debug(), place.escape_debug())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_and_sockets_are_on_this_machine() {
        for here in [
            "redis://127.0.0.1:6379",
            "redis://127.8.0.1",
            "redis://localhost/2",
            "redis://[::1]:6379",
            "unix:///run/redis.sock",
        ] {
            assert!(url(here).is_on_this_machine(), "{here}");
        }
        for elsewhere in ["redis://10.0.0.7:6379", "redis://localhost.shop.example", "redis://redis", "hunter2"] {
            assert!(!url(elsewhere).is_on_this_machine(), "{elsewhere}");
        }
    }

    #[test]
    fn secrets_are_left_out() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://:hunter2@host:6379", "redis://***@host:6379"),
            ("redis://shop:hunter2@host/1", "redis://***@host/1"),
            ("redis://shop:hun/t?er@2@host/1", "redis://***@host/1"),
            ("unix:///run/redis.sock?user=shop&pass=hunter2", "unix:///run/redis.sock?***"),
            ("unix:///run/redis.sock?pass=hun@ter2", "unix:///run/redis.sock?***"),
            ("hunter2", "(hidden)"),
            ("redis://host\u{1b}[31m", "redis://host\\u{1b}[31m"),
        ] {
            assert_eq!(url(text).to_string(), shown);
        }
    }

    #[test]
    fn good_and_bad_urls() {
        for good in ["redis://localhost", "redis://u:p@[::1]:7000/3", "unix:///a/b.sock", "redis+unix:///a/b.sock?db=1"]
        {
            url(good).connection_info().unwrap();
        }
        for bad in
            ["", "localhost:6379", "http://localhost", "redis://", "redis://h/x", "redis://h:99999", "rediss://h"]
        {
            assert!(url(bad).connection_info().is_err(), "{bad:?} passed");
        }
        assert!(url("rediss://h").connection_info().unwrap_err().contains("TLS"));
    }

    #[test]
    fn a_socket_with_odd_characters_comes_back_as_it_was() {
        let path = Path::new("/tmp/ä b%20?#/redis.sock");
        let info = RedisUrl::unix(path).connection_info().unwrap();
        assert_eq!(info.addr(), &ConnectionAddr::Unix(path.to_path_buf()));
    }
}
