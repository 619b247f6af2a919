//! `sentinelctl reservations`: the reservations of buyers.

use std::{collections::HashSet, time::Duration};

use clap::{Args, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use inventory_sentinel_client::State;

use super::{ChangeArgs, PAGE};
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    refusal::Subject,
    session::{Session, identity},
    values::positive_duration,
    views::reservation::ReservationView,
};

/// `sentinelctl reservations ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ReservationsCommand {
    /// List reservations: the pending ones, or those in the states that are named.
    List(ListArgs),
    /// Show a reservation, by its id or by the request id of the Reserve that created it.
    Show(ShowArgs),
    /// Release all units that a reservation holds. Needs --yes.
    Rollback(RollbackArgs),
    /// Move the deadline of a reservation to a time from now. A later deadline stays unchanged.
    Extend(ExtendArgs),
}

/// `sentinelctl reservations show`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ShowArgs {
    /// The id of the reservation.
    #[arg(allow_hyphen_values = true)]
    reservation_id: Option<String>,
    /// The request id of the Reserve that created it, for example order-4711-2.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    request_id: Option<String>,
}

/// `sentinelctl reservations list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those with a line of this SKU that holds units or is resolved.
    #[arg(long)]
    sku: Option<String>,
    /// Only those of this buyer.
    #[arg(long)]
    buyer: Option<String>,
    /// Only those in this state; repeat the option for several states [default: pending].
    #[arg(long, value_enum)]
    state: Vec<StateArg>,
    /// End after this many reservations.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

/// The name of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateArg {
    Pending,
    Committed,
    RolledBack,
    Expired,
    /// All of them.
    Any,
}

/// `sentinelctl reservations rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The id of the reservation.
    #[arg(allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    reservation_id: String,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// `sentinelctl reservations extend`.
#[derive(Debug, Args)]
pub(crate) struct ExtendArgs {
    /// The id of the reservation.
    #[arg(allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    reservation_id: String,
    /// How long the units are held from now, for example 5m.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    ttl: Duration,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(session: &Session, command: ReservationsCommand) -> Result<bool, Failure> {
    match command {
        ReservationsCommand::List(args) => list(session, args).await?,
        ReservationsCommand::Show(args) => {
            let view = match &args.request_id {
                Some(request_id) => {
                    let held = session.namespace().reservation_of(request_id).await;
                    ReservationView::from(&held.map_err(|error| session.unread(&error))?.value)
                }
                None => read(session, &args.reservation_id.unwrap_or_default()).await?,
            };
            session.output.details(&view, &view.details())?;
        }
        ReservationsCommand::Rollback(args) => rollback(session, args).await?,
        ReservationsCommand::Extend(args) => extend(session, args).await?,
    }
    Ok(true)
}

async fn list(session: &Session, args: ListArgs) -> Result<(), Failure> {
    let ListArgs { sku, buyer, state, limit } = args;
    let admin = session.admin();
    let (mut listing, mut listed, mut next) = (session.output.listing(), HashSet::new(), String::new());
    'pages: loop {
        let mut request = admin.list_reservations().size(PAGE).after(next);
        if let Some(sku) = &sku {
            request = request.sku(sku);
        }
        if let Some(buyer) = &buyer {
            request = request.buyer(buyer);
        }
        for state in states(&state) {
            request = request.state(state);
        }
        let subject = sku.as_deref().map(Subject::of_sku).unwrap_or_default();
        let page = request.await.map_err(|error| session.refused(subject, &error))?;
        for held in &page.items {
            if limit.is_some_and(|limit| listed.len() >= limit) {
                break 'pages;
            }
            // A list may name a reservation more than once.
            if listed.insert(held.id.clone()) {
                listing.push(&ReservationView::from(held))?;
            }
        }
        match page.next {
            Some(token) => next = token,
            None => break,
        }
    }
    Ok(listing.end()?)
}

fn states(named: &[StateArg]) -> Vec<State> {
    let any = [State::Pending, State::Committed, State::RolledBack, State::Expired];
    if named.contains(&StateArg::Any) {
        return any.to_vec();
    }
    let state = |state: &StateArg| match state {
        StateArg::Pending | StateArg::Any => State::Pending,
        StateArg::Committed => State::Committed,
        StateArg::RolledBack => State::RolledBack,
        StateArg::Expired => State::Expired,
    };
    named.iter().map(state).collect()
}

async fn read(session: &Session, id: &str) -> Result<ReservationView, Failure> {
    let held = session.namespace().reservation(id).await.map_err(|error| session.unread(&error))?;
    Ok(ReservationView::from(&held.value))
}

async fn rollback(session: &Session, args: RollbackArgs) -> Result<(), Failure> {
    let RollbackArgs { reservation_id: id, change, confirm } = args;
    let before = read(session, &id).await?;
    confirm.confirm(&format!(
        "this gives back {} units that reservation {id} ({}, {}) holds",
        before.held(),
        before.state,
        before.what()
    ))?;
    // A repeated rollback of the whole reservation changes nothing, so it needs no identity.
    let mut request = session.namespace().rollback(&id);
    if let Some(named) = change.named() {
        request = request.request_id(named);
    }
    let subject = change.named().map(|id| Subject::default().change(id)).unwrap_or_default();
    let done = request.await.map_err(|error| session.refused(subject, &error))?;
    let view = ReservationView::from(&done.value);
    Ok(session.output.details(&view, &view.details())?)
}

async fn extend(session: &Session, args: ExtendArgs) -> Result<(), Failure> {
    let ExtendArgs { reservation_id: id, ttl, change } = args;
    let request_id = identity(change.named());
    let request = session.namespace().extend(&id, ttl).request_id(request_id.as_str());
    let subject = Subject::default().change(&request_id);
    let done = request.await.map_err(|error| session.refused(subject, &error))?;
    let view = ReservationView::from(&done.value.reservation);
    Ok(session.output.details(&view, &view.details())?)
}
