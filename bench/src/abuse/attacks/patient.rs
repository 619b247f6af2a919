//! No attack: an honest client whose calls pass their deadlines while the server is suspended. Its connection must
//! stay. Stops and continues the server's process.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use inventory_sentinel::v1::{self, inventory_sentinel_client::InventorySentinelClient};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Request, Status, transport::Channel};

use crate::abuse::attacker::Attacker;

/// Calls that pass their deadlines, and calls after them.
const CALLS: usize = 60;
/// Deadline of the first ones and of the others.
const SHORT_DEADLINE: Duration = Duration::from_millis(100);
const LONG_DEADLINE: Duration = Duration::from_secs(10);
/// How long the server is suspended.
const STANDSTILL: Duration = Duration::from_millis(400);

/// Calls past their deadlines, and then others on the same connection, which must all succeed.
pub(super) async fn passed_deadlines(attacker: Arc<Attacker>) -> Result<()> {
    let channel = attacker.target.endpoint.connect().await?;
    let pid = Pid::from_raw(attacker.target.pid.cast_signed()).context("a server has an id")?;
    get_stock(channel.clone(), attacker.namespace.clone(), LONG_DEADLINE).await.context("before the standstill")?;
    kill_process(pid, Signal::STOP)?;
    let late = calls(&attacker, &channel, SHORT_DEADLINE);
    sleep(STANDSTILL).await;
    let failed = late.join_all().await.into_iter().filter(Result::is_err).count();
    let others = calls(&attacker, &channel, LONG_DEADLINE);
    kill_process(pid, Signal::CONT)?;
    let others = others.join_all().await;
    let errors: Vec<_> = others.iter().filter_map(|answer| answer.as_ref().err()).collect();
    attacker.remark(format!("{failed} of {CALLS} past their deadline, {} of {CALLS} cut", errors.len()));
    attacker.demand(errors.is_empty(), || format!("{} calls were cut: {:?}", errors.len(), errors.first()));
    Ok(())
}

fn calls(attacker: &Attacker, channel: &Channel, deadline: Duration) -> JoinSet<Result<(), Status>> {
    (0..CALLS).map(|_| get_stock(channel.clone(), attacker.namespace.clone(), deadline)).collect()
}

async fn get_stock(channel: Channel, namespace_id: String, deadline: Duration) -> Result<(), Status> {
    let mut request = Request::new(v1::GetStockRequest { namespace_id, sku: "sku-0".into() });
    request.set_timeout(deadline);
    let mut client = InventorySentinelClient::new(channel);
    let answer = timeout(deadline, client.get_stock(request)).await;
    answer.map_err(|_| Status::deadline_exceeded("no answer"))?.map(drop)
}
