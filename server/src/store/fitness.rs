//! Whether a Redis is fit to hold stock: a primary, new enough, never evicting, and on disk where
//! the durability promises it. Reads INFO and CONFIG, and changes nothing.

use std::collections::HashMap;

use deadpool_redis::redis::{self, Value};

use super::error::StoreError;
use super::permissions;
use super::pool::Connection;
use crate::config::Durability;

/// The oldest Redis (or what Valkey says it is compatible with) whose scripts do what ours need.
const MIN_VERSION: (u32, u32) = (7, 0);

/// A store that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Name and version, as `redis 7.0.15` or `valkey 8.1.0`.
    pub(crate) version: String,
    /// The identity of the process: another one after a restart.
    pub(crate) run_id: String,
    /// What could not be checked, one line each.
    pub(crate) notes: Vec<String>,
}

/// A store that may not be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It could not be asked, or is still loading.
    #[error("{0}")]
    Away(StoreError),
    /// It answered, and must not be used as it is: one line per fault, with its remedy.
    #[error("{}", .0.join("; "))]
    Faults(Vec<String>),
    /// It answered, and its user may not do what the service needs: the ACL rules that grant it.
    #[error("the Redis user of the service lacks permissions: grant {} (docs/permissions.md)", .0.join(" "))]
    Denied(Vec<String>),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Unfit {
        match error {
            StoreError::Denied { missing, .. } => Unfit::Denied(vec![missing.to_string()]),
            error => Unfit::Away(error),
        }
    }
}

/// What the last check that got an answer has found.
pub(crate) enum Before {
    /// There was none.
    Unknown,
    /// The process with this id was fit.
    Fit(String),
    /// The store was not fit.
    Unfit,
}

/// Asks the store what it is, and whether its user may do all that the service needs.
pub(crate) async fn check(connection: &mut Connection, durability: Durability, before: &Before) -> Result<Fit, Unfit> {
    let fit = match ask(connection, durability, before).await {
        // One that is too old has no way to say what its user may do.
        Err(unfit @ (Unfit::Away(_) | Unfit::Faults(_))) => return Err(unfit),
        fit => fit,
    };
    let missing = permissions::missing(connection).await?;
    if missing.is_empty() { fit } else { Err(Unfit::Denied(missing)) }
}

async fn ask(connection: &mut Connection, durability: Durability, before: &Before) -> Result<Fit, Unfit> {
    let info = connection.send(&redis::cmd("INFO")).await?;
    let info = Fields::parse_info(&text(&info));
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("appendfsync").arg("no-appendfsync-on-rewrite");
    let config = match connection.send(&command).await {
        Ok(reply) => Some(Fields::from_pairs(&reply)),
        // Forbidden, renamed or, before 7.0, not taking several names.
        Err(StoreError::Denied { .. } | StoreError::NotApplied { .. } | StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    judge(&info, config.as_ref(), durability, before)
}

/// What INFO and CONFIG say, as one verdict.
fn judge(info: &Fields, config: Option<&Fields>, durability: Durability, before: &Before) -> Result<Fit, Unfit> {
    if [info.get("loading"), info.get("async_loading")].contains(&"1") {
        return Err(StoreError::not_applied("the store is loading its data").into());
    }
    let mut faults = Vec::new();
    let mut notes = Vec::new();
    let config = match config {
        Some(config) if !config.0.is_empty() => Some(config),
        _ => None,
    };

    let version = info.get("redis_version");
    if !new_enough(version) {
        faults.push(format!("the store is version {version:?}: it needs redis 7.0 or valkey 8.0, or newer"));
    }
    match info.get("redis_mode") {
        "standalone" | "" => {}
        mode => faults.push(format!("the store runs in {mode} mode: name a standalone primary")),
    }
    if info.get("role") != "master" {
        faults.push(format!("the store is a {:?} and not the primary: name the primary", info.get("role")));
    }

    let policy = config.map_or(info.get("maxmemory_policy"), |config| config.get("maxmemory-policy"));
    match policy {
        "noeviction" => {}
        "" => notes.push("could not check maxmemory-policy: make sure that it is noeviction".to_owned()),
        policy => faults.push(format!(
            "the store evicts (maxmemory-policy {policy}), which loses stock: set maxmemory-policy noeviction"
        )),
    }

    if durability == Durability::Durable {
        let appends = match config {
            Some(config) => config.get("appendonly") == "yes",
            None => info.get("aof_enabled") == "1",
        };
        if !appends {
            faults.push(
                "the store keeps no append-only file, which durable needs: set appendonly yes and appendfsync always, or run with --durability fast"
                    .to_owned(),
            );
        } else {
            match config.map(|config| config.get("appendfsync")) {
                Some("always") => {}
                Some(policy) => faults.push(format!(
                    "the store fsyncs {policy} and not before each answer, which durable needs: set appendfsync always, or run with --durability fast"
                )),
                None => notes.push("could not check appendfsync: make sure that it is always".to_owned()),
            }
            // Redis does not fsync while a child process writes, whatever appendfsync says.
            match config.map(|config| config.get("no-appendfsync-on-rewrite")) {
                Some("no") => {}
                Some(_) => faults.push(
                    "the store does not fsync while it rewrites its append-only file, which durable needs: set no-appendfsync-on-rewrite no, or run with --durability fast"
                        .to_owned(),
                ),
                None => notes.push("could not check no-appendfsync-on-rewrite: make sure that it is no".to_owned()),
            }
            let rewrites =
                ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().any(|field| info.get(field) == "1");
            if rewrites && may_be_the_first(info, before) {
                faults.push(
                    "the store rewrites its append-only file, and may have no complete one before that ends: wait for it, or look at the log of Redis"
                        .to_owned(),
                );
            }
        }
        let status = info.get("aof_last_write_status");
        if appends && status != "ok" {
            faults.push(format!(
                "the store cannot write its append-only file ({status:?}): look at its disk and its log"
            ));
        }
    }

    if !faults.is_empty() {
        return Err(Unfit::Faults(faults));
    }
    let version = match info.get("valkey_version") {
        "" => format!("redis {version}"),
        valkey => format!("valkey {valkey}"),
    };
    Ok(Fit { version, run_id: info.get("run_id").to_owned(), notes })
}

/// Whether this rewrite of the append-only file may be the first since the file was switched on. Until that has ended, a
/// crash loses what was acknowledged. Later rewrites look alike, but the process was fit when they began, or has loaded a file.
fn may_be_the_first(info: &Fields, before: &Before) -> bool {
    match before {
        Before::Fit(run_id) if run_id == info.get("run_id") => false,
        Before::Unfit => true,
        Before::Fit(_) | Before::Unknown => info.get("aof_base_size") == "0",
    }
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor) >= MIN_VERSION,
        _ => false,
    }
}

/// Names and values; a name that is not there has an empty value.
#[derive(Debug, Default)]
struct Fields(HashMap<String, String>);

impl Fields {
    fn parse_info(info: &str) -> Fields {
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        Fields(pairs.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    fn from_pairs(reply: &Value) -> Fields {
        let Value::Array(items) = reply else {
            return Fields::default();
        };
        Fields(items.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n\
                        # Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\nasync_loading:0\r\n\
                        aof_enabled:1\r\naof_last_write_status:ok\r\n# Replication\r\nrole:master\r\n";

    fn config(policy: &str, appendonly: &str, appendfsync: &str) -> Fields {
        let pairs = [
            ("maxmemory-policy", policy),
            ("appendonly", appendonly),
            ("appendfsync", appendfsync),
            ("no-appendfsync-on-rewrite", "no"),
        ];
        Fields(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    fn faults(info: &str, config: Option<&Fields>, durability: Durability) -> Vec<String> {
        match judge(&Fields::parse_info(info), config, durability, &Before::Unfit) {
            Err(Unfit::Faults(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_store_is_fit() {
        let good = config("noeviction", "yes", "always");
        let fit = judge(&Fields::parse_info(INFO), Some(&good), Durability::Durable, &Before::Unknown).unwrap();
        assert_eq!((fit.version.as_str(), fit.run_id.as_str()), ("redis 7.0.15", "abc"));
        assert!(fit.notes.is_empty());
        let valkey = format!("{INFO}valkey_version:8.1.0\r\n");
        let fit = judge(&Fields::parse_info(&valkey), Some(&good), Durability::Durable, &Before::Unknown).unwrap();
        assert_eq!(fit.version, "valkey 8.1.0");
    }

    #[test]
    fn each_fault_has_its_line() {
        let good = config("noeviction", "yes", "always");
        for (from, to, says) in [
            ("redis_version:7.0.15", "redis_version:6.2.14", "6.2.14"),
            ("redis_version:7.0.15", "redis_version:unstable", "unstable"),
            ("role:master", "role:slave", "primary"),
            ("redis_mode:standalone", "redis_mode:cluster", "cluster"),
            ("aof_last_write_status:ok", "aof_last_write_status:err", "disk"),
        ] {
            let found = faults(&INFO.replace(from, to), Some(&good), Durability::Durable);
            assert!(found.len() == 1 && found[0].contains(says), "{to}: {found:?}");
        }
        let evicts = config("allkeys-lru", "no", "everysec");
        assert_eq!(faults(INFO, Some(&evicts), Durability::Durable).len(), 2);
        assert_eq!(faults(INFO, Some(&evicts), Durability::Fast).len(), 1);
        let lazy = config("noeviction", "yes", "everysec");
        assert!(faults(INFO, Some(&lazy), Durability::Durable)[0].contains("appendfsync always"));
        let mut pausing = config("noeviction", "yes", "always");
        pausing.0.insert("no-appendfsync-on-rewrite".to_owned(), "yes".to_owned());
        let found = faults(INFO, Some(&pausing), Durability::Durable);
        assert!(found.len() == 1 && found[0].contains("no-appendfsync-on-rewrite no"), "{found:?}");
        judge(&Fields::parse_info(INFO), Some(&pausing), Durability::Fast, &Before::Unknown).unwrap();
    }

    #[test]
    fn the_first_rewrite_is_waited_for_and_a_later_one_is_not() {
        let good = config("noeviction", "yes", "always");
        for state in ["aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"] {
            let info = INFO.replace("aof_last_write_status", &format!("{state}\r\naof_last_write_status"));
            let found = faults(&info, Some(&good), Durability::Durable);
            assert!(found.len() == 1 && found[0].contains("rewrites"), "{found:?}");
            let judged = |base_size: u32, before: &Before| {
                let info = Fields::parse_info(&format!("{info}aof_base_size:{base_size}\r\n"));
                judge(&info, Some(&good), Durability::Durable, before).is_ok()
            };
            let (fit, another) = (Before::Fit("abc".to_owned()), Before::Fit("another process".to_owned()));
            let all = [&fit, &another, &Before::Unknown, &Before::Unfit];
            assert_eq!(all.map(|before| judged(0, before)), [true, false, false, false]);
            assert_eq!(all.map(|before| judged(9, before)), [true, true, true, false]);
            judge(&Fields::parse_info(&info), Some(&good), Durability::Fast, &Before::Unfit).unwrap();
        }
    }

    #[test]
    fn without_config_info_is_believed_and_the_rest_is_said() {
        let fit = judge(&Fields::parse_info(INFO), None, Durability::Durable, &Before::Unknown).unwrap();
        assert_eq!(
            fit.notes,
            [
                "could not check appendfsync: make sure that it is always",
                "could not check no-appendfsync-on-rewrite: make sure that it is no"
            ]
        );
        let found = faults(&INFO.replace("aof_enabled:1", "aof_enabled:0"), None, Durability::Durable);
        assert!(found[0].contains("append-only"), "{found:?}");
    }

    #[test]
    fn loading_is_away_and_no_fault() {
        let info = Fields::parse_info(&INFO.replace("\nloading:0", "\nloading:1"));
        assert!(matches!(judge(&info, None, Durability::Durable, &Before::Unknown), Err(Unfit::Away(_))));
    }
}
