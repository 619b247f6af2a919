//! The verdict on a store, promise by promise, from its replies to INFO and CONFIG. Pure.

use std::collections::HashMap;

use deadpool_redis::redis::Value;

use super::{
    APPENDS, Before, DURABLE, FAST, FIRST_REWRITE, FSYNC, FSYNC_ON_REWRITE, Fit, Found, LAST_WRITE, MEMORY_LIMIT,
    NO_EVICTION, PERMISSIONS, REACHABLE, TERMS, Unfit, unchecked,
};
use crate::{
    config::Durability,
    domain::{Promise, PromiseState},
    store::error::StoreError,
};

/// The oldest Redis that can run the script. Valkey reports the version of Redis that it is compatible with.
const MIN_VERSION: (u32, u32) = (7, 0);
/// The start of the fault for a store that is too old.
pub(super) const TOO_OLD: &str = "the store is version";
/// The start of the detail for a setting that only CONFIG GET shows.
const UNCHECKED: &str = "could not check ";

/// The verdict on the replies to INFO and CONFIG.
pub(super) fn judge(info: &Fields, config: Option<&Fields>, durability: Durability, before: &Before) -> Found {
    if [info.get("loading"), info.get("async_loading")].contains(&"1") {
        let error = StoreError::not_applied("the store is loading its data");
        let promises = unchecked(Err(&error.to_string()), "the store is loading its data", durability);
        return Found { verdict: Err(error.into()), promises };
    }
    let config = config.filter(|config| !config.0.is_empty());
    let version = match info.get("valkey_version") {
        "" => format!("redis {}", info.get("redis_version")),
        valkey => format!("valkey {valkey}"),
    };
    let mut faults = reachable_faults(info);
    let mut promises = vec![match faults.is_empty() {
        true => Promise::kept(REACHABLE, format!("{version}, a standalone primary")),
        false => Promise::broken(REACHABLE, faults.join("; ")),
    }];
    match durability {
        Durability::Durable => promises.extend(durable(info, config, before)),
        Durability::Fast => promises.extend(DURABLE.map(|name| Promise::not_checked(name, FAST))),
    }
    promises.push(match config.map_or(info.get("maxmemory_policy"), |config| config.get("maxmemory-policy")) {
        "noeviction" => Promise::kept(NO_EVICTION, "maxmemory-policy is noeviction"),
        "" => unchecked_setting(NO_EVICTION, "maxmemory-policy", "noeviction"),
        policy => Promise::broken(
            NO_EVICTION,
            format!("the store evicts (maxmemory-policy {policy}), which loses stock: set maxmemory-policy noeviction"),
        ),
    });
    faults.extend(promises.iter().skip(1).filter(|promise| promise.state == PromiseState::Broken).map(detail));
    let is_note =
        |promise: &&Promise| promise.state == PromiseState::NotChecked && promise.detail.starts_with(UNCHECKED);
    let notes = promises.iter().filter(is_note).map(detail).collect();
    promises.push(match info.get("maxmemory") {
        "" => Promise::not_checked(MEMORY_LIMIT, "INFO does not name maxmemory"),
        "0" => Promise::not_checked(
            MEMORY_LIMIT,
            "there is no limit, so the memory of the machine may not suffice: set maxmemory \
             (docs/operate/capacity.md)",
        ),
        bytes => {
            Promise::kept(MEMORY_LIMIT, format!("maxmemory {bytes} bytes: a full store refuses, and loses nothing"))
        }
    });
    promises.push(match info.get("master_replid") {
        "" => Promise::not_checked(TERMS, "INFO names no replication id"),
        id => Promise::kept(TERMS, format!("the replication id is {id}: another one begins another term")),
    });
    promises.push(Promise::not_checked(PERMISSIONS, "the store is too old to report them"));
    let verdict = match faults.is_empty() {
        true => Ok(Fit { version, run_id: info.get("run_id").to_owned(), notes }),
        false => Err(Unfit::Faults(faults)),
    };
    Found { verdict, promises }
}

/// The faults that have nothing to do with durability.
fn reachable_faults(info: &Fields) -> Vec<String> {
    let mut faults = Vec::new();
    let version = info.get("redis_version");
    if !new_enough(version) {
        faults.push(format!("{TOO_OLD} {version:?}: it needs redis 7.0 or valkey 8.0, or newer"));
    }
    match info.get("redis_mode") {
        "standalone" | "" => {}
        mode => faults.push(format!("the store runs in {mode} mode: name a standalone primary")),
    }
    if info.get("role") != "master" {
        faults.push(format!("the store is a {:?} and not the primary: name the primary", info.get("role")));
    }
    faults
}

/// The promises that make an OK durable, in the order of [`DURABLE`].
fn durable(info: &Fields, config: Option<&Fields>, before: &Before) -> [Promise; 5] {
    let appends = match config {
        Some(config) => config.get("appendonly") == "yes",
        None => info.get("aof_enabled") == "1",
    };
    if !appends {
        return DURABLE.map(|name| match name {
            APPENDS => Promise::broken(
                name,
                "the store keeps no append-only file, which durable needs: set appendonly yes and appendfsync \
                 always, or run with --durability fast",
            ),
            name => Promise::not_checked(name, "there is no append-only file"),
        });
    }
    let fsync = match config.map(|config| config.get("appendfsync")) {
        Some("always") => Promise::kept(FSYNC, "appendfsync is always"),
        Some(policy) => Promise::broken(
            FSYNC,
            format!(
                "the store fsyncs {policy} and not before each answer, which durable needs: set appendfsync always, \
                 or run with --durability fast"
            ),
        ),
        None => unchecked_setting(FSYNC, "appendfsync", "always"),
    };
    // With this setting Redis does not fsync while a child process writes, even if appendfsync is always.
    let on_rewrite = match config.map(|config| config.get("no-appendfsync-on-rewrite")) {
        Some("no") => Promise::kept(FSYNC_ON_REWRITE, "no-appendfsync-on-rewrite is no"),
        Some(_) => Promise::broken(
            FSYNC_ON_REWRITE,
            "the store does not fsync while it rewrites its append-only file, which durable needs: set \
             no-appendfsync-on-rewrite no, or run with --durability fast",
        ),
        None => unchecked_setting(FSYNC_ON_REWRITE, "no-appendfsync-on-rewrite", "no"),
    };
    let rewrites = ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().any(|field| info.get(field) == "1");
    let first_rewrite = match (rewrites, rewrites && may_be_the_first(info, before)) {
        (_, true) => Promise::broken(
            FIRST_REWRITE,
            "the store rewrites its append-only file, and may have no complete one before that ends: wait for it, \
             or read the log of Redis",
        ),
        (true, false) => {
            Promise::kept(FIRST_REWRITE, "a later rewrite is under way, and the file before it is complete")
        }
        (false, false) => Promise::kept(FIRST_REWRITE, "no rewrite is under way"),
    };
    let last_write = match info.get("aof_last_write_status") {
        "ok" => Promise::kept(LAST_WRITE, "the last write of the append-only file succeeded"),
        status => Promise::broken(
            LAST_WRITE,
            format!("the store cannot write its append-only file ({status:?}): check its disk and its log"),
        ),
    };
    [Promise::kept(APPENDS, "the append-only file is on"), fsync, on_rewrite, first_rewrite, last_write]
}

fn unchecked_setting(name: &'static str, setting: &str, value: &str) -> Promise {
    let why = "CONFIG GET is not permitted";
    Promise::not_checked(name, format!("{UNCHECKED}{setting}, because {why}: make sure that it is {value}"))
}

fn detail(promise: &Promise) -> String {
    promise.detail.clone()
}

/// Whether this rewrite of the append-only file may be the first since the file was switched on. A crash before its end
/// loses acknowledged changes. A later rewrite reports the same fields, but the process was fit when it began, or has
/// loaded a file.
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

/// Names and values. An absent name has an empty value.
#[derive(Debug, Default)]
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    pub(super) fn parse_info(info: &str) -> Fields {
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        Fields(pairs.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    pub(super) fn from_pairs(reply: &Value) -> Fields {
        let Value::Array(items) = reply else {
            return Fields::default();
        };
        Fields(items.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

pub(super) fn text(value: &Value) -> String {
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
        match judge(&Fields::parse_info(info), config, durability, &Before::Unfit).verdict {
            Err(Unfit::Faults(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_store_is_fit() {
        let good = config("noeviction", "yes", "always");
        let fit = judge(&Fields::parse_info(INFO), Some(&good), Durability::Durable, &Before::Unknown).verdict.unwrap();
        assert_eq!((fit.version.as_str(), fit.run_id.as_str()), ("redis 7.0.15", "abc"));
        assert!(fit.notes.is_empty());
        let valkey = format!("{INFO}valkey_version:8.1.0\r\n");
        let fit =
            judge(&Fields::parse_info(&valkey), Some(&good), Durability::Durable, &Before::Unknown).verdict.unwrap();
        assert_eq!(fit.version, "valkey 8.1.0");
    }

    #[test]
    fn each_fault_has_its_line() {
        let good = config("noeviction", "yes", "always");
        for (from, to, detail) in [
            ("redis_version:7.0.15", "redis_version:6.2.14", "6.2.14"),
            ("redis_version:7.0.15", "redis_version:unstable", "unstable"),
            ("role:master", "role:slave", "primary"),
            ("redis_mode:standalone", "redis_mode:cluster", "cluster"),
            ("aof_last_write_status:ok", "aof_last_write_status:err", "disk"),
        ] {
            let found = faults(&INFO.replace(from, to), Some(&good), Durability::Durable);
            assert!(found.len() == 1 && found[0].contains(detail), "{to}: {found:?}");
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
        judge(&Fields::parse_info(INFO), Some(&pausing), Durability::Fast, &Before::Unknown).verdict.unwrap();
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
                judge(&info, Some(&good), Durability::Durable, before).verdict.is_ok()
            };
            let (fit, another) = (Before::Fit("abc".to_owned()), Before::Fit("another process".to_owned()));
            let all = [&fit, &another, &Before::Unknown, &Before::Unfit];
            assert_eq!(all.map(|before| judged(0, before)), [true, false, false, false]);
            assert_eq!(all.map(|before| judged(9, before)), [true, true, true, false]);
            judge(&Fields::parse_info(&info), Some(&good), Durability::Fast, &Before::Unfit).verdict.unwrap();
        }
    }

    #[test]
    fn without_config_info_is_believed_and_the_rest_is_said() {
        let fit = judge(&Fields::parse_info(INFO), None, Durability::Durable, &Before::Unknown).verdict.unwrap();
        assert_eq!(
            fit.notes,
            [
                "could not check appendfsync, because CONFIG GET is not permitted: make sure that it is always",
                "could not check no-appendfsync-on-rewrite, because CONFIG GET is not permitted: make sure that it is \
                 no"
            ]
        );
        let found = faults(&INFO.replace("aof_enabled:1", "aof_enabled:0"), None, Durability::Durable);
        assert!(found[0].contains("append-only"), "{found:?}");
    }

    #[test]
    fn loading_is_away_and_no_fault() {
        let info = Fields::parse_info(&INFO.replace("\nloading:0", "\nloading:1"));
        assert!(matches!(
            judge(&info, None, Durability::Durable, &Before::Unknown).verdict,
            Err(Unfit::Unavailable(_))
        ));
    }
}
