//! The resources that processes have used so far: CPU time and memory from /proc, Redis's CPU time from its INFO,
//! batches from the server's /metrics. Reads and changes nothing.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::stats::Cpu;

/// `USER_HZ`, the unit of CPU time in /proc on every Linux that we know.
const TICKS_PER_SECOND: f64 = 100.0;
/// Longest wait for the server's metrics.
const METRICS_LIMIT: Duration = Duration::from_secs(10);
/// The histogram of the server that counts the operations of each batch.
const BATCHES: &str = "inventory_sentinel_batch_operations";

/// CPU seconds and batches of those who take part in a run, so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Of the callers.
    pub(crate) client: f64,
    /// Of the service between, and of Redis or PostgreSQL, if there is one.
    pub(crate) server: Option<f64>,
    pub(crate) store: Option<f64>,
    pub(crate) batches: Option<Batches>,
}

/// Batches of a server, and the operations in all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Batches {
    pub(crate) number: f64,
    pub(crate) operations: f64,
}

impl Usage {
    /// The use from then until now, as microseconds per answer.
    pub(crate) fn per_answer(&self, then: &Self, answers: f64) -> Cpu {
        let per_answer = |now: f64, then: f64| (now - then) * 1e6 / answers;
        let of = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| per_answer(now, then));
        Cpu {
            client: per_answer(self.client, then.client),
            server: of(self.server, then.server),
            store: of(self.store, then.store),
        }
    }

    /// The mean operations of the batches from then until now. `None` where there were none.
    pub(crate) fn operations_per_batch(&self, then: &Self) -> Option<f64> {
        let (now, then) = self.batches.zip(then.batches)?;
        let number = now.number - then.number;
        (number > 0.0).then(|| (now.operations - then.operations) / number)
    }
}

/// CPU seconds of this process so far: the callers'.
pub(crate) fn own_cpu() -> Result<f64> {
    cpu_of(std::process::id())
}

/// CPU seconds of those that this process has started and that have ended.
pub(crate) fn ended_cpu() -> Result<f64> {
    Ok(stat_of(std::process::id())?.ended)
}

/// CPU seconds of a process.
pub(crate) fn cpu_of(pid: u32) -> Result<f64> {
    Ok(stat_of(pid)?.own)
}

/// CPU seconds of the threads of a process that run now, in nanoseconds of precision instead of ticks.
pub(crate) fn exact_cpu_of(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = stat.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        nanoseconds += on_cpu.with_context(|| format!("unexpected: {stat}"))?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// CPU seconds of a process and of those that it has started, also of those of them that have ended.
pub(crate) fn cpu_of_family(pid: u32) -> Result<f64> {
    let mut seconds = 0.0;
    // Not `/proc/PID/task/*/children`, which many kernels are built without.
    for entry in fs::read_dir("/proc")? {
        let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may end meanwhile: then its parent has its time.
        let Ok(stat) = stat_of(other) else { continue };
        if stat.parent == pid {
            seconds += stat.own + stat.ended;
        }
    }
    let stat = stat_of(pid)?;
    Ok(seconds + stat.own + stat.ended)
}

/// Bytes of memory that a process has.
pub(crate) fn memory_of(pid: u32) -> Result<u64> {
    memory_field(pid, "VmRSS:")
}

/// The most bytes of memory that a process has had since it started, or since [`reset_peak`].
pub(crate) fn peak_memory_of(pid: u32) -> Result<u64> {
    memory_field(pid, "VmHWM:")
}

/// Lets the peak of a process's memory begin at what it has now.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn memory_field(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in the status of process {pid}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// The values of a stat line of /proc.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// CPU seconds, user and system, of its threads.
    own: f64,
    /// The same of those that it has started and waited for.
    ended: f64,
}

fn stat_of(pid: u32) -> Result<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat(&line).with_context(|| format!("unexpected: {line}"))
}

/// The name in the line may hold spaces and parentheses; behind it come the state, the parent, nine others, times.
fn stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let mut times = fields.skip(9).map_while(|ticks| ticks.parse::<f64>().ok());
    let mut seconds = || Some((times.next()? + times.next()?) / TICKS_PER_SECOND);
    Some(Stat { parent, own: seconds()?, ended: seconds()? })
}

/// CPU seconds that Redis reports, all of its threads, in its `INFO cpu`.
pub(crate) fn cpu_of_info(info: &str) -> Option<f64> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    let (user, system): (f64, f64) = (field("used_cpu_user")?, field("used_cpu_sys")?);
    Some(user + system)
}

/// The batches that a server has sent to Redis so far; `None` of a server that does not count them.
pub(crate) async fn batches_of(admin: SocketAddr) -> Result<Option<Batches>> {
    let page = tokio::time::timeout(METRICS_LIMIT, metrics(admin)).await?.context("the server's metrics")?;
    Ok(batches(&page))
}

async fn metrics(admin: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn batches(page: &str) -> Option<Batches> {
    let field = |name: &str| {
        let line = |line: &str| line.strip_prefix(BATCHES)?.strip_prefix(name)?.trim().parse().ok();
        page.lines().find_map(line)
    };
    Some(Batches { number: field("_count ")?, operations: field("_sum ")? })
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        thread::sleep,
        time::Instant,
    };

    use super::*;

    #[test]
    fn a_stat_line_is_read() {
        let line = "41 (a (b) c) S 7 41 41 0 -1 4194560 903 0 0 0 150 50 25 5 20 0 1 0 9 8 7 6";
        assert_eq!(stat(line), Some(Stat { parent: 7, own: 2.0, ended: 0.3 }));
        assert_eq!(stat("41 (a) S 7"), None);
    }

    #[test]
    fn a_family_is_also_those_who_have_ended() {
        // The inner `sh` counts, first as one that runs and then as one that was waited for.
        let mut parent = Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; read end"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let give_up = Instant::now() + Duration::from_secs(30);
        let seen = loop {
            let (own, family) = (cpu_of(parent.id()).unwrap(), cpu_of_family(parent.id()).unwrap());
            let ended = stat_of(parent.id()).unwrap().ended;
            if (ended > 0.0 && family >= own + ended) || Instant::now() > give_up {
                break (ended, family);
            }
            sleep(Duration::from_millis(20));
        };
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert!(seen.0 > 0.0 && seen.1 >= seen.0, "{seen:?}");
    }

    #[test]
    fn infos_cpu_is_user_and_system_of_all_threads() {
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\nused_cpu_sys_children:9.0\r\n\
                    used_cpu_user_children:9.0\r\nused_cpu_sys_main_thread:1.0\r\nused_cpu_user_main_thread:2.0\r\n";
        assert_eq!(cpu_of_info(info), Some(3.75));
        assert_eq!(cpu_of_info("# CPU\r\n"), None);
    }

    #[test]
    fn batches_are_read_from_the_metrics() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# TYPE inventory_sentinel_batch_operations histogram\n\
                    inventory_sentinel_batch_operations_bucket{le=\"1\"} 2\n\
                    inventory_sentinel_batch_operations_sum 1536\ninventory_sentinel_batch_operations_count 5\n";
        assert_eq!(batches(page), Some(Batches { number: 5.0, operations: 1536.0 }));
        assert_eq!(batches("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn use_is_what_came_since() {
        let then = Usage {
            client: 1.0,
            server: Some(2.0),
            store: None,
            batches: Some(Batches { number: 10.0, operations: 100.0 }),
        };
        let now = Usage {
            client: 1.5,
            server: Some(4.0),
            store: None,
            batches: Some(Batches { number: 14.0, operations: 1000.0 }),
        };
        let cpu = now.per_answer(&then, 1_000_000.0);
        assert_eq!((cpu.client, cpu.server, cpu.store), (0.5, Some(2.0), None));
        assert_eq!(now.operations_per_batch(&then), Some(225.0));
        assert_eq!(then.operations_per_batch(&then), None);
    }
}
