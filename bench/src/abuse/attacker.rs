//! The shared parts of all attacks: the address of the server, the connections that they open, and their notes. Opens
//! connections to the server under test only.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rustls::ClientConfig;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tonic::transport::Endpoint;

use super::{
    frames,
    wire::{End, Opening, Wire},
};

/// Connections that an attack opens at the same moment, unless their number is the attack.
const CONNECTS_AT_ONCE: usize = 64;
/// Pause between two checks whether any connection is left.
const CHECK: Duration = Duration::from_millis(50);
/// The short form uses this part of the numbers of the full form.
const SHORT_DIVISOR: usize = 10;

/// The server under test.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) pid: u32,
    /// For calls of generated clients.
    pub(super) endpoint: Endpoint,
    /// The settings of connections, if it has TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// The state of one attack.
pub(super) struct Attacker {
    pub(super) target: Target,
    /// The namespace that has stock.
    pub(super) namespace: String,
    /// When the attack ends at the latest.
    pub(super) until: Instant,
    is_short: bool,
    connects: Semaphore,
    calls: AtomicU64,
    numbers: AtomicU64,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    wires: Vec<Arc<Wire>>,
    readers: JoinSet<()>,
    past: Tally,
    refused: u64,
    remarks: Vec<String>,
    faults: Vec<String>,
}

/// The end of connections.
#[derive(Default)]
struct Tally {
    wires: u64,
    sent: u64,
    read: u64,
    ended: u64,
    ends: BTreeMap<(Option<End>, Option<u32>), Vec<Duration>>,
    resets: BTreeMap<u32, u64>,
}

impl Tally {
    fn add(&mut self, wire: &Wire) {
        let seen = wire.seen();
        self.wires += 1;
        self.sent += wire.sent.load(Ordering::Relaxed);
        self.read += seen.data_bytes;
        self.ended += seen.ended;
        for (&code, number) in &seen.resets {
            *self.resets.entry(code).or_default() += number;
        }
        let (after, end) = seen.end.unzip();
        self.ends.entry((end, seen.goaway)).or_default().push(after.unwrap_or_default());
    }
}

/// The work of an attack, and its end.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) did: String,
    pub(super) fate: String,
    /// The duties that the server failed.
    pub(super) faults: Vec<String>,
}

impl Attacker {
    pub(super) fn new(target: Target, namespace: String, until: Instant, is_short: bool) -> Arc<Self> {
        let connects = Semaphore::new(CONNECTS_AT_ONCE);
        Arc::new(Self {
            target,
            namespace,
            until,
            is_short,
            connects,
            calls: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            noted: Mutex::default(),
        })
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number of the full form as this form uses it.
    pub(super) fn scaled(&self, number: usize) -> usize {
        if self.is_short { number.div_ceil(SHORT_DIVISOR) } else { number }
    }

    /// Opens a connection and starts to follow it; sends nothing.
    pub(super) async fn connect(&self, address: SocketAddr, opening: Opening) -> Result<Arc<Wire>> {
        let connected = {
            let _permit = self.connects.acquire().await?;
            Wire::connect(address, opening, self.target.tls.clone()).await
        };
        self.keep(connected)
    }

    /// The same without TLS, whatever the server has.
    pub(super) async fn connect_plain(&self, address: SocketAddr, opening: Opening) -> Result<Arc<Wire>> {
        let connected = {
            let _permit = self.connects.acquire().await?;
            Wire::connect(address, opening, None).await
        };
        self.keep(connected)
    }

    /// Keeps a connection until the end of the attack, or counts that there is none.
    pub(super) fn keep(&self, connected: std::io::Result<Arc<Wire>>) -> Result<Arc<Wire>> {
        let mut noted = self.noted();
        match connected {
            Ok(wire) => {
                noted.readers.spawn(Arc::clone(&wire).follow());
                noted.wires.push(Arc::clone(&wire));
                Ok(wire)
            }
            Err(error) => {
                noted.refused += 1;
                Err(error.into())
            }
        }
    }

    /// Opens an HTTP/2 connection.
    pub(super) async fn open(&self, opening: Opening) -> Result<Arc<Wire>> {
        let wire = self.connect(self.target.grpc, opening).await?;
        wire.begin().await?;
        Ok(wire)
    }

    /// Appends a call: its header block, and its message if there is one. Returns its stream.
    pub(super) fn call(&self, wire: &Wire, out: &mut Vec<u8>, block: &[u8], message: Option<(&[u8], bool)>) -> u32 {
        let stream = wire.new_stream();
        frames::frame(out, frames::kind::HEADERS, frames::flag::END_HEADERS, stream, block);
        if let Some((message, is_last)) = message {
            let flags = if is_last { frames::flag::END_STREAM } else { frames::flag::NONE };
            frames::frame(out, frames::kind::DATA, flags, stream, message);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        stream
    }

    /// A number that this returns once.
    pub(super) fn unique(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs this for each of so many members at once, until all have ended or the attack is over. A failure of one
    /// ends that one only: a server that defends itself makes attackers fail.
    pub(super) async fn crowd<F>(self: &Arc<Self>, members: usize, act: impl Fn(Arc<Self>, usize) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut tasks: JoinSet<_> = (0..members).map(|member| act(Arc::clone(self), member)).collect();
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = sleep_until(self.until.into()) => {}
        }
    }

    /// The same, and then waits until the end of the attack.
    /// Never fails: an attack returns this result at its end.
    pub(super) async fn crowd_and_hold<F>(
        self: &Arc<Self>,
        members: usize,
        act: impl Fn(Arc<Self>, usize) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.crowd(members, act).await;
        self.hold().await;
        Ok(())
    }

    /// Waits until the end of the attack, or until the server has ended all connections.
    pub(super) async fn hold(&self) {
        let all_ended = async {
            loop {
                sleep(CHECK).await;
                if self.noted().wires.iter().all(|wire| wire.seen().is_settled) {
                    return;
                }
            }
        };
        tokio::select! {
            () = all_ended => {}
            () = sleep_until(self.until.into()) => {}
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Adds to what is printed.
    pub(super) fn remark(&self, text: String) {
        self.noted().remarks.push(text);
    }

    /// Fails the row unless this holds.
    pub(super) fn demand(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.noted().faults.push(otherwise());
        }
    }

    /// Closes the connections that the server has ended: an attacker that connects again and again has no more files
    /// than it needs.
    pub(super) fn forget_ended(&self) {
        let noted = &mut *self.noted();
        while noted.readers.try_join_next().is_some() {}
        let past = &mut noted.past;
        noted.wires.retain(|wire| {
            let is_settled = wire.seen().is_settled;
            if is_settled {
                past.add(wire);
            }
            !is_settled
        });
    }

    /// Closes all connections and returns their ends.
    pub(super) fn finish(&self) -> Outcome {
        let Noted { wires, readers, mut past, refused, remarks, faults } = std::mem::take(&mut *self.noted());
        drop(readers);
        wires.iter().for_each(|wire| past.add(wire));
        let Tally { wires, sent, read, ended, ends, resets } = past;
        let mut did = vec![format!("{} conns", wires + refused)];
        let calls = self.calls.load(Ordering::Relaxed);
        if calls > 0 {
            did.push(format!("{calls} calls"));
        }
        did.push(format!("{:.1} MB", sent as f64 / 1e6));
        let mut fate: Vec<String> = ends.iter().map(|(&(end, goaway), times)| fate_of(end, goaway, times)).collect();
        if refused > 0 {
            fate.push(format!("{refused} not connected"));
        }
        if ended > 0 {
            fate.push(format!("{ended} calls ended, {:.1} MB read", read as f64 / 1e6));
        }
        fate.extend(resets.iter().map(|(&code, number)| format!("{number} calls reset: {}", frames::error_name(code))));
        fate.extend(remarks);
        Outcome { did: did.join(", "), fate: fate.join("; "), faults }
    }
}

/// The end of the connections that ended alike.
fn fate_of(end: Option<End>, goaway: Option<u32>, times: &[Duration]) -> String {
    let goaway = goaway.map(|code| format!(", GOAWAY {}", frames::error_name(code))).unwrap_or_default();
    let Some(end) = end else { return format!("{} open{goaway}", times.len()) };
    let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
    let (first, last) = (first.unwrap_or_default().as_millis(), last.unwrap_or_default().as_millis());
    let span = if first == last { format!("{first}") } else { format!("{first}-{last}") };
    let how = if end == End::Fin { "closed" } else { "reset" };
    format!("{} {how} after {span} ms{goaway}", times.len())
}
