//! Attacks on each bound of the server beside an honest caller. Starts a server for each attack, attacks it, judges its
//! memory, its CPU and the honest calls, and prints a row. Writes nothing but temporary folders.
//!
//! # Layout
//! - `attacks`: the list of attacks; `attacker`: what they share.
//! - `wire`, `frames`, `tls`: a connection of an attacker, HTTP/2 as bytes, and TLS over them.
//! - `honest`: the honest caller.
//! - `report`: what is judged, and the table.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Resource, getrlimit, setpriority_process, setrlimit};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, sleep_until},
};

mod attacker;
mod attacks;
mod frames;
mod honest;
mod report;
mod tls;
mod wire;

use crate::{
    credentials::Guard,
    fixture::{Shop, TTL},
    process::{Durability, Redis, Server},
    usage,
};
use attacker::{Attacker, Outcome, Target};
use attacks::{ATTACKS, Attack};
use honest::{Honest, Record};
use report::Row;

/// Attacks the server and judges how it holds; ends with 1 where a row fails.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server.
    #[arg(long, default_value = "target/release/sentinel-server", value_name = "BINARY")]
    server: PathBuf,
    /// Run only the attacks whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Fewer attacks with smaller numbers, in less than a minute.
    #[arg(long)]
    short: bool,
    /// Print one line of JSON per attack instead of the table.
    #[arg(long)]
    json: bool,
    /// Print the names of the attacks and run none.
    #[arg(long)]
    list: bool,
    /// The most that the 99th percentile of the honest calls may be, in milliseconds.
    #[arg(long, default_value_t = 50, value_name = "MILLISECONDS")]
    p99: u64,
    /// The most memory that the server may have after an attack, in multiples of what it had before.
    #[arg(long, default_value_t = report::GIVEN_BACK, value_name = "FACTOR")]
    given_back: f64,
    /// Length of each attack, in seconds, instead of its usual length.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Serve with TLS, attack over TLS, and run the attacks on TLS too.
    #[arg(long)]
    tls: bool,
    /// More flags of the server, as one text.
    #[arg(long, default_value = "", value_name = "FLAGS", allow_hyphen_values = true)]
    flags: String,
}

/// How long each part of a row takes.
#[derive(Clone, Copy)]
struct Times {
    calm: Duration,
    attack: Duration,
    /// Time after an attack in which the latency of the honest calls is still judged.
    tail: Duration,
    /// Longest time in which memory has to be given back.
    after: Duration,
}

impl Times {
    fn of(args: &Args, attack: &Attack) -> Self {
        let seconds = args.seconds.unwrap_or(attack.seconds);
        if args.short {
            let attack = args.seconds.map_or(SHORT_ATTACK, Duration::from_secs);
            Self { calm: SHORT_CALM, attack, tail: SHORT_TAIL, after: AFTER }
        } else {
            Self { calm: CALM, attack: Duration::from_secs(seconds), tail: TAIL, after: AFTER }
        }
    }
}

/// Time with the honest caller alone.
const CALM: Duration = Duration::from_secs(2);
const SHORT_CALM: Duration = Duration::from_millis(300);
/// Length of an attack in the short form.
const SHORT_ATTACK: Duration = Duration::from_secs(1);
/// Time from the end of an attack until memory has been given back.
const AFTER: Duration = Duration::from_secs(10);
/// The latency of the honest calls is judged for so long after an attack too: one that is cut at once is short.
const TAIL: Duration = Duration::from_secs(1);
const SHORT_TAIL: Duration = Duration::from_millis(300);
/// Time beyond its end that an attack may take for what follows it, such as a check for recovery.
const ATTACK_MARGIN: Duration = Duration::from_secs(12);
/// Pause between two reads of the memory of the server.
const SAMPLE: Duration = Duration::from_millis(20);
/// An attack ends as soon as the server has so many bytes more than before: the machine must not run out of memory.
const MACHINE_LIMIT: u64 = 2 << 30;
/// How much later than others the operating system gives time to attackers. On a network their machine is another
/// one, so that here they take what the server, its Redis and the honest caller leave.
const NICE: i32 = 10;
/// The namespace of the honest caller and of the attackers.
const NAMESPACE: &str = "abuse";

/// Runs the attacks and prints the table.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let is_chosen = |attack: &&Attack| match &args.only {
        Some(name) => attack.name.contains(name.as_str()),
        None => !args.short || attack.is_in_short,
    };
    let is_chosen = |attack: &&Attack| is_chosen(attack) && (args.tls || !attack.needs_tls);
    let chosen: Vec<&Attack> = ATTACKS.iter().filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "no attack has this name");
    if args.list {
        chosen.iter().for_each(|attack| println!("{}", attack.name));
        return Ok(());
    }
    raise_descriptors()?;
    if !args.json {
        println!("{}", Row::header());
    }
    let mut failed = Vec::new();
    for attack in chosen {
        let row = row(args, attack).await.with_context(|| format!("the attack {}", attack.name))?;
        if args.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!("{row}");
        }
        if !row.faults.is_empty() {
            failed.push(attack.name);
        }
    }
    ensure!(failed.is_empty(), "{} attacks got past a bound: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// Lets this process and those that it starts have as many open files as the machine allows.
fn raise_descriptors() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

async fn start(args: &Args, attack: &Attack) -> Result<Server> {
    let mut command = Command::new(&args.server);
    if let Some(descriptors) = attack.descriptors {
        command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")).arg(absolute(&args.server)?);
    }
    let flags: Vec<&str> = args.flags.split_whitespace().collect();
    let guard = Guard { has_tls: args.tls, has_policy: attack.has_policy };
    Server::start_guarded(command, Redis::start(Durability::Fast).await?, Durability::Fast, &flags, guard).await
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("the path {}", path.display()))
}

async fn row(args: &Args, attack: &Attack) -> Result<Row> {
    let times = Times::of(args, attack);
    let server = start(args, attack).await?;
    let shop = Shop::new(NAMESPACE, attack.skus, true);
    shop.open(&server).await?;
    if attack.events > 0 {
        shop.hold(&server, &shop.skus[0], attack.events, |_| TTL).await?;
    }
    let admin = server.admin().context("the server has metrics")?;
    let tls = server.ca().map(tls::trusting).transpose()?;
    let target = Target { grpc: server.address(), admin, pid: server.id(), endpoint: server.endpoint()?, tls };

    let access = honest::Access::to(&server)?;
    let honest = Honest::start(access.clone(), shop.clone(), attack.watches)?;
    // A server with few descriptors has few places.
    if attack.descriptors.is_none() {
        honest::warm_up(&access, &shop).await?;
    }
    let calm_from = Instant::now();
    sleep(times.calm).await;
    let calm = server.memory()?;
    let began = Instant::now();
    usage::reset_peak(target.pid)?;
    let cpu_before = usage::cpu_of(target.pid)?;

    let pid = target.pid;
    let (outcome, sampled) = attacked(target, attack, times, args.short, calm).await?;
    let ended = Instant::now();
    let mut row = Row::new(attack.name, calm, outcome);
    if let Ok(cpu) = usage::cpu_of(pid) {
        row.cpu = (cpu - cpu_before) / (ended - began).as_secs_f64();
    }
    let after = memory_after(pid, calm, ended, times, args.given_back).await;
    match after.and_then(|after| Ok((after, usage::peak_memory_of(pid)?))) {
        Ok((after, peak)) => row.judge_memory(calm, peak.max(sampled), after, args.given_back),
        Err(_) => row.judge_end(sampled),
    }
    row.judge_cpu(attack.most_cpu);
    let record: Record = honest.stop().await?;
    row.calm_p99 = record.p99(calm_from, began).as_secs_f64() * 1e3;
    row.p99 = record.p99(began, ended + times.tail).as_secs_f64() * 1e3;
    row.judge_calls(&record, attack.judges_latency.then_some(args.p99 as f64));
    Ok(row)
}

/// Runs the attack on a separate thread. Returns its end, and the most memory that the server was seen to have.
async fn attacked(target: Target, attack: &Attack, times: Times, is_short: bool, calm: u64) -> Result<(Outcome, u64)> {
    let until = Instant::now() + times.attack;
    let pid = target.pid;
    let attacker = Attacker::new(target, NAMESPACE.to_owned(), until, is_short);
    let (stop, run) = (Arc::new(Notify::new()), attack.run);
    let (done, mut is_done) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_stopped = Arc::clone(&stop);
    std::thread::Builder::new().name("attacker".into()).spawn(move || {
        let _ = lower_priority();
        let outcome = runtime.block_on(async {
            tokio::select! {
                result = run(Arc::clone(&attacker)) => {
                    // A server that defends itself makes attackers fail: only demands of the attack count.
                    if let Err(error) = result {
                        attacker.remark(format!("{error:#}"));
                    }
                }
                () = sleep_until((until + ATTACK_MARGIN).into()) => {}
                () = is_stopped.notified() => attacker.remark("stopped: the server took too much memory".to_owned()),
            }
            attacker.finish()
        });
        let _ = done.send(outcome);
    })?;
    let mut most = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut is_done => break outcome.context("the attacker panicked")?,
            () = sleep(SAMPLE) => {
                let memory = usage::memory_of(pid).unwrap_or_default();
                most = most.max(memory);
                if memory > calm + MACHINE_LIMIT {
                    stop.notify_one();
                }
            }
        }
    };
    Ok((outcome, most))
}

/// Gives the thread that calls this what others leave.
fn lower_priority() -> Result<()> {
    let link = std::fs::read_link("/proc/thread-self")?;
    let thread = link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    Ok(setpriority_process(thread.and_then(Pid::from_raw), NICE)?)
}

/// Bytes of memory of the server some time after the attack.
async fn memory_after(server: u32, calm: u64, ended: Instant, times: Times, most: f64) -> Result<u64> {
    loop {
        let (memory, elapsed) = (usage::memory_of(server)?, ended.elapsed());
        // Memory that was given back sooner was given back in time.
        let is_enough = elapsed >= times.tail && report::is_given_back(calm, memory, most);
        if elapsed >= times.after || is_enough || memory > calm + MACHINE_LIMIT {
            return Ok(memory);
        }
        sleep(SAMPLE).await;
    }
}
