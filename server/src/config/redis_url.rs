//! The address of a Redis, with a password that is never shown. Pure data.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, parse_redis_url};

/// The URL of a Redis or Valkey. `Debug` and `Display` leave its secrets out.
///
/// Any text is accepted: the argument parser would print a wrong one. [`RedisUrl::connection_info`]
/// reports the error.
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

    /// Whether the URL is of this machine.
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

    /// Whether the URL has a password; false for an unusable URL, which is refused anyway.
    pub(super) fn has_password(&self) -> bool {
        self.connection_info().is_ok_and(|info| info.redis_settings().password().is_some())
    }

    /// How to connect. No part of the URL is ignored.
    ///
    /// # Errors
    /// One line with the error. It quotes no part of the URL, because any part may be a secret.
    pub fn connection_info(&self) -> Result<ConnectionInfo, String> {
        let scheme = self.0.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_unix = match scheme {
            "redis" | "valkey" => false,
            "unix" | "redis+unix" | "valkey+unix" => true,
            "rediss" | "valkeys" => {
                return Err(
                    "this build has no TLS to Redis: use redis:// on a trusted network, a local TLS proxy, or \
                            a unix socket"
                        .to_owned(),
                );
            }
            _ => {
                return Err("not a Redis URL: write redis://[user:password@]host:port[/db] or unix:///path/to/socket"
                    .to_owned());
            }
        };
        let url = parse_redis_url(&self.0)
            .ok_or("not a valid URL; a character with a meaning in URLs is written like %40")?;
        let (known, form) = if is_unix {
            (&["db", "user", "pass", "protocol"][..], "unix:///path/to/socket?db=4&user=name&pass=password&protocol=3")
        } else {
            (&["protocol"][..], "redis://user:password@host:port/4?protocol=3")
        };
        let mut keys: Vec<_> = url.query_pairs().map(|(key, _)| key).collect();
        let parts = keys.len();
        keys.sort_unstable();
        keys.dedup();
        let has_all_known = keys.iter().all(|key| known.contains(&key.as_ref()));
        if !has_all_known || keys.len() < parts || url.fragment().is_some() {
            return Err(format!("a part behind ? or # is unknown or repeated: the whole form is {form}"));
        }
        if is_unix && (!url.username().is_empty() || url.password().is_some() || url.has_host()) {
            return Err(format!("a unix socket has no host; its user and password follow ?: {form}"));
        }
        let info =
            url.into_connection_info().map_err(|_| format!("not a valid Redis URL: the whole form is {form}"))?;
        match info.addr() {
            ConnectionAddr::Unix(path) if !path.is_absolute() => {
                Err("the path of the socket must be absolute".to_owned())
            }
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
    /// The target of the URL without its secrets. An unusable URL is hidden as a whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Ok(info), Some((scheme, _))) = (self.connection_info(), self.0.split_once("://")) else {
            return f.write_str("(hidden)");
        };
        let settings = info.redis_settings();
        let has_secrets = settings.username().is_some() || settings.password().is_some();
        match info.addr() {
            ConnectionAddr::Unix(path) => {
                write!(f, "{scheme}://{}", path.display().to_string().escape_debug())?;
                f.write_str(if has_secrets { "?***" } else { "" })?;
            }
            ConnectionAddr::Tcp(host, port) => {
                f.write_str(scheme)?;
                f.write_str(if has_secrets { "://***@" } else { "://" })?;
                if host.contains(':') { write!(f, "[{host}]:{port}")? } else { write!(f, "{host}:{port}")? }
            }
            _ => return f.write_str("(hidden)"),
        }
        match settings.db() {
            0 => Ok(()),
            db => write!(f, " (database {db})"),
        }
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
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379 (database 2)"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://:hunter2@host:6379", "redis://***@host:6379"),
            ("valkey://shop:hunter2@host/1", "valkey://***@host:6379 (database 1)"),
            ("redis://shop:hun/t?er@2@host/1", "(hidden)"),
            ("unix:///run/redis.sock?user=shop&pass=hunter2", "unix:///run/redis.sock?***"),
            ("unix:///run/redis.sock?pass=hun@ter2&db=3", "unix:///run/redis.sock?*** (database 3)"),
            ("unix:///run/a@b.sock", "unix:///run/a@b.sock"),
            ("unix://:hunter2@/run/redis.sock", "(hidden)"),
            ("unix://shop:hunter2@host/run/redis.sock", "(hidden)"),
            ("redis+unix://hunter2/run/redis.sock", "(hidden)"),
            ("redis://:hunter2", "(hidden)"),
            ("redis://shop:hunter2", "(hidden)"),
            ("redis://host?password=hunter2", "(hidden)"),
            ("redis://host?protocol=hunter2", "(hidden)"),
            ("redis://host/hunter2", "(hidden)"),
            ("redis://host#hunter2", "(hidden)"),
            ("rediss://:hunter2@host", "(hidden)"),
            ("hunter2", "(hidden)"),
            ("redis://host\u{1b}[31m", "(hidden)"),
        ] {
            let url = url(text);
            assert_eq!(url.to_string(), shown, "{text}");
            assert!(!format!("{url:?} {:?}", url.connection_info().err()).contains("hunter2"), "{text}");
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
        // A part that would be ignored.
        for ignored in [
            "redis://h?db=4",
            "redis://h/1?user=u",
            "redis://h?protocol=3&protocol=2",
            "redis://h#4",
            "redis://h/1/2",
            "unix:///a/b.sock?database=1",
            "unix:///a/b.sock#1",
            "unix://localhost/a/b.sock",
            "unix://u:p@/a/b.sock",
        ] {
            assert!(url(ignored).connection_info().is_err(), "{ignored:?} passed");
        }
        let info = url("unix:///a/b.sock?db=4&user=u&pass=p&protocol=3").connection_info().unwrap();
        let settings = info.redis_settings();
        assert_eq!((settings.db(), settings.username(), settings.password()), (4, Some("u"), Some("p")));
        assert!(url("rediss://h").connection_info().unwrap_err().contains("TLS"));
    }

    #[test]
    fn a_socket_with_odd_characters_comes_back_as_it_was() {
        let path = Path::new("/tmp/ä b%20?#/redis.sock");
        let info = RedisUrl::unix(path).connection_info().unwrap();
        assert_eq!(info.addr(), &ConnectionAddr::Unix(path.to_path_buf()));
    }
}
