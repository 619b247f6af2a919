//! Sends the calls of the demo, which no other file does. Retries transient errors with the same identity for a bounded
//! time.

use std::{error::Error, sync::Arc, time::Duration};

use inventory_sentinel_client::{
    Admin, Applied, Audit, Code, Commit, CommitError, ConnectError, Extend, ExtendError, Extended, GetReservationError,
    Line, Namespace, Reason, Reservation, ReserveError, Rollback, RollbackError, RpcError, Sentinel, Snapshot, Stock,
};
use tokio::time::{Instant, sleep};

use super::{ledger::Ledger, plan::Plan};
use crate::{config::Settings, failure::Failure, security::handshake_advice};

/// HTTP/2 connections. A server limits the calls of one; the demo has many in flight.
const CONNECTIONS: usize = 8;
/// How long one call may take, including the client's retries.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long the audit may take: it reads every pending reservation.
const AUDIT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the first calls are retried, for a server that is starting.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);
/// How long a call is retried before the demo fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The mean pause before a retry if the server names none.
const PAUSE: Duration = Duration::from_millis(50);

/// The sale on the server.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    server: Arc<str>,
    skus: Arc<[String]>,
    sale: Namespace,
    patience: Duration,
}

impl Shop {
    /// Connects and sets the stock.
    pub(crate) async fn open(settings: &Settings, plan: &Plan) -> Result<Shop, Failure> {
        let server = &*settings.server;
        let sentinel =
            settings.security.apply(Sentinel::builder(server))?.deadline(CALL_DEADLINE).connections(CONNECTIONS);
        let sentinel = sentinel.connect().await.map_err(|error| match error {
            ConnectError::Unreachable { .. } => {
                let causes = chain(&error);
                let start = "start a server with `make run`, or name one with --server";
                Failure::Unavailable(format!("{causes}; {}", handshake_advice(&causes).unwrap_or(start)))
            }
            _ => Failure::Usage(chain(&error)),
        })?;
        let mut shop = Shop {
            server: server.into(),
            skus: plan.skus.clone().into(),
            sale: sentinel.namespace(&plan.namespace),
            patience: OPENING_PATIENCE,
        };
        for (sku, &supply) in plan.skus.iter().zip(&plan.supplies) {
            let identity = format!("{}-{sku}", plan.namespace);
            let admin = shop.sale.admin().request_id(identity);
            let set = || admin.set_stock(sku, supply.into());
            let answer = shop.retry(None, set, |error| error.rpc()).await?;
            answer.map_err(|error| Failure::Unavailable(format!("{server} refuses to set the stock: {error}")))?;
        }
        shop.patience = PATIENCE;
        Ok(shop)
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn sku(&self, product: usize) -> &str {
        &self.skus[product]
    }

    /// Reserves, and reports the latency of each final response.
    pub(crate) async fn reserve(
        &self,
        ledger: &Ledger,
        latency: impl Fn(Duration),
        params: &ReserveParams<'_>,
    ) -> Result<Result<Applied<Reservation>, ReserveError>, Failure> {
        let send = || async {
            let sent = Instant::now();
            let mut request =
                self.sale.reserve_cart(params.lines.clone()).ttl(params.ttl).request_id(params.request_id);
            if let Some(buyer) = params.buyer {
                request = request.buyer(buyer);
            }
            if let Some(id) = params.replaces {
                request = request.replacing(id);
            }
            let answer = request.await;
            if !answer.as_ref().err().and_then(ReserveError::rpc).is_some_and(is_transient) {
                latency(sent.elapsed());
            }
            answer
        };
        self.retry(Some(ledger), send, ReserveError::rpc).await
    }

    pub(crate) async fn commit(
        &self,
        ledger: &Ledger,
        request: impl Fn(&Namespace) -> Commit,
    ) -> Result<Result<Applied<Reservation>, CommitError>, Failure> {
        self.retry(Some(ledger), || request(&self.sale), CommitError::rpc).await
    }

    pub(crate) async fn rollback(
        &self,
        ledger: &Ledger,
        request: impl Fn(&Namespace) -> Rollback,
    ) -> Result<Result<Applied<Reservation>, RollbackError>, Failure> {
        self.retry(Some(ledger), || request(&self.sale), RollbackError::rpc).await
    }

    pub(crate) async fn extend(
        &self,
        ledger: &Ledger,
        request: impl Fn(&Namespace) -> Extend,
    ) -> Result<Result<Applied<Extended>, ExtendError>, Failure> {
        self.retry(Some(ledger), || request(&self.sale), ExtendError::rpc).await
    }

    /// A call of the operator, which must not be refused.
    pub(crate) async fn operate<T, E: Error, F>(
        &self,
        call: &str,
        rpc: impl Fn(&E) -> Option<&RpcError>,
        request: impl Fn(Admin) -> F,
    ) -> Result<T, Failure>
    where
        F: IntoFuture<Output = Result<T, E>>,
    {
        let answer = self.retry(None, || request(self.sale.admin()), rpc).await?;
        answer.map_err(|error| self.unexpected(call, &error))
    }

    /// Reads a reservation; `None` if it does not exist.
    pub(crate) async fn reservation(&self, id: &str) -> Result<Option<Snapshot<Reservation>>, Failure> {
        let send = || self.sale.reservation(id);
        match self.retry(None, send, |error| error.rpc()).await? {
            Ok(found) => Ok(Some(found)),
            Err(GetReservationError::NotFound(_)) => Ok(None),
            Err(error) => Err(self.unexpected("GetReservation", &error)),
        }
    }

    pub(crate) async fn stock(&self, sku: &str) -> Result<Stock, Failure> {
        let send = || self.sale.stock(sku);
        let answer = self.retry(None, send, |error| error.rpc()).await?;
        answer.map(|snapshot| snapshot.value).map_err(|error| self.unexpected("GetStock", &error))
    }

    pub(crate) async fn audit(&self) -> Result<Audit, Failure> {
        let admin = self.sale.with_deadline(AUDIT_DEADLINE).admin();
        let send = || admin.audit();
        let answer = self.retry(None, send, |error| error.rpc()).await?;
        answer.map_err(|error| self.unexpected("Audit", &error))
    }

    pub(crate) fn unexpected(&self, call: &str, error: &dyn Error) -> Failure {
        Failure::Failed(format!("{call} was refused by {}: {error}", self.server))
    }

    /// Retries a call until it gets a final response.
    async fn retry<T, E, F>(
        &self,
        ledger: Option<&Ledger>,
        send: impl Fn() -> F,
        rpc: impl Fn(&E) -> Option<&RpcError>,
    ) -> Result<Result<T, E>, Failure>
    where
        F: IntoFuture<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            let answer = send().await;
            let Err(error) = &answer else {
                return Ok(answer);
            };
            let Some(error) = rpc(error).filter(|error| is_transient(error)) else {
                return Ok(answer);
            };
            if let Some(ledger) = ledger {
                ledger.repeated(error.reason() == Some(Reason::Overloaded));
            }
            let pause = error.retry_delay().unwrap_or(PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(Failure::Unavailable(format!(
                    "{} gave no final response within {:?}: {error}",
                    self.server, self.patience
                )));
            }
            // Jitter: calls that were shed together are not retried together.
            sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }
}

/// The parameters of a Reserve.
pub(crate) struct ReserveParams<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) lines: Vec<Line>,
    pub(crate) ttl: Duration,
    pub(crate) buyer: Option<&'a str>,
    pub(crate) replaces: Option<&'a str>,
}

/// Whether a retry can succeed, or has to find out the outcome.
fn is_transient(error: &RpcError) -> bool {
    error.outcome_unknown()
        || matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded)
        || matches!(error.reason(), Some(Reason::Overloaded | Reason::AuditOvertaken))
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        if !text.contains(&layer) {
            text = format!("{text}: {layer}");
        }
        cause = error.source();
    }
    text
}
