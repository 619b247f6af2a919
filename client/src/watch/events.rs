//! Every change of a namespace, in order.

use std::time::SystemTime;

use inventory_sentinel::v1;

use super::{Follower, Told};
use crate::{
    connection::MAX_ANSWER_BYTES,
    convert,
    namespace::Namespace,
    operation_errors::WatchError,
    rules::SkuRules,
    types::{Line, State},
};

/// A stream of every change of a namespace. Made by [`Namespace::events`].
#[derive(Debug)]
#[must_use = "nothing is watched before next()"]
pub struct Events {
    namespace: Namespace,
    token: String,
    from_oldest: bool,
    follower: Option<Follower<v1::WatchResponse>>,
}

/// Some changes, in order within their partition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    /// Empty: everything up to now has been told.
    pub events: Vec<Event>,
    /// Where the stream stands behind them: keep it together with what they led to.
    pub resume_token: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The partition. The identity of the event is (partition, epoch, term, sequence).
    pub partition: i32,
    /// Its number within the partition. Numbers follow each other without gaps, except where the partition was settled
    /// after its store lost changes.
    pub sequence: i64,
    /// When it was decided.
    pub occurred_at: SystemTime,
    /// What happened.
    pub kind: EventKind,
    /// The reservation; empty for changes of stock.
    pub reservation_id: String,
    /// The `request_id` of the Reserve that made the reservation, where the server can say it.
    pub request_id: Option<String>,
    /// The buyer of the reservation, if one was named.
    pub buyer: Option<String>,
    /// The units that moved; of [`EventKind::Extended`] those that are held.
    pub lines: Vec<Line>,
    /// Where the reservation stands after it; `None` for changes of stock.
    pub state: Option<State>,
    /// The deadline, while it is pending after it.
    pub expires_at: Option<SystemTime>,
    /// The SKU of a change of stock; empty for reservations.
    pub sku: String,
    /// By how much `supplied` and `available` changed.
    pub delta: i64,
    /// Distinguishes the partition from one that replaced it; 0 in a namespace of format 1.
    pub epoch: i64,
    /// The term that wrote the event; empty in a namespace of format 1.
    pub term: String,
    /// Of [`EventKind::RolledBack`] and [`EventKind::Expired`]: the lines whose units left the stock, because the hold
    /// is older than a settlement.
    pub withdrawn: Vec<Line>,
    /// Of [`EventKind::SkuConfigured`]: all rules after the change; `None` in namespaces of a format before 5.
    pub rules: Option<SkuRules>,
    /// The version of these rules.
    pub rules_version: i64,
    /// Of [`EventKind::HistoryLost`]: what is lost.
    pub lost: Option<LostHistory>,
}

/// Changes that the store has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostHistory {
    /// The epoch of the newest lost change that was acknowledged.
    pub epoch: i64,
    /// Its term.
    pub term: String,
    /// Its sequence.
    pub sequence: i64,
    /// The last sequence of that term that the store still has, 0 if none.
    pub kept_sequence: i64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// Units were taken: the birth of a reservation.
    Reserved,
    /// Units that were held were sold.
    Committed,
    /// Units that were held were given back by a call.
    RolledBack,
    /// Units that were held were given back by the deadline.
    Expired,
    /// A reservation has a later deadline.
    Extended,
    /// Units were sold by a late commit: the birth of a reservation that is committed.
    Repurchased,
    /// Units came in or went out by SetStock or ImportStock.
    StockSet,
    /// Units came in or went out by AdjustStock.
    StockAdjusted,
    /// Protection or rules of a SKU were changed.
    SkuConfigured,
    /// A SKU was deleted.
    SkuDeleted,
    /// The store has lost changes that were acknowledged before; see [`Event::lost`].
    HistoryLost,
    /// A settlement has set the counters of a SKU.
    SkuSettled,
    /// A settlement has opened the partition.
    PartitionSettled,
    /// One that this client does not know.
    Unknown(i32),
}

impl Events {
    pub(crate) fn new(namespace: Namespace) -> Events {
        Events { namespace, token: String::new(), from_oldest: false, follower: None }
    }

    /// Go on behind [`Changes::resume_token`]. An empty one stands for none.
    pub fn after(mut self, resume_token: impl Into<String>) -> Self {
        self.token = resume_token.into();
        self
    }

    /// Without a token: begin with the oldest change that is kept, instead of with the next one.
    pub fn from_oldest(mut self) -> Self {
        self.from_oldest = true;
        self
    }

    /// The next changes; at least once a second that there are none. Goes on by itself over lost connections
    /// and servers that stop.
    ///
    /// # Errors
    /// See [`WatchError`]; [`WatchError::Compacted`] is the one to be ready for. Asked again after an error, it
    /// tries again from where it stood.
    pub async fn next(&mut self) -> Result<Changes, WatchError> {
        let Events { namespace, token, from_oldest, follower } = self;
        let follower = follower.get_or_insert_with(|| follow(namespace, token, *from_oldest));
        let told = follower.next().await?.told;
        let events = told.events.into_iter().map(convert::event).collect::<Result<_, _>>()?;
        Ok(Changes { events, resume_token: told.resume_token })
    }
}

fn follow(namespace: &Namespace, token: &str, from_oldest: bool) -> Follower<v1::WatchResponse> {
    let namespace_id = namespace.name().to_owned();
    Follower::new(namespace.clone(), token.to_owned(), move |channel, request, resume_token| {
        let message = v1::WatchRequest { namespace_id: namespace_id.clone(), resume_token, from_oldest };
        let mut client = client(channel);
        Box::pin(async move { client.watch(request.map(|()| message)).await })
    })
}

pub(super) fn client(
    channel: tonic::transport::Channel,
) -> v1::inventory_events_client::InventoryEventsClient<tonic::transport::Channel> {
    v1::inventory_events_client::InventoryEventsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

impl Told for v1::WatchResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}
