//! The cost of access: the processor time of the server for a unary Reserve with a token, with TLS and with both,
//! beside that of an open server in the same run; and that of a refused call. Writes a page on demand, else only
//! temporary folders.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use inventory_sentinel::v1::{self, inventory_sentinel_client::InventorySentinelClient};
use tonic::{Code, transport::Channel};

use crate::{
    clients::Unary,
    count::count_guarded,
    credentials::{self, Bearer, Guard},
    fixture::Shop,
    load::{self, Caller},
    machine::Machine,
    process::{Durability, Redis, Server},
    usage,
};

/// Measures the cost of access; ends with 1 if a form costs more than its limit.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server.
    #[arg(long, default_value = "target/release/sentinel-server", value_name = "BINARY")]
    server: PathBuf,
    /// Interleaved rounds; each figure is the median over them.
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one run, in milliseconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,
    /// Callers at once.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Also write a page to this file.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// A form of access, and the most that a call may cost in multiples of a call of an open server.
struct Form {
    name: &'static str,
    guard: Guard,
    credential: Credential,
    most: f64,
}

/// The credential of the calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Credential {
    Right,
    /// A token that no identity has.
    Unknown,
    /// A JSON Web Token that nobody signed.
    Forged,
}

const OPEN: Guard = Guard { has_tls: false, has_policy: false };
const POLICY: Guard = Guard { has_tls: false, has_policy: true };
const TLS: Guard = Guard { has_tls: true, has_policy: false };
const BOTH: Guard = Guard { has_tls: true, has_policy: true };

const FORMS: [Form; 6] = [
    Form { name: "open", guard: OPEN, credential: Credential::Right, most: 1.0 },
    Form { name: "token", guard: POLICY, credential: Credential::Right, most: 1.05 },
    Form { name: "TLS", guard: TLS, credential: Credential::Right, most: 1.3 },
    Form { name: "TLS and token", guard: BOTH, credential: Credential::Right, most: 1.35 },
    Form { name: "refused: unknown token", guard: POLICY, credential: Credential::Unknown, most: 1.25 },
    Form { name: "refused: forged JSON Web Token", guard: POLICY, credential: Credential::Forged, most: 1.25 },
];

/// The most that the instructions of a call with a token may be of those of an open server.
const MOST_OF_TOKEN: f64 = 1.10;

const UNKNOWN: &str = "ist_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAA";

/// The processor time of one form in each round, in microseconds per call.
struct Measured {
    name: &'static str,
    most: f64,
    costs: Vec<f64>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut servers = Vec::new();
    for form in &FORMS {
        let redis = Redis::start(Durability::Fast).await?;
        let command = Command::new(&args.server);
        // Refusals are counted, and recorded up to a limit: a file, so that no pipe slows them.
        let flags = ["--audit-log", "/dev/null"];
        let server = Server::start_guarded(command, redis, Durability::Fast, &flags, form.guard).await;
        let server = server.with_context(|| format!("the server with {}", form.name))?;
        let shop = Shop::new("access", 64, true);
        shop.open(&server).await?;
        let callers = Callers::of(form, &server, &shop, args.callers).await?;
        servers.push((form, server, callers));
    }
    let mut measured: Vec<_> =
        FORMS.iter().map(|form| Measured { name: form.name, most: form.most, costs: Vec::new() }).collect();
    for round in 0..args.rounds {
        for turn in 0..servers.len() {
            // Each round begins with another form.
            let index = (turn + usize::from(round)) % servers.len();
            let (form, server, callers) = &servers[index];
            let cost = measure(args, server, callers.clone()).await.with_context(|| form.name.to_owned())?;
            measured[index].costs.push(cost);
        }
    }
    drop(servers);
    let (counts, token_ratio) = count(&args.server).await?;
    let table = format!("{}\n{counts}", table(&measured));
    println!("{table}");
    if let Some(page) = &args.page {
        write_page(page, args, &table)?;
    }
    let dear: Vec<_> = measured.iter().filter(|row| row.ratio(&measured[0]) > row.most).map(|row| row.name).collect();
    ensure!(dear.is_empty(), "dearer than allowed: {}", dear.join(", "));
    ensure!(token_ratio <= MOST_OF_TOKEN, "a token costs {token_ratio:.3} of the instructions of an open server");
    Ok(())
}

/// The callers of one form. They keep their connections over all rounds.
#[derive(Clone)]
enum Callers {
    Served(Vec<Unary>),
    Refused(Vec<Refused>),
}

impl Callers {
    async fn of(form: &Form, server: &Server, shop: &Shop, number: usize) -> Result<Self> {
        Ok(match form.credential {
            Credential::Right => Self::Served(Unary::callers(server, shop, number, false).await?),
            credential => Self::Refused(Refused::callers(server, credential, number).await?),
        })
    }
}

/// Microseconds of the server's processor time per call.
async fn measure(args: &Args, server: &Server, callers: Callers) -> Result<f64> {
    let length = Duration::from_millis(args.milliseconds);
    let before = usage::exact_cpu_of(server.id())?;
    let (latency, _) = match callers {
        Callers::Served(callers) => load::closed(callers, length).await?,
        Callers::Refused(callers) => load::closed(callers, length).await?,
    };
    Ok((usage::exact_cpu_of(server.id())? - before) * 1e6 / latency.len() as f64)
}

impl Measured {
    /// The median over the rounds of the ratio to another form.
    fn ratio(&self, other: &Self) -> f64 {
        median(self.costs.iter().zip(&other.costs).map(|(own, other)| own / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(measured: &[Measured]) -> String {
    let mut text =
        "| access | server CPU per call, µs | ratio | lowest | highest | limit |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for row in measured {
        let ratios: Vec<f64> = row.costs.iter().zip(&measured[0].costs).map(|(own, open)| own / open).collect();
        let (lowest, highest) =
            (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        let (cost, ratio) = (median(row.costs.clone()), row.ratio(&measured[0]));
        // A String takes every write.
        let _ =
            writeln!(text, "| {} | {cost:.1} | {ratio:.3} | {lowest:.3} | {highest:.3} | {:.2} |", row.name, row.most);
    }
    text
}

/// Counts the instructions of a call without and with a token. Returns the table, and the ratio.
async fn count(server: &Path) -> Result<(String, f64)> {
    let mut text = "| access | server instructions per call | ratio | limit |\n|---|---|---|---|\n".to_owned();
    let open = count_guarded(server, OPEN).await? as f64;
    let token = count_guarded(server, POLICY).await? as f64;
    for (name, instructions, most) in [("open", open, 1.0), ("token", token, MOST_OF_TOKEN)] {
        // A String takes every write.
        let _ = writeln!(text, "| {name} | {instructions:.0} | {:.3} | {most:.2} |", instructions / open);
    }
    Ok((text, token / open))
}

fn write_page(page: &Path, args: &Args, table: &str) -> Result<()> {
    let Machine { processor, cores, kernel, store, rust, .. } = Machine::read()?;
    let Args { rounds, milliseconds, callers, .. } = args;
    let text = format!(
        "<!-- Written by `make bench-access`; do not edit. -->
# The cost of access

The processor time of the server for one unary Reserve, beside that of an open server in the same
run: {rounds} interleaved rounds of {milliseconds} ms, {callers} callers on kept connections, medians.
Below it, the instructions of a call, which repeat where times do not.
Machine: {cores} cores, {processor}, {kernel},
{store}, {rust}.

{table}"
    );
    std::fs::write(page, text).with_context(|| format!("the page {}", page.display()))
}

/// Calls with a credential that is refused.
#[derive(Clone)]
struct Refused {
    client: InventorySentinelClient<Channel>,
    bearer: Bearer,
}

impl Refused {
    async fn callers(server: &Server, credential: Credential, number: usize) -> Result<Vec<Self>> {
        let text = match credential {
            // A signature of the right length.
            Credential::Forged => format!("{}.{}", credentials::unsigned_jwt(0), "Q".repeat(86)),
            _ => UNKNOWN.to_owned(),
        };
        let bearer = Bearer::new(Some(&text))?;
        let client = InventorySentinelClient::new(server.connect().await?);
        Ok(vec![Self { client, bearer }; number])
    }
}

impl Caller for Refused {
    async fn call(&mut self) -> Result<()> {
        let message = v1::GetStockRequest { namespace_id: "access".into(), sku: "sku-0".into() };
        let refusal = self.client.get_stock(self.bearer.request(message)).await.err().context("the call is refused")?;
        let is_expected = matches!(refusal.code(), Code::Unauthenticated | Code::ResourceExhausted);
        ensure!(is_expected, "unexpected refusal: {refusal}");
        Ok(())
    }
}
