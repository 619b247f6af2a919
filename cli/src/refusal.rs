//! Failed calls as failures of the command: exit code, one line with the reason, one line with the next step. Pure.

use inventory_sentinel::reason::Advice;
use inventory_sentinel_client::{
    AdjustStockError, AuditError, Code, ConfigureNamespaceError, ConfigureSkuError, DeleteNamespaceError,
    DeleteSkuError, ExtendError, GetNamespaceError, GetReservationError, GetSkuError, GetStockError, ImportStockError,
    ListNamespacesError, ListReservationsError, ListStockError, Reason, RollbackError, RpcError, SetProtectionError,
    SetStockError, SettlePartitionError, WatchError, WatchStockError,
};

use crate::{
    config::Settings,
    failure::Failure,
    security::{credentials_advice, handshake_advice},
    table::shown,
};

/// An error of the client crate.
pub(crate) trait Refusal: std::error::Error {
    /// The error of the call, if the server or the connection made one.
    fn rpc_error(&self) -> Option<&RpcError>;
}

impl Refusal for RpcError {
    fn rpc_error(&self) -> Option<&RpcError> {
        Some(self)
    }
}

macro_rules! refusals {
    ($($error:ident,)+) => { $(
        impl Refusal for $error {
            fn rpc_error(&self) -> Option<&RpcError> {
                self.rpc()
            }
        }
    )+ };
}

refusals! {
    AdjustStockError, AuditError, ConfigureNamespaceError, ConfigureSkuError, DeleteNamespaceError, DeleteSkuError,
    ExtendError, GetNamespaceError, GetReservationError, GetSkuError, GetStockError, ImportStockError,
    ListNamespacesError, ListReservationsError, ListStockError, RollbackError, SetProtectionError, SetStockError,
    SettlePartitionError, WatchError, WatchStockError,
}

/// The subject of a call, for the sentences.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The SKU.
    sku: Option<&'a str>,
    /// The identity of the change; `None` for an idempotent call.
    request_id: Option<&'a str>,
    /// Whether the call changes rules, which have a separate version.
    is_of_rules: bool,
}

impl<'a> Subject<'a> {
    pub(crate) fn of_sku(sku: &'a str) -> Subject<'a> {
        Subject { sku: Some(sku), ..Subject::default() }
    }

    /// A change with this identity.
    pub(crate) fn change(self, request_id: &'a str) -> Subject<'a> {
        Subject { request_id: Some(request_id), ..self }
    }

    /// A change of rules.
    pub(crate) fn of_rules(self) -> Subject<'a> {
        Subject { is_of_rules: true, ..self }
    }
}

/// The failure of the command for a failed call.
pub(crate) fn failure(settings: &Settings, subject: Subject<'_>, error: &impl Refusal) -> Failure {
    let Some(rpc) = error.rpc_error() else { return Failure::Failed(shown(&error.to_string())) };
    let name = rpc.reason().map_or_else(|| format!("{:?}", rpc.code()), |reason| reason.as_str().to_owned());
    let what = format!("{} ({name})", shown(&sentence(subject, rpc)));
    if rpc.outcome_unknown() {
        let next = match subject.request_id {
            Some(id) => format!(
                "the change may have been applied; repeat the same command with --request-id {id} to find out: it is \
                 applied once"
            ),
            None => {
                "the change may have been applied; repeat the same command to find out: it is applied once".to_owned()
            }
        };
        return Failure::Advised { code: Failure::UNKNOWN, what, next };
    }
    let code = match (rpc.reason(), rpc.code()) {
        (None, Code::Unavailable | Code::DeadlineExceeded) | (Some(Reason::DeadlineExceeded), _) => {
            Failure::UNAVAILABLE
        }
        (Some(reason), _) if reason.advice() == Advice::Retry => Failure::UNAVAILABLE,
        _ => Failure::REFUSED,
    };
    Failure::Advised { code, what, next: shown(&next(settings, subject, rpc)) }
}

/// The error in one sentence, with its details.
fn sentence(subject: Subject<'_>, rpc: &RpcError) -> String {
    let metadata = |key: &str| rpc.metadata().get(key).map(String::as_str);
    let of_sku = subject.sku.map(|sku| format!(" of SKU {sku:?}")).unwrap_or_default();
    match rpc.reason() {
        Some(Reason::StockBelowHeld) => match metadata("held") {
            Some(held) => format!("fewer units{of_sku} would be on hand than are held: {held} are held"),
            None => rpc.message().to_owned(),
        },
        Some(Reason::SkuHasHolds) => match metadata("held") {
            Some(held) => format!("{held} units{of_sku} are held"),
            None => rpc.message().to_owned(),
        },
        Some(Reason::SkuNotFound) => match subject.sku {
            Some(sku) => format!("SKU {sku:?} does not exist in this namespace"),
            None => rpc.message().to_owned(),
        },
        Some(Reason::VersionMismatch) => {
            let version = metadata(if subject.is_of_rules { "rules_version" } else { "version" });
            match version {
                Some(version) => format!("the current version{of_sku} is {version}, not the expected one"),
                None => rpc.message().to_owned(),
            }
        }
        Some(_) => match rpc.field_violations() {
            [violation] if !violation.field.is_empty() && !rpc.message().contains(&violation.field) => {
                format!("{}: {}", violation.field, rpc.message())
            }
            _ => rpc.message().to_owned(),
        },
        None => rpc.message().to_owned(),
    }
}

/// Whether a pause was refused because the format of the namespace has none.
fn is_of_pause(rpc: &RpcError) -> bool {
    rpc.field_violations().iter().any(|violation| violation.field.ends_with(".is_paused"))
}

/// Whether the ttls of a namespace are out of range or contradict each other.
fn has_ttl_violation(rpc: &RpcError) -> bool {
    let is_ttl = |field: &str| ["default_ttl", "max_ttl", "max_life"].iter().any(|name| field.ends_with(name));
    rpc.field_violations().iter().any(|violation| is_ttl(&violation.field))
}

/// The next step.
fn next(settings: &Settings, subject: Subject<'_>, rpc: &RpcError) -> String {
    let Settings { namespace, server, .. } = settings;
    let list = format!("list the SKUs with `sentinelctl -n {namespace} stock list`");
    if let Some(next) = credentials_advice(rpc.code(), rpc.reason().map(|reason| reason.as_str())) {
        return next.to_owned();
    }
    let Some(reason) = rpc.reason() else {
        if let Some(next) = handshake_advice(rpc.message()) {
            return next.to_owned();
        }
        return match rpc.code() {
            Code::Unavailable | Code::DeadlineExceeded => format!(
                "check that a server runs at {server} with `sentinelctl doctor`, or allow more time with --timeout"
            ),
            Code::Unimplemented => "the server has no such call: compare versions with `sentinelctl doctor`".to_owned(),
            _ => "read the log of the server, or run `sentinelctl doctor`".to_owned(),
        };
    };
    match reason {
        Reason::NamespaceNotFound => "list the namespaces with `sentinelctl namespace list`".to_owned(),
        Reason::SkuNotFound => list,
        Reason::ReservationNotFound => {
            format!(
                "list the reservations with `sentinelctl -n {namespace} reservations list`; resolved ones are \
                 stored for the retention of the namespace"
            )
        }
        Reason::StockBelowHeld => match (rpc.metadata().get("held"), subject.sku) {
            (Some(held), Some(_)) => format!("leave at least {held} units on hand, or roll back the holds first"),
            _ => "leave at least as many units as are held, or roll back the holds first".to_owned(),
        },
        Reason::SkuHasHolds => {
            "take the SKU out of the sale with `sku unprotect`, and wait until its holds have ended, or roll them back"
                .to_owned()
        }
        Reason::NamespaceHasHolds => format!(
            "stop the sales with `sentinelctl namespace pause {namespace}`, and wait until its holds have ended, or \
             roll them back"
        ),
        Reason::TooManyNamespaces => {
            "delete unused namespaces with `sentinelctl namespace delete`, or raise --max-namespaces of the server"
                .to_owned()
        }
        Reason::VersionMismatch => "read the current state, and decide again".to_owned(),
        Reason::SkuExists => "omit --if-absent to set the units of an existing SKU".to_owned(),
        Reason::RequestIdReused => "set another --request-id, or none".to_owned(),
        Reason::StoreFenced | Reason::FenceChanged => {
            "list the fenced partitions with `sentinelctl info`, and settle them: docs/concepts/lost-changes.md"
                .to_owned()
        }
        Reason::NotFenced => "there is nothing to settle".to_owned(),
        Reason::EventsCompacted => "compare your records with the lists, and start with --from-oldest".to_owned(),
        Reason::ReservationExpired | Reason::ReservationRolledBack | Reason::ReservationAlreadyCommitted => {
            "the reservation is final: show it with `sentinelctl reservations show`".to_owned()
        }
        Reason::ExtendLimit => {
            format!("extend by less, or raise max_life with `sentinelctl namespace configure {namespace}`")
        }
        Reason::PartitionsFixed => "omit --partitions; another number needs another namespace".to_owned(),
        Reason::InvalidConfig | Reason::InvalidRule if is_of_pause(rpc) => format!(
            "raise the format with `sentinelctl namespace configure {namespace} --format 5`, once no older server uses \
             this store"
        ),
        Reason::InvalidConfig if has_ttl_violation(rpc) => {
            "keep --default-ttl <= --max-ttl <= --max-life: set them in one command, or lower them in this order"
                .to_owned()
        }
        Reason::StoreDenied => match rpc.metadata().get("missing") {
            Some(missing) => format!("grant {missing} to the Redis user of the service: docs/operate/permissions.md"),
            None => "grant what `sentinelctl doctor` names: docs/operate/permissions.md".to_owned(),
        },
        _ => match reason.advice() {
            Advice::Fix => "correct the arguments".to_owned(),
            Advice::Decide => reason.action().to_owned(),
            Advice::Retry => {
                "nothing was applied: retry the command after a pause, or run `sentinelctl doctor`".to_owned()
            }
            Advice::Repeat => "repeat the same command".to_owned(),
            Advice::Operator => "nothing was applied: run `sentinelctl doctor`".to_owned(),
        },
    }
}
