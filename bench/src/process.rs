//! A server process under measurement: the real binary with its own Redis in a temporary folder.
//! Starts and stops processes, and reads their CPU time from the operating system.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a server to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for it to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// `USER_HZ`, the unit of CPU time in /proc on every Linux that we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// One server and the Redis that it supervises.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Server {
    /// Starts the binary with these flags and waits until it serves.
    pub(crate) async fn start(binary: &Path, flags: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address, admin) = (free_address()?, free_address()?);
        let log = fs::File::create(folder.path().join("server.log"))?;
        let child = Command::new(binary)
            .arg("--listen")
            .arg(address.to_string())
            .arg("--admin-listen")
            .arg(admin.to_string())
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self { child, folder, address };
        server.wait_until_it_serves().await?;
        Ok(server)
    }

    async fn wait_until_it_serves(&mut self) -> Result<()> {
        let give_up = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", fs::read_to_string(self.log())?);
            }
            if let Ok(channel) = self.connect().await {
                let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
                let reply = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
                if reply.is_ok_and(|reply| reply.into_inner().status == 1) {
                    return Ok(());
                }
            }
            if Instant::now() > give_up {
                bail!("the server was not ready in {START_LIMIT:?}:\n{}", fs::read_to_string(self.log())?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        Ok(Endpoint::new(format!("http://{}", self.address))?.tcp_nodelay(true).connect().await?)
    }

    /// CPU seconds that the server and its Redis have used so far.
    pub(crate) fn cpu(&self) -> Result<(f64, f64)> {
        let server = self.child.id();
        let redis = child_of(server)?;
        Ok((cpu_of(server)?, redis.map(cpu_of).transpose()?.unwrap_or(0.0)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // In order, so that its Redis ends with it.
        let _ = Command::new("kill").arg("-TERM").arg(&pid).status();
        let give_up = Instant::now() + STOP_LIMIT;
        while Instant::now() < give_up {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// User and system time of a process, from its stat line; the name in it may hold spaces.
fn cpu_of(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a stat line has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

fn child_of(pid: u32) -> Result<Option<u32>> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(child.parse()?));
        }
    }
    Ok(None)
}
