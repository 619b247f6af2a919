//! `InventoryAdmin`: stock, rules and the audit; its lists are in `lists`, its bulk operations in `bulk`.
//! Parses and answers; what is decided is decided in the store.

use std::{sync::Arc, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_admin_server::InventoryAdmin},
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Desk, bulk, carry, check_age, convert, deadline, in_time, rules, settings,
    status::Failure,
    trail::{Caller, Change, text_of_config, text_of_stock},
    unexpected,
};
use crate::{
    config::{Config, Durability},
    domain::{
        Condition, Delta, FIRST_WITH_PAUSE, Id, Invalid, NamespaceName, OnHand, Operation, Outcome, Report, RequestId,
        Sku, Stock,
    },
    lane::Lane,
    namespaces::{ConfigureRequest, Namespace},
    promises::Promises,
    store::{NamespaceStore as _, Store, audit},
    telemetry::metrics::Operation as Measured,
};

/// Audits under way at once: each reads every pending reservation.
const AUDITS: usize = 1;

/// The operators' service.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(super) desk: Desk,
    pub(super) store: Arc<Store>,
    pub(super) promises: Promises,
    pub(super) durability: Durability,
    /// Bytes that an audit may keep, about.
    audit_memory: usize,
    audits: Arc<Semaphore>,
}

impl Admin {
    pub(crate) fn new(desk: Desk, store: Arc<Store>, promises: Promises, config: &Config) -> Self {
        let Config { durability, audit_memory, .. } = *config;
        Self { desk, store, promises, durability, audit_memory, audits: Arc::new(Semaphore::new(AUDITS)) }
    }
}

#[tonic::async_trait]
impl InventoryAdmin for Admin {
    async fn set_stock(&self, request: Request<v1::SetStockRequest>) -> Result<Response<v1::SetStockResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::SetStockRequest {
            namespace_id,
            sku,
            on_hand,
            request_id,
            if_absent,
            if_version,
            existing_namespace_only,
        } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let on_hand = OnHand::parse(on_hand)?;
            let condition = condition(if_absent, if_version)?;
            let request_id = RequestId::parse(request_id)?;
            let namespace = self.desk.namespace_made(&name, existing_namespace_only, deadline).await?;
            let operation = |memo, sku| Operation::SetStock { memo, sku, on_hand, condition };
            let call = StockCall { name: "SetStock", caller: &caller, namespace: &namespace, deadline };
            let (stock, replayed, sequence) = call.change(sku, &request_id, operation).await?;
            Ok(v1::SetStockResponse { stock: Some(stock), replayed, sequence })
        };
        self.desk.answer(Measured::SetStock, handler, |_| false).await
    }

    async fn adjust_stock(
        &self,
        request: Request<v1::AdjustStockRequest>,
    ) -> Result<Response<v1::AdjustStockResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::AdjustStockRequest { namespace_id, sku, delta, request_id, existing_namespace_only } =
            request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let delta = Delta::parse(delta)?;
            let request_id = RequestId::parse(request_id)?;
            let namespace = if delta.get() > 0 {
                self.desk.namespace_made(&name, existing_namespace_only, deadline).await?
            } else {
                self.desk.namespace_known(&name, deadline).await?
            };
            let operation = |memo, sku| Operation::AdjustStock { memo, sku, delta };
            let call = StockCall { name: "AdjustStock", caller: &caller, namespace: &namespace, deadline };
            let (stock, replayed, sequence) = call.change(sku, &request_id, operation).await?;
            Ok(v1::AdjustStockResponse { stock: Some(stock), replayed, sequence })
        };
        self.desk.answer(Measured::AdjustStock, handler, |_| false).await
    }

    async fn configure_sku(
        &self,
        request: Request<v1::ConfigureSkuRequest>,
    ) -> Result<Response<v1::ConfigureSkuResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::ConfigureSkuRequest { namespace_id, sku, rules, request_id, if_version } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let request_id = RequestId::parse_optional(request_id)?;
            let change = rules::change(rules)?;
            let if_revision = if_version.map(version).transpose()?;
            let namespace = self.desk.namespace_known(&name, deadline).await?;
            if change.is_paused == Some(true) && namespace.config.format < FIRST_WITH_PAUSE {
                let detail = "it needs a namespace of format 5 or later";
                return Err(Invalid::new(Reason::InvalidRule, "rules.is_paused").because(detail).into());
            }
            let (lane, memo) = lane_and_memo(&namespace, &sku, request_id.as_ref())?;
            let named = sku.clone();
            let operation = Operation::ConfigureSku { memo, sku, change, if_revision };
            let ((outcome, sequence), before) = carry_with_before(lane, &named, operation, deadline).await?;
            let has_changed = matches!(outcome, Outcome::Stock { replayed: false, .. });
            let (sku, stock, replayed, sequence) = stock_of((outcome, sequence))?;
            if has_changed {
                // Not where another change came between.
                let before = before.filter(|before| before.rules.revision + 1 == stock.rules.revision);
                caller.changed(
                    "ConfigureSku",
                    &name,
                    Change {
                        sku: sku.as_str(),
                        request_id: request_id.as_ref().map_or("", RequestId::as_str),
                        before: before.as_ref().map(text_of_stock).unwrap_or_default(),
                        after: text_of_stock(&stock),
                    },
                );
            }
            Ok(v1::ConfigureSkuResponse {
                rules: Some(rules::message_of(&stock)),
                rules_version: stock.rules.revision as i64,
                stock: Some(convert::stock(sku, stock)),
                sequence,
                replayed,
            })
        };
        self.desk.answer(Measured::ConfigureSku, handler, |_| false).await
    }

    async fn get_sku(&self, request: Request<v1::GetSkuRequest>) -> Result<Response<v1::GetSkuResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::GetSkuRequest { namespace_id, sku } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let namespace = self.desk.namespace_known(&name, deadline).await?;
            let operation = Operation::GetStock { sku: sku.clone() };
            let (sku, stock, _, sequence) = stock_of(carry(namespace.lane_of(&sku), operation, deadline).await?)?;
            Ok(v1::GetSkuResponse {
                rules: Some(rules::message_of(&stock)),
                rules_version: stock.rules.revision as i64,
                stock: Some(convert::stock(sku, stock)),
                sequence,
            })
        };
        self.desk.answer(Measured::GetSku, handler, |_| false).await
    }

    async fn delete_sku(
        &self,
        request: Request<v1::DeleteSkuRequest>,
    ) -> Result<Response<v1::DeleteSkuResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::DeleteSkuRequest { namespace_id, sku, request_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let request_id = RequestId::parse_optional(request_id)?;
            let Some(namespace) = self.desk.namespace(&name, deadline).await? else {
                return Ok(v1::DeleteSkuResponse::default());
            };
            let (lane, memo) = lane_and_memo(&namespace, &sku, request_id.as_ref())?;
            match carry(lane, Operation::DeleteSku { memo, sku }, deadline).await? {
                (Outcome::NothingToDelete { replayed }, sequence) => {
                    Ok(v1::DeleteSkuResponse { stock: None, sequence, replayed })
                }
                answer => {
                    let (sku, stock, replayed, sequence) = stock_of(answer)?;
                    if !replayed {
                        caller.changed(
                            "DeleteSku",
                            &name,
                            Change {
                                sku: sku.as_str(),
                                request_id: request_id.as_ref().map_or("", RequestId::as_str),
                                before: text_of_stock(&stock),
                                after: "deleted".into(),
                            },
                        );
                    }
                    Ok(v1::DeleteSkuResponse { stock: Some(convert::stock(sku, stock)), sequence, replayed })
                }
            }
        };
        self.desk.answer(Measured::DeleteSku, handler, |_| false).await
    }

    async fn configure_namespace(
        &self,
        request: Request<v1::ConfigureNamespaceRequest>,
    ) -> Result<Response<v1::ConfigureNamespaceResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::ConfigureNamespaceRequest { namespace_id, config, request_id, if_version } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let request_id = RequestId::parse_optional(request_id)?;
            let change = settings::change(config)?;
            let if_revision = if_version.map(version).transpose()?;
            self.desk.admit()?;
            if let Some(request_id) = &request_id
                && let Some(namespace) = self.desk.namespace(&name, deadline).await?
                && let Some(lane) = namespace.lane(0)
            {
                check_age(&namespace, lane, request_id, Instant::now())?;
            }
            let named = request_id.as_ref().map_or_else(String::new, |request_id| request_id.as_str().to_owned());
            let before = self.desk.namespaces.opened(&name).map(|namespace| namespace.config.clone());
            let request = ConfigureRequest::new(change, if_revision, request_id);
            let (config, replayed) = self.desk.namespaces.configure(&name, &request, deadline).await?;
            if !replayed && before.as_ref() != Some(&config) {
                caller.changed(
                    "ConfigureNamespace",
                    &name,
                    Change {
                        request_id: &named,
                        before: before.as_ref().map(text_of_config).unwrap_or_default(),
                        after: text_of_config(&config),
                        ..Change::default()
                    },
                );
            }
            let version = config.revision as i64;
            Ok(v1::ConfigureNamespaceResponse { config: Some(settings::message(&config)), version, replayed })
        };
        self.desk.answer(Measured::ConfigureNamespace, handler, |_| false).await
    }

    async fn delete_namespace(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::DeleteNamespaceResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let v1::DeleteNamespaceRequest { namespace_id, request_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let request_id = RequestId::parse_optional(request_id)?;
            self.desk.admit()?;
            let before = self.desk.namespaces.opened(&name).map(|namespace| text_of_config(&namespace.config));
            let replayed = self.desk.namespaces.delete(&name, request_id.as_ref(), deadline).await?;
            if !replayed {
                let request_id = request_id.as_ref().map_or("", RequestId::as_str);
                let (before, after) = (before.unwrap_or_default(), "deleted".into());
                caller.changed("DeleteNamespace", &name, Change { request_id, before, after, ..Change::default() });
            }
            Ok(v1::DeleteNamespaceResponse { replayed })
        };
        self.desk.answer(Measured::DeleteNamespace, handler, |_| false).await
    }

    async fn get_namespace(
        &self,
        request: Request<v1::GetNamespaceRequest>,
    ) -> Result<Response<v1::GetNamespaceResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::GetNamespaceRequest { namespace_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            self.desk.admit()?;
            let config = in_time(deadline, self.desk.namespaces.config(&name)).await?;
            let config = config.ok_or_else(|| Failure::new(Reason::NamespaceNotFound).within(&name))?;
            let version = config.revision as i64;
            Ok(v1::GetNamespaceResponse { config: Some(settings::message(&config)), version })
        };
        self.desk.answer(Measured::GetNamespace, handler, |_| false).await
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = self.page_of_namespaces(request.into_inner(), deadline);
        self.desk.answer(Measured::ListNamespaces, handler, |_| false).await
    }

    async fn list_stock(
        &self,
        request: Request<v1::ListStockRequest>,
    ) -> Result<Response<v1::ListStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = self.page_of_stock(request.into_inner(), deadline);
        self.desk.answer(Measured::ListStock, handler, |_| false).await
    }

    async fn list_reservations(
        &self,
        request: Request<v1::ListReservationsRequest>,
    ) -> Result<Response<v1::ListReservationsResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = self.page_of_reservations(request.into_inner(), deadline);
        self.desk.answer(Measured::ListReservations, handler, |_| false).await
    }

    type ImportStockStream = bulk::Answers;

    async fn import_stock(
        &self,
        request: Request<Streaming<v1::ImportStockRequest>>,
    ) -> Result<Response<bulk::Answers>, Status> {
        let caller = Caller::of(&request);
        Ok(Response::new(bulk::import(self.desk.clone(), caller, request.into_inner())))
    }

    async fn set_protection(
        &self,
        request: Request<v1::SetProtectionRequest>,
    ) -> Result<Response<v1::SetProtectionResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let handler = bulk::protect(&self.desk, &caller, request.into_inner(), deadline);
        self.desk.answer(Measured::SetProtection, handler, |_| false).await
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::AuditRequest { namespace_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let namespace = self.desk.namespace_known(&name, deadline).await?;
            let Ok(_permit) = self.audits.try_acquire() else {
                return Err(Failure::new(Reason::Overloaded).because("another audit is under way"));
            };
            tokio::time::timeout_at(deadline, self.read_books(&namespace))
                .await
                .map_err(|_| Failure::new(Reason::DeadlineExceeded))?
        };
        self.desk.answer(Measured::Audit, handler, |_| false).await
    }

    async fn settle_partition(
        &self,
        request: Request<v1::SettlePartitionRequest>,
    ) -> Result<Response<v1::SettlePartitionResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata()), Caller::of(&request));
        let handler = self.settle(&caller, request.into_inner(), deadline);
        self.desk.answer(Measured::SettlePartition, handler, |_| false).await
    }

    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.desk.answer(Measured::GetServerInfo, async { Ok(self.server_info()) }, |_| false).await
    }
}

impl Admin {
    async fn read_books(&self, namespace: &Namespace) -> Result<v1::AuditResponse, Failure> {
        let mut report = Report::empty();
        let mut connection = self.store.connection().await?;
        for (partition, keys) in namespace.partitions() {
            audit::partition(&mut connection, &keys, partition, self.audit_memory, &mut report).await?;
        }
        self.check_presence(namespace).await?;
        Ok(convert::report(report))
    }

    /// Refuses what was read of a namespace that was deleted meanwhile: it may be half of it. The first partition is closed before
    /// anything is deleted.
    pub(super) async fn check_presence(&self, namespace: &Namespace) -> Result<(), Failure> {
        let place = self.store.place_of(&namespace.keys(0)).await?;
        if place.is_some_and(|at| namespace.epochs.first() == Some(&at.epoch)) {
            return Ok(());
        }
        Err(Failure::new(Reason::NamespaceNotFound).within(&namespace.name))
    }
}

/// When SetStock may be applied; the two conditions exclude each other.
fn condition(if_absent: bool, if_version: Option<i64>) -> Result<Condition, Invalid> {
    match if_version {
        Some(_) if if_absent => Err(Invalid::new(Reason::InvalidPolicy, "if_version")),
        Some(number) => version(number).map(Condition::IfVersion),
        None if if_absent => Ok(Condition::IfAbsent),
        None => Ok(Condition::Always),
    }
}

/// A version is a sequence, which fits six bytes with one number to spare.
fn version(number: i64) -> Result<u64, Invalid> {
    let version = u64::try_from(number).ok().filter(|version| *version < (1 << 48) - 1);
    version.ok_or_else(|| Invalid::new(Reason::InvalidPolicy, "if_version"))
}

/// The lane of a SKU, and the identity of a change that the caller may have given none.
fn lane_and_memo<'a>(
    namespace: &'a Namespace,
    sku: &Sku,
    request_id: Option<&RequestId>,
) -> Result<(&'a Lane, Id), Failure> {
    let lane = namespace.lane_of(sku);
    if let Some(request_id) = request_id {
        check_age(namespace, lane, request_id, Instant::now())?;
    }
    Ok((lane, namespace.identity_or_new(request_id)))
}

/// What SetStock and AdjustStock share: a change with an identity in, the counters out.
struct StockCall<'a> {
    name: &'static str,
    caller: &'a Caller,
    namespace: &'a Namespace,
    deadline: Instant,
}

impl StockCall<'_> {
    async fn change(
        &self,
        sku: Sku,
        request_id: &RequestId,
        operation: impl FnOnce(Id, Sku) -> Operation,
    ) -> Result<(v1::Stock, bool, i64), Failure> {
        let Self { name, caller, namespace, deadline } = *self;
        let id = namespace.identity(request_id);
        let lane = namespace.lane_of(&sku);
        check_age(namespace, lane, request_id, Instant::now())?;
        let named = sku.clone();
        let (answer, before) = carry_with_before(lane, &named, operation(id, sku), deadline).await?;
        let (sku, stock, replayed, sequence) = stock_of(answer)?;
        if !replayed {
            // Where the batch was sent twice, the read has met the change itself.
            let before = before.filter(|before| before.version < stock.version);
            caller.changed(
                name,
                &namespace.name,
                Change {
                    sku: sku.as_str(),
                    request_id: request_id.as_str(),
                    before: before.as_ref().map(text_of_stock).unwrap_or_default(),
                    after: text_of_stock(&stock),
                },
            );
        }
        Ok((convert::stock(sku, stock), replayed, sequence))
    }
}

/// The longest that the trail waits for the read beside a change.
const TRAIL_PATIENCE: Duration = Duration::from_secs(1);

/// Carries a change through its lane, together with a read of the SKU just before it: they share a batch, so that the read
/// costs no round trip. Returns what came of the change, and the counters and rules before it for the trail, where they are
/// known.
async fn carry_with_before(
    lane: &Lane,
    sku: &Sku,
    operation: Operation,
    deadline: Instant,
) -> Result<((Outcome, i64), Option<Stock>), Failure> {
    let before = lane.submit(Operation::GetStock { sku: sku.clone() }, deadline).ok();
    let answer = carry(lane, operation, deadline).await?;
    let before = match before {
        Some(pending) => tokio::time::timeout(TRAIL_PATIENCE, pending.wait()).await.ok().and_then(Result::ok),
        None => None,
    };
    match before.map(|answer| answer.outcome) {
        Some(Ok(Outcome::Stock { stock, .. })) => Ok((answer, Some(stock))),
        _ => Ok((answer, None)),
    }
}

fn stock_of((outcome, sequence): (Outcome, i64)) -> Result<(Sku, Stock, bool, i64), Failure> {
    match outcome {
        Outcome::Stock { sku, stock, replayed } => Ok((sku, stock, replayed, sequence)),
        Outcome::Unchanged { sku, stock } => Ok((sku, stock, false, sequence)),
        other => Err(unexpected(&other)),
    }
}
