//! An expiry storm: many holds of one SKU fall due in the same instant, beside calls for other SKUs of the same
//! partition. Starts a separate server, measures the calls before the storm and during it, and prints a table.
//! Writes nothing but temporary folders.

use std::{
    fmt::Display,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::value_parser;
use hdrhistogram::Histogram;
use inventory_sentinel::v1::{
    self, inventory_admin_client::InventoryAdminClient, inventory_sentinel_client::InventorySentinelClient,
    reserve_response::Result as Reserved,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    fixture::{Shop, TTL},
    process::{Durability, Server},
};

/// Measures calls beside an expiry storm; ends with 1 where one kind is slower than the ratio allows.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server.
    #[arg(long, default_value = "target/release/sentinel-server", value_name = "BINARY")]
    server: PathBuf,
    /// Holds that fall due together.
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    holds: u64,
    /// Callers that wait for the SKU of the storm: by default more than fit into a batch.
    #[arg(long, default_value_t = 600)]
    waiters: usize,
    /// Calls per second of each kind.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u64).range(1..=1_000))]
    rate: u64,
    /// The most that the 99th percentile during the storm may be of that before it.
    #[arg(long, default_value_t = 2.0)]
    ratio: f64,
}

const NAMESPACE: &str = "storm";
/// The SKU of the storm, all units of which are held.
const STORM: &str = "storm";
/// A SKU with units for every call.
const OPEN: &str = "open";
/// A SKU of which all units are held beyond the storm, and how many.
const SOLD_OUT: &str = "sold-out";
const SOLD_OUT_UNITS: i64 = 10;
/// A SKU of which an expired reservation would buy the only unit, which is held again.
const LATE: &str = "late";
/// The fewest holds per second that the filling is expected to make, behind its start.
const SLOWEST_FILL: u64 = 25_000;
const FILL_START: Duration = Duration::from_secs(5);
/// How long calls are measured before the storm, behind a time in which connections warm up.
const CALM: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(2);
/// The callers that wait come one after the other, so that their arrival is not what is measured.
const WAITER_INTERVAL: Duration = Duration::from_micros(200);
/// The longest storm.
const LIMIT: Duration = Duration::from_secs(120);
/// Connections that the callers share.
const CONNECTIONS: usize = 4;

/// The calls for other SKUs than that of the storm.
#[derive(Clone, Copy, Debug)]
enum Kind {
    ReserveGiven,
    ReserveShort,
    GetStock,
    IsProtected,
    CommitLate,
    DeleteSku,
    AdjustStock,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::ReserveGiven, "Reserve, given"),
    (Kind::ReserveShort, "Reserve, short"),
    (Kind::GetStock, "GetStock"),
    (Kind::IsProtected, "IsProtected"),
    (Kind::CommitLate, "Commit, late and short"),
    (Kind::DeleteSku, "DeleteSku, refused"),
    (Kind::AdjustStock, "AdjustStock, refused"),
];

/// One caller.
#[derive(Clone)]
struct Caller {
    checkout: InventorySentinelClient<Channel>,
    admin: InventoryAdminClient<Channel>,
    /// The expired reservation of [`LATE`].
    lapsed: Arc<str>,
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn named(namespace_id: &str, sku: &str) -> (String, String) {
    (namespace_id.to_owned(), sku.to_owned())
}

/// Checks that a call was refused for what the SKU holds.
fn refused<T>(answer: Result<T, Status>) -> Result<()> {
    match answer {
        Ok(_) => bail!("it was not refused"),
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        Err(status) => Err(status.into()),
    }
}

impl Caller {
    async fn call(&mut self, kind: Kind) -> Result<()> {
        let (namespace_id, sku) = named(NAMESPACE, SOLD_OUT);
        match kind {
            Kind::ReserveGiven => _ = self.hold(OPEN, 1, TTL).await?,
            Kind::ReserveShort => {
                let answer = self.reserve(SOLD_OUT, 1, TTL).await?;
                ensure!(matches!(answer, Reserved::Shortage(_)), "unexpected answer: {answer:?}");
            }
            Kind::GetStock => {
                let (available, held) = self.stock(SOLD_OUT).await?;
                ensure!((available, held) == (0, SOLD_OUT_UNITS), "{available} available, {held} held");
            }
            Kind::IsProtected => {
                let answer = self.checkout.is_protected(v1::IsProtectedRequest { namespace_id, sku }).await?;
                ensure!(answer.into_inner().is_protected, "not protected");
            }
            Kind::CommitLate => {
                let request = v1::CommitRequest {
                    namespace_id,
                    reservation_id: self.lapsed.to_string(),
                    late_policy: v1::LatePolicy::Repurchase.into(),
                    ..Default::default()
                };
                refused(self.checkout.commit(request).await)?;
            }
            Kind::DeleteSku => {
                let request = v1::DeleteSkuRequest { namespace_id, sku, request_id: new_id() };
                refused(self.admin.delete_sku(request).await)?;
            }
            Kind::AdjustStock => {
                let request = v1::AdjustStockRequest {
                    namespace_id,
                    sku,
                    delta: -1,
                    request_id: new_id(),
                    existing_namespace_only: false,
                };
                refused(self.admin.adjust_stock(request).await)?;
            }
        }
        Ok(())
    }

    async fn reserve(&mut self, sku: &str, quantity: i32, ttl: Duration) -> Result<Reserved> {
        let request = v1::ReserveRequest {
            namespace_id: NAMESPACE.to_owned(),
            request_id: new_id(),
            lines: vec![v1::Line { sku: sku.to_owned(), quantity }],
            ttl: Some(ttl.try_into()?),
            ..Default::default()
        };
        self.checkout.reserve(request).await?.into_inner().result.context("a response has a result")
    }

    /// A hold that must succeed.
    async fn hold(&mut self, sku: &str, quantity: i32, ttl: Duration) -> Result<v1::Reservation> {
        match self.reserve(sku, quantity, ttl).await? {
            Reserved::Reservation(reservation) => Ok(reservation),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// Available and held units.
    async fn stock(&mut self, sku: &str) -> Result<(i64, i64)> {
        let (namespace_id, sku) = named(NAMESPACE, sku);
        let answer = self.checkout.get_stock(v1::GetStockRequest { namespace_id, sku }).await?;
        let stock = answer.into_inner().stock.context("an answer has a stock")?;
        Ok((stock.available, stock.held))
    }
}

/// A call of a kind, by its number in [`KINDS`]; when it was made, and how long it took.
type Call = (usize, Instant, Duration);

/// Calls of all kinds at a steady rate, whatever the answers do. They end when this is dropped.
struct Streams {
    answers: mpsc::UnboundedReceiver<Result<Call>>,
    tasks: JoinSet<()>,
}

impl Streams {
    fn start(callers: &[Caller], rate: u64) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let period = Duration::from_secs(1) / rate as u32;
        for (kind, caller) in (0..KINDS.len()).zip(callers.iter().cycle()) {
            // Not all at the same moments.
            let first = tokio::time::Instant::now() + period * kind as u32 / KINDS.len() as u32;
            let (caller, sender) = (caller.clone(), sender.clone());
            tasks.spawn(async move {
                let mut ticks = interval_at(first, period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    ticks.tick().await;
                    let (mut caller, sender) = (caller.clone(), sender.clone());
                    tokio::spawn(async move {
                        let start = Instant::now();
                        let answer = caller.call(KINDS[kind].0).await.with_context(|| KINDS[kind].1);
                        // After the end of the measurement nobody receives it.
                        let _ = sender.send(answer.map(|()| (kind, start, start.elapsed())));
                    });
                }
            });
        }
        Self { answers, tasks }
    }

    /// Ends them and returns all calls, those under way included.
    async fn end(mut self) -> Result<Vec<Call>> {
        self.tasks.shutdown().await;
        let mut calls = Vec::new();
        while let Some(call) = timeout(LIMIT, self.answers.recv()).await.context("an answer in time")? {
            calls.push(call?);
        }
        Ok(calls)
    }
}

/// Percentiles in milliseconds.
struct Figures {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Figures {
    fn of(calls: &[Call], kind: usize, from: Instant, to: Instant) -> Result<Self> {
        let mut histogram = Histogram::<u64>::new(3)?;
        for (_, _, latency) in calls.iter().filter(|(its, at, _)| *its == kind && (from..to).contains(at)) {
            histogram.record(latency.as_micros() as u64)?;
        }
        ensure!(!histogram.is_empty(), "no call of {}", KINDS[kind].1);
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Self { p50: at(0.5), p99: at(0.99), most: histogram.max() as f64 / 1e3 })
    }
}

fn row(cells: [&dyn Display; 7]) -> String {
    cells.iter().fold("|".to_owned(), |row, cell| format!("{row} {cell} |"))
}

/// Runs the storm and prints the table.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let server = Server::start(&args.server, Durability::Fast, &[]).await?;
    let client = server.client().connect().await?;
    let stock = [(STORM, args.holds as i64), (OPEN, 1_000_000_000), (SOLD_OUT, SOLD_OUT_UNITS), (LATE, 1)];
    client.namespace(NAMESPACE).admin().import_stock(stock).await?;
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = server.connect().await?;
        let (checkout, admin) = (InventorySentinelClient::new(channel.clone()), InventoryAdminClient::new(channel));
        callers.push(Caller { checkout, admin, lapsed: "".into() });
    }
    let lapsed = callers[0].hold(LATE, 1, Duration::from_millis(1)).await?.reservation_id;
    // It is available as soon as the deadline has passed.
    while matches!(callers[0].reserve(LATE, 1, TTL).await?, Reserved::Shortage(_)) {}
    callers[0].hold(SOLD_OUT, SOLD_OUT_UNITS as i32, TTL).await?;
    let lapsed: Arc<str> = lapsed.into();
    callers.iter_mut().for_each(|caller| caller.lapsed = Arc::clone(&lapsed));

    let start = Instant::now();
    let all_due = start + WARM_UP + CALM + FILL_START + Duration::from_secs(args.holds.div_ceil(SLOWEST_FILL));
    let ttl = move |now: Instant| {
        Duration::from_millis(all_due.saturating_duration_since(now).as_millis().try_into().unwrap_or(u64::MAX).max(1))
    };
    let shop = Shop::new(NAMESPACE, 1, true);
    shop.hold(&server, STORM, args.holds as usize, ttl).await?;
    let calm = all_due.checked_duration_since(Instant::now() + WARM_UP + CALM).context("the filling took too long")?;
    eprintln!("{} holds made in {:.1} s", args.holds, start.elapsed().as_secs_f64());
    sleep_until((Instant::now() + calm).into()).await;

    let streams = Streams::start(&callers, args.rate);
    sleep_until(all_due.into()).await;
    let mut waiters = JoinSet::new();
    for (caller, i) in callers.iter().cycle().zip(0..args.waiters.max(1)) {
        sleep_until((all_due + WAITER_INTERVAL * i as u32).into()).await;
        let (mut caller, whole) = (caller.clone(), (args.holds as i64, 0));
        waiters.spawn(async move {
            while caller.stock(STORM).await? != whole {}
            anyhow::Ok(())
        });
    }
    while let Some(answered) = timeout(LIMIT, waiters.join_next()).await.context("the storm lasts too long")? {
        answered??;
    }
    let over = Instant::now();
    let calls = streams.end().await?;

    println!("| kind | calm p50 | calm p99 | storm p50 | storm p99 | storm max | p99 ratio |");
    println!("|---|---|---|---|---|---|---|");
    let mut slow = Vec::new();
    for (kind, (_, name)) in KINDS.iter().enumerate() {
        let before = Figures::of(&calls, kind, all_due - CALM, all_due)?;
        let during = Figures::of(&calls, kind, all_due, over)?;
        let ratio = during.p99 / before.p99;
        let milliseconds = |figure: f64| format!("{figure:.2}");
        let [a, b, c, d, e] = [before.p50, before.p99, during.p50, during.p99, during.most].map(milliseconds);
        println!("{}", row([name, &a, &b, &c, &d, &e, &format!("{ratio:.2}")]));
        if ratio > args.ratio {
            slow.push(*name);
        }
    }
    let seconds = (over - all_due).as_secs_f64();
    println!(
        "\n{} holds due at once; the SKU of the storm was answered after {seconds:.2} s. Times in ms.",
        args.holds
    );
    let audit = callers[0].admin.audit(v1::AuditRequest { namespace_id: NAMESPACE.to_owned() }).await?.into_inner();
    ensure!(audit.clean, "the audit found: {:?}", audit.findings);
    ensure!(slow.is_empty(), "above a ratio of {}: {}", args.ratio, slow.join(", "));
    Ok(())
}
