//! The default memory limit of the embedded Redis: half of the memory of this machine or container. Reads files of the
//! kernel and nothing else.

use std::fs;

/// The divisor of the memory. The rest is for the server, for the fork of a rewrite, and for the system.
const SHARE: u64 = 2;
/// The files with the limit of a container, in both versions of control groups.
const CONTAINER_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
const MACHINE: &str = "/proc/meminfo";

/// The limit in bytes; `None` if the size of the memory is unknown.
pub(super) fn default_limit() -> Option<u64> {
    let machine = fs::read_to_string(MACHINE).ok().and_then(|text| total(&text));
    let containers = CONTAINER_LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    containers.chain(machine).min().map(|memory: u64| memory / SHARE)
}

/// The memory of the machine, parsed from the text of /proc/meminfo.
fn total(text: &str) -> Option<u64> {
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    kilobytes.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       24682944 kB\nMemFree:  1 kB\n"), Some(24_682_944 * 1_024));
        assert_eq!(total("nothing"), None);
        if cfg!(target_os = "linux") {
            assert!(default_limit().is_some_and(|limit| limit > 1 << 20));
        }
    }
}
