//! The shop's ordinary way: PostgreSQL, a conditional UPDATE and a row for the hold in one transaction, here in
//! one prepared statement and so in one round trip. Starts a server of its own in a temporary folder.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::{
    load::Caller,
    process::{Process, cpu_of_family},
};

/// Connections, on which callers queue: among 4 to 64 the number with the highest rate on two cores.
const CONNECTIONS: usize = 16;
const SCHEMA: &str = "
    CREATE TABLE stock (sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0));
    CREATE TABLE hold (id uuid PRIMARY KEY, sku text NOT NULL, quantity int NOT NULL, expires_at timestamptz NOT NULL);
    INSERT INTO stock SELECT 'sku-' || number, 1000000000 FROM generate_series(0, 999) AS number;";
const RESERVE: &str = "
    WITH taken AS (
        UPDATE stock SET available = available - $3 WHERE sku = $2 AND available >= $3 RETURNING sku)
    INSERT INTO hold SELECT $1, sku, $3::bigint::int, now() + interval '1 hour' FROM taken";

/// A PostgreSQL that fsyncs before it answers, as it does by default.
pub(crate) struct Postgres {
    process: Process,
    folder: TempDir,
}

impl Postgres {
    /// Starts one. Needs its programs, and as root a user `postgres`, for it refuses to be run by root.
    pub(crate) async fn start() -> Result<Self> {
        let programs = programs().context("PostgreSQL is not installed")?;
        let folder = tempfile::tempdir()?;
        let user = is_root().then(postgres_user).transpose()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir(folder.path());
            command
        };
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--username=bench", "--auth=trust", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()?;
        ensure!(made.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
        let mut server = command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        server.args(["-c", "listen_addresses=", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"]);
        // At once, whoever is connected, and without a checkpoint: nobody reads the data again.
        let process = Process::start(&mut server, folder.path(), Signal::QUIT)?;
        let mut postgres = Self { process, folder };
        let socket = postgres.folder.path().to_owned();
        postgres.process.wait_until(|| async { connect(&socket).await.is_ok() }).await.context("postgres")?;
        connect(&socket).await?.batch_execute(SCHEMA).await?;
        Ok(postgres)
    }

    /// So many callers, over a few connections.
    pub(crate) async fn callers(&self, skus: usize, number: usize) -> Result<Vec<Sql>> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = connect(self.folder.path()).await?;
            let reserve = client.prepare(RESERVE).await?;
            clients.push((Arc::new(client), reserve));
        }
        let caller = |i: usize| {
            let (client, reserve) = clients[i % clients.len()].clone();
            Sql { client, reserve, skus, next: i }
        };
        Ok((0..number).map(caller).collect())
    }

    /// CPU seconds of all its processes so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu_of_family(self.process.id())
    }
}

/// One who reserves by SQL.
#[derive(Clone)]
pub(crate) struct Sql {
    client: Arc<Client>,
    reserve: Statement,
    skus: usize,
    next: usize,
}

impl Caller for Sql {
    async fn call(&mut self) -> Result<()> {
        let sku = format!("sku-{}", self.next % self.skus);
        self.next += 7919;
        let held = self.client.execute(&self.reserve, &[&Uuid::now_v7(), &sku, &1_i64]).await?;
        ensure!(held == 1, "no unit was held");
        Ok(())
    }
}

async fn connect(socket: &Path) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    let (client, connection) = config.host_path(socket).user("bench").dbname("postgres").connect(NoTls).await?;
    // It ends when its client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

/// The folder of `initdb` and `postgres`: in PATH, or where Debian and Red Hat put it.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for parent in ["/usr/lib/postgresql", "/usr"] {
        let versions = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn postgres_user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let entry = users.lines().find(|line| line.starts_with("postgres:")).context("there is no user `postgres`")?;
    let mut fields = entry.split(':').skip(2).map(str::parse::<u32>);
    let (Some(Ok(uid)), Some(Ok(gid))) = (fields.next(), fields.next()) else { anyhow::bail!("unexpected: {entry}") };
    Ok((uid, gid))
}
