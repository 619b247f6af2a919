//! The shop's ordinary way: PostgreSQL, a conditional UPDATE and a row for the hold in one transaction, as shops
//! write it, and at its best, in one statement. Starts a separate server in a temporary folder.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{sync::Semaphore, time::timeout};
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::{
    load::Caller,
    process::Process,
    usage::{self, Usage},
};

/// Connections, for which callers queue: among 4 to 64 the number with the highest rate on two cores.
const CONNECTIONS: usize = 16;
/// Longest wait for one of them.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
const SCHEMA: &str = "
    CREATE TABLE stock (sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0));
    CREATE TABLE hold (id uuid PRIMARY KEY, sku text NOT NULL, quantity int NOT NULL, expires_at timestamptz NOT NULL);
    INSERT INTO stock SELECT 'sku-' || number, 1000000000 FROM generate_series(0, 999) AS number;";
const TAKE: &str = "UPDATE stock SET available = available - $2 WHERE sku = $1 AND available >= $2";
const HOLD: &str = "INSERT INTO hold VALUES ($1, $2, $3::bigint::int, now() + interval '1 hour')";
const BOTH: &str = "
    WITH taken AS (
        UPDATE stock SET available = available - $3 WHERE sku = $2 AND available >= $3 RETURNING sku)
    INSERT INTO hold SELECT $1, sku, $3::bigint::int, now() + interval '1 hour' FROM taken";

/// How a unit is reserved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// BEGIN, UPDATE, INSERT, COMMIT: four statements, each awaited, on a connection that nobody else has meanwhile.
    Transaction,
    /// One statement that does both, and on each connection the next behind it before it is answered.
    OneStatement,
}

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
            .args(["--username=bench", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync", "--pgdata"])
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

    /// So many callers, who take turns on a few connections.
    pub(crate) async fn transactions(&self, skus: usize, number: usize) -> Result<Vec<Transaction>> {
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = connect(self.folder.path()).await?;
            let (take, hold) = (client.prepare(TAKE).await?, client.prepare(HOLD).await?);
            idle.push(Connection { client, take, hold });
        }
        let pool = Arc::new(Pool { free: Semaphore::new(idle.len()), idle: Mutex::new(idle) });
        Ok((0..number).map(|next| Transaction { pool: Arc::clone(&pool), skus: Skus { number: skus, next } }).collect())
    }

    /// So many callers, who share a few connections.
    pub(crate) async fn one_statements(&self, skus: usize, number: usize) -> Result<Vec<OneStatement>> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = connect(self.folder.path()).await?;
            let both = client.prepare(BOTH).await?;
            clients.push((client, both));
        }
        let clients: Arc<[_]> = clients.into();
        let caller = |i| OneStatement {
            clients: Arc::clone(&clients),
            mine: i % CONNECTIONS,
            skus: Skus { number: skus, next: i },
        };
        Ok((0..number).map(caller).collect())
    }

    /// The CPU time of callers in this process and of all processes of the database so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let store = usage::cpu_of_family(self.process.id())?;
        Ok(Usage { client: usage::own_cpu()?, store: Some(store), ..Usage::default() })
    }
}

/// The next SKU of a caller.
#[derive(Clone)]
struct Skus {
    number: usize,
    next: usize,
}

impl Skus {
    fn next(&mut self) -> String {
        let sku = format!("sku-{}", self.next % self.number);
        // A step that shares no factor with the numbers of SKUs in use.
        self.next += 7919;
        sku
    }
}

/// Connections that one caller at a time has.
struct Pool {
    free: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    take: Statement,
    hold: Statement,
}

/// One who reserves in the usual transaction.
#[derive(Clone)]
pub(crate) struct Transaction {
    pool: Arc<Pool>,
    skus: Skus,
}

impl Caller for Transaction {
    async fn call(&mut self) -> Result<()> {
        let _turn = timeout(CONNECTION_LIMIT, self.pool.free.acquire()).await??;
        // A panic elsewhere fails the run, too.
        let idle = || self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = idle().pop().context("a turn is a connection")?;
        let sku = self.skus.next();
        let transaction = connection.client.transaction().await?;
        let taken = transaction.execute(&connection.take, &[&sku, &1_i64]).await?;
        ensure!(taken == 1, "no unit was taken");
        transaction.execute(&connection.hold, &[&Uuid::now_v7(), &sku, &1_i64]).await?;
        transaction.commit().await?;
        idle().push(connection);
        Ok(())
    }
}

/// One who reserves in one statement.
#[derive(Clone)]
pub(crate) struct OneStatement {
    // All of them, so that none is closed before the last caller ends.
    clients: Arc<[(Client, Statement)]>,
    mine: usize,
    skus: Skus,
}

impl Caller for OneStatement {
    async fn call(&mut self) -> Result<()> {
        let (client, both) = &self.clients[self.mine];
        let held = client.execute(both, &[&Uuid::now_v7(), &self.skus.next(), &1_i64]).await?;
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
pub(crate) fn programs() -> Option<PathBuf> {
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
