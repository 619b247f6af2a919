//! The checks of GetServerInfo: version, durability, store, state file, clocks, fenced partitions, and each other
//! promise. Pure, but for the time of this machine.

use std::time::{Duration, SystemTime};

use inventory_sentinel_client::{FencedPartition, Promise, PromiseState, ServerInfo};

use super::{Check, readyz};
use crate::{config::Settings, views};

/// The `state` of a server without a state folder.
const MEMORY_ONLY: &str = "memory only";
/// The next step if `fast` is not enough.
const DURABLE_INSTEAD: &str = "start the server with --durability durable if that must not be";
/// The smallest reported offset of a clock, in milliseconds.
const CLOCK_OFFSET_MS: u64 = 1_000;

/// Promises with a separate, more detailed check.
const COVERED: [&str; 3] = ["history", "clocks", "partitions"];

pub(super) fn checks(settings: &Settings, info: &ServerInfo) -> Vec<Check> {
    let mut checks = vec![version(info), durability(info), store(info), state(info), clocks(info)];
    if info.fenced_partitions.is_empty() {
        checks.push(Check::ok("partitions", "none is fenced"));
    }
    let others = info.promises.iter().filter(|promise| !COVERED.contains(&promise.name.as_str()));
    checks.extend(others.map(promise));
    checks.extend(info.fenced_partitions.iter().map(|fenced| partition(settings, fenced)));
    checks
}

/// The detail contains the remedy, if any.
fn promise(promise: &Promise) -> Check {
    let Promise { name, state, detail, .. } = promise;
    let found = format!("{name}: {detail}");
    let fixes = readyz::fixes(detail).join("; ");
    match state {
        PromiseState::Kept => Check::ok("promise", found),
        PromiseState::Broken if fixes.is_empty() => Check::fail("promise", found, "read the log of the server"),
        PromiseState::Broken => Check::fail("promise", found, fixes),
        _ if detail.starts_with("fast") => Check::warn("promise", found, DURABLE_INSTEAD),
        _ if fixes.is_empty() => Check::warn("promise", found, "follow the other lines, and check again"),
        _ => Check::warn("promise", found, fixes),
    }
}

fn version(info: &ServerInfo) -> Check {
    let (server, own) = (info.version.as_str(), env!("CARGO_PKG_VERSION"));
    let line = |version: &str| version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let found = format!("the server is {server}, sentinelctl is {own}");
    match line(server) == line(own) {
        true => Check::ok("version", found),
        false => Check::warn("version", found, "use the sentinelctl of the server's release"),
    }
}

fn durability(info: &ServerInfo) -> Check {
    match info.durability.as_str() {
        "durable" => Check::ok("durability", "durable: each OK is on disk"),
        other => Check::warn(
            "durability",
            format!("{other}: a crash of the store loses what was acknowledged last"),
            DURABLE_INSTEAD,
        ),
    }
}

fn store(info: &ServerInfo) -> Check {
    match (info.store_version.as_str(), info.store_id.as_str()) {
        ("", _) => Check::fail(
            "store",
            "the server has not reached its store",
            "start the store, or correct --redis-url of the server",
        ),
        (version, "") => Check::ok("store", version),
        (version, id) => Check::ok("store", format!("{version}, id {id}")),
    }
}

fn state(info: &ServerInfo) -> Check {
    let ServerInfo { state, state_written_at, state_error, .. } = info;
    if !state_error.is_empty() {
        let next = "make room on the disk of --state-dir, and let the server write there";
        return Check::fail("state file", format!("{state} can't be written: {state_error}"), next);
    }
    if state == MEMORY_ONLY {
        let next = "start the server with --state-dir (docs/concepts/lost-changes.md)";
        return Check::warn(
            "state file",
            "none: after a restart the server can't notice a store that lost changes",
            next,
        );
    }
    match state_written_at {
        None => Check::warn("state file", format!("{state} was never written"), "check again after the first change"),
        Some(at) => {
            let age = SystemTime::now().duration_since(*at).unwrap_or_default();
            let age = views::length(Duration::from_secs(age.as_secs()));
            Check::ok("state file", format!("{state}, written {age} ago"))
        }
    }
}

fn clocks(info: &ServerInfo) -> Check {
    let (clock, time_of_day) = (info.clock_offset_ms, info.time_of_day_offset_ms);
    let found =
        format!("partitions differ from the store's clock by {clock} ms, their time of day by {time_of_day} ms");
    match clock.unsigned_abs().max(time_of_day.unsigned_abs()) >= CLOCK_OFFSET_MS {
        false => Check::ok("clocks", found),
        true => Check::warn(
            "clocks",
            found,
            "check NTP on the store's machine (docs/concepts/clock.md); a lasting clock offset costs nothing",
        ),
    }
}

fn partition(settings: &Settings, fenced: &FencedPartition) -> Check {
    let FencedPartition { namespace, partition, fence, .. } = fenced;
    let lost = fenced.seen_sequence.saturating_sub(fenced.kept_sequence);
    let found = format!("partition {partition} of namespace {namespace} is fenced: its store lost {lost} changes");
    let next = format!(
        "compute the figures from the records of the shop (docs/concepts/lost-changes.md), then `sentinelctl --server \
         {} -n {namespace} settle --partition {partition} --fence {fence} --file figures.csv`",
        settings.server
    );
    match fenced.is_gated {
        true => Check::fail("partitions", found, next),
        false => Check::warn("partitions", found, next),
    }
}
