//! Failed commands, classified by the question that matters to a caller: may the command have been applied? Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use deadpool_redis::redis::{RedisError, ServerErrorKind};

use inventory_sentinel_script::DecodeError;

use super::permissions;

/// The most characters of an error message of Redis that are kept.
const MAX_WHY_CHARS: usize = 300;

/// The failure of a command. Cheap to clone: every caller of a batch receives a copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing was applied.
    #[error("the store did not take the call: {why}")]
    NotApplied {
        /// For people.
        why: Arc<str>,
    },
    /// The command was sent and there was no reply. It may have been applied, or will be in a moment.
    #[error("the store did not answer: {why}")]
    Unknown {
        /// For people.
        why: Arc<str>,
    },
    /// Nothing was applied: Redis is at its memory limit.
    #[error("the store is at its memory limit")]
    Full,
    /// The script failed, or read data that it did not write.
    #[error("the store holds something unexpected: {why}")]
    Corrupt {
        /// For people.
        why: Arc<str>,
    },
    /// Nothing was applied: a newer release has written a record.
    #[error("the store holds a record of a newer version: {why}")]
    Newer {
        /// For people.
        why: Arc<str>,
    },
    /// Nothing was applied: the Redis user of the service lacks permissions.
    #[error("the Redis user of the service lacks permissions: {missing} ({why})")]
    Denied {
        /// The ACL rules that grant it, separated by spaces; empty if Redis does not name the command.
        missing: Arc<str>,
        /// For people.
        why: Arc<str>,
    },
    /// Nothing was applied: this is not the expected store.
    #[error(
        "this is another store: its id is {found}, and this server expects the store {known}: correct --redis-url, or \
         start with another --state-dir"
    )]
    Foreign {
        /// The id of this store.
        found: Arc<str>,
        /// The expected id.
        known: Arc<str>,
    },
    /// Nothing was sent: all connections of a pool were in use.
    #[error("no connection to the store was free in time")]
    Busy,
    /// Nothing was applied: the script is not loaded in Redis.
    #[error("the script is not loaded")]
    NoScript,
    /// Nothing was applied: the partition is absent, or is not the one that was opened.
    #[error("the partition was replaced")]
    Closed,
}

impl From<DecodeError> for StoreError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Malformed(what) => StoreError::corrupt(what),
            DecodeError::Newer(what) => StoreError::Newer { why: (*what).into() },
        }
    }
}

impl StoreError {
    pub(crate) fn not_applied(why: impl AsRef<str>) -> StoreError {
        StoreError::NotApplied { why: plain(why.as_ref()) }
    }

    pub(crate) fn unknown(why: impl AsRef<str>) -> StoreError {
        StoreError::Unknown { why: plain(why.as_ref()) }
    }

    pub(crate) fn corrupt(why: impl AsRef<str>) -> StoreError {
        StoreError::Corrupt { why: plain(why.as_ref()) }
    }

    /// Classifies an error of the driver. `sent`: whether the command may have left this process.
    pub(crate) fn from_redis(error: &RedisError, sent: bool) -> StoreError {
        let why = plain(&error.to_string());
        let Some(code) = error.code() else {
            // There is no reply of Redis: the connection broke, the reply was late, or the command was not sent.
            return if sent { StoreError::Unknown { why } } else { StoreError::NotApplied { why } };
        };
        if let Some(missing) = denied(code, error.detail().unwrap_or_default()) {
            return StoreError::Denied { missing: missing.into(), why };
        }
        match code {
            "NOSCRIPT" => StoreError::NoScript,
            "SENTINELCLOSED" => StoreError::Closed,
            "SENTINELNEWER" => StoreError::Newer { why },
            "OOM" => StoreError::Full,
            // Redis refuses these before a script starts, or before its first write.
            "LOADING" | "MISCONF" | "READONLY" | "CLUSTERDOWN" | "NOREPLICAS" | "MASTERDOWN" | "BUSY" | "TRYAGAIN"
            | "MOVED" | "ASK" | "CROSSSLOT" | "NOAUTH" | "WRONGPASS" | "DENIED" => StoreError::NotApplied { why },
            _ if !sent => StoreError::NotApplied { why },
            "ERR" if error.detail().is_some_and(|detail| detail.starts_with("max number of clients")) => {
                StoreError::NotApplied { why }
            }
            "ERR" if !is_of_redis(error.detail().unwrap_or_default()) => StoreError::Unknown { why },
            "ERR" | "WRONGTYPE" | "SENTINELCORRUPT" | "SENTINELMALFORMED" => StoreError::Corrupt { why },
            // Redis does not use this code. It is from a proxy.
            _ => StoreError::Unknown { why },
        }
    }

    /// The label of this error in the metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            StoreError::NotApplied { .. } => "not_applied",
            StoreError::Unknown { .. } => "unknown",
            StoreError::Full => "full",
            StoreError::Corrupt { .. } => "corrupt",
            StoreError::Newer { .. } => "newer",
            StoreError::Denied { .. } => "denied",
            StoreError::Foreign { .. } => "foreign",
            StoreError::Busy => "busy",
            StoreError::NoScript => "no_script",
            StoreError::Closed => "closed",
        }
    }
}

/// The ACL rule that grants a refused permission: `None` if the refusal has another cause, empty if Redis does not name
/// the command. The script is refused before its first write, because it first checks the commands that it writes with
/// (`lua/scripts/write/batch.lua`).
fn denied(code: &str, detail: &str) -> Option<String> {
    let is_denied = match code {
        "NOPERM" | "SENTINELDENIED" => true,
        // The last two: the command was renamed or removed.
        _ => [
            "ACL failure in script",
            "The user executing the script can't ",
            "has no permissions to ",
            "Unknown Redis command called from ",
            "Invalid command passed to redis.acl_check_cmd",
        ]
        .iter()
        .any(|words| detail.contains(words)),
    };
    let command = match code {
        "SENTINELDENIED" => detail.split_ascii_whitespace().next(),
        _ => detail.split_once("permissions to run the '").and_then(|(_, rest)| rest.split('\'').next()),
    };
    is_denied.then(|| match command {
        Some(command) => permissions::rule(command),
        // "access the 'x' key", "access one of the keys", "access a key"; but not "at least one of the keys mentioned".
        None if code == "NOPERM" && detail.contains("key") => permissions::key_rule(),
        None => String::new(),
    })
}

/// Whether Redis itself refused a command, or stopped the script before its first write. A proxy that lost its
/// connection to Redis also responds with ERR, and may have forwarded the command.
fn is_of_redis(detail: &str) -> bool {
    const ANYWHERE: [&str; 2] = ["user_script:", " script: "];
    const AT_THE_START: [&str; 10] = [
        "unknown command",
        "unknown subcommand",
        "Unknown subcommand",
        "wrong number of arguments",
        "syntax error",
        "value is not",
        "invalid cursor",
        "Number of keys",
        "DB index is out of range",
        "Error compiling script",
    ];
    ANYWHERE.iter().any(|words| detail.contains(words)) || AT_THE_START.iter().any(|words| detail.starts_with(words))
}

/// Whether the connection must not be used again: it is broken, it may still receive a late reply, or its node is no
/// longer a primary.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => code == "READONLY" || code == "MASTERDOWN",
        None => true,
    }
}

/// Whether the peer is gone, so that other idle connections to it are most likely dead too.
pub(super) fn ends_peer(error: &RedisError) -> bool {
    matches!(error.kind(), deadpool_redis::redis::ErrorKind::Server(ServerErrorKind::ReadOnly))
        || error.is_connection_dropped()
}

/// Shortens a message and escapes its control characters: messages of Redis may quote input of callers.
fn plain(text: &str) -> Arc<str> {
    let mut out = String::with_capacity(text.len().min(MAX_WHY_CHARS));
    for character in text.chars().take(MAX_WHY_CHARS) {
        if character.is_control() {
            // A write to a String never fails.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use std::io;

    use deadpool_redis::redis::{Value, parse_redis_value};

    use super::*;
    use crate::telemetry::metrics::STORE_ERROR_KINDS;

    /// The error of the driver for this reply.
    fn reply(line: &str) -> RedisError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error.into(),
            Err(error) => error,
            Ok(other) => panic!("{other:?} is no error"),
        }
    }

    #[test]
    fn replies_are_sorted_by_their_effect() {
        for (line, kind) in [
            ("NOSCRIPT No matching script. Please use EVAL.", "no_script"),
            ("SENTINELCLOSED another epoch script: x, on @user_script:1.", "closed"),
            ("SENTINELCORRUPT stock record script: x, on @user_script:1.", "corrupt"),
            ("SENTINELNEWER stock record script: x, on @user_script:1.", "newer"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "full"),
            ("LOADING Redis is loading the dataset in memory", "not_applied"),
            ("MISCONF Errors writing to the AOF file: No space left on device", "not_applied"),
            ("READONLY You can't write against a read only replica.", "not_applied"),
            ("CLUSTERDOWN The cluster is down", "not_applied"),
            ("NOREPLICAS Not enough good replicas to write.", "not_applied"),
            ("MASTERDOWN Link with MASTER is down", "not_applied"),
            ("BUSY Redis is busy running a script.", "not_applied"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "not_applied"),
            ("MOVED 3999 127.0.0.1:6381", "not_applied"),
            ("NOAUTH Authentication required.", "not_applied"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "not_applied"),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "denied"),
            ("SENTINELDENIED ZREM script: x, on @user_script:1.", "denied"),
            (
                "ERR The user executing the script can't run this command or subcommand script: x, on @user_script:1.",
                "denied",
            ),
            ("ERR ACL failure in script: User u has no permissions to run the 'zrem' command script: x", "denied"),
            ("ERR Invalid command passed to redis.acl_check_cmd() script: x, on @user_script:1.", "denied"),
            ("ERR max number of clients reached", "not_applied"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "corrupt"),
            ("ERR user_script:7: attempt to index a nil value", "corrupt"),
            ("ERR unknown command 'EVALSHA', with args beginning with: ", "corrupt"),
            ("ERR wrong number of arguments for 'hget' command", "corrupt"),
            ("GATEWAY upstream reset", "unknown"),
            ("ERR Connection timed out", "unknown"),
            ("ERR upstream failure", "unknown"),
            ("ERR", "unknown"),
        ] {
            let error = reply(line);
            assert_eq!(StoreError::from_redis(&error, true).kind(), kind, "{line}");
        }
    }

    #[test]
    fn a_denial_says_which_rule_grants_it() {
        for (line, rule) in [
            ("NOPERM this user has no permissions to run the 'evalsha' command", "+evalsha"),
            ("NOPERM User u has no permissions to run the 'config|get' command", "+config|get"),
            ("NOPERM this user has no permissions to access one of the keys used as arguments", "~is:*"),
            ("NOPERM No permissions to access a key", "~is:*"),
            ("SENTINELDENIED ZREM script: x, on @user_script:1.", "+zrem"),
            ("ERR The user executing the script can't run this command or subcommand script: x", ""),
            ("ERR ACL failure in script: User u has no permissions to run the 'zrem' command script: x", "+zrem"),
        ] {
            match StoreError::from_redis(&reply(line), true) {
                StoreError::Denied { missing, .. } => assert_eq!(&*missing, rule, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn without_a_reply_it_matters_whether_it_was_sent() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            let error = RedisError::from(io::Error::from(kind));
            assert_eq!(StoreError::from_redis(&error, true).kind(), "unknown");
            assert_eq!(StoreError::from_redis(&error, false).kind(), "not_applied");
            assert!(ends_connection(&error));
        }
    }

    #[test]
    fn only_a_sound_connection_is_used_again() {
        assert!(ends_connection(&reply("READONLY You can't write against a read only replica.")));
        assert!(!ends_connection(&reply("OOM command not allowed")));
        assert!(!ends_connection(&reply("NOSCRIPT No matching script.")));
        assert!(!ends_peer(&RedisError::from(io::Error::from(io::ErrorKind::TimedOut))));
        assert!(ends_peer(&RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe))));
    }

    #[test]
    fn words_of_redis_are_shortened_and_escaped() {
        let error = StoreError::corrupt(format!("a\n\u{1b}[2J{}", "x".repeat(1_000)));
        let text = error.to_string();
        assert!(text.contains("a\\n\\u{1b}[2J") && text.len() < 400, "{text}");
    }

    #[test]
    fn kinds_are_those_of_the_metrics() {
        let errors = [
            StoreError::not_applied(""),
            StoreError::unknown(""),
            StoreError::Full,
            StoreError::corrupt(""),
            StoreError::Newer { why: "".into() },
            StoreError::Denied { missing: "".into(), why: "".into() },
            StoreError::Foreign { found: "".into(), known: "".into() },
            StoreError::Busy,
            StoreError::NoScript,
            StoreError::Closed,
        ];
        assert_eq!(errors.map(|error| error.kind()), STORE_ERROR_KINDS);
    }
}
