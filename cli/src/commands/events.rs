//! `sentinelctl events`: the feed of every change, until Ctrl-C.

use clap::{Args, Subcommand};

use crate::{
    failure::Failure,
    output::{Row as _, note},
    session::Session,
    stop::{Breaks, Stop},
    table::Table,
    views::event::EventView,
};

/// Widths of the columns, since rows are printed as events arrive: an instant, a partition, a sequence, the longest
/// kind, an id.
const WIDTHS: &[usize] = &[24, 9, 10, 17, 24];

/// `sentinelctl events ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Print each change of the namespace as it happens.
    Tail(TailArgs),
}

/// `sentinelctl events tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Start with the oldest stored event, instead of the next one.
    #[arg(long)]
    from_oldest: bool,
    /// Continue after this resume token, which an earlier run printed.
    #[arg(long, value_name = "TOKEN", conflicts_with = "from_oldest", allow_hyphen_values = true)]
    resume: Option<String>,
    /// End when all events up to now are printed.
    #[arg(long)]
    until_now: bool,
}

pub(crate) async fn run(session: &Session, command: EventsCommand) -> Result<bool, Failure> {
    let EventsCommand::Tail(TailArgs { from_oldest, resume, until_now }) = command;
    if resume.as_deref() == Some("") {
        return Err(Failure::usage("--resume is empty", "give a resume token, or omit the option"));
    }
    let mut stop = Stop::new(None)?;
    let mut stream = session.namespace().events().after(resume.unwrap_or_default());
    if from_oldest {
        stream = stream.from_oldest();
    }
    let table = Table::new(EventView::COLUMNS).with_widths(WIDTHS);
    if !session.output.is_json() {
        session.output.text(&format!("{}\n", table.head()))?;
    }
    let (mut token, mut breaks) = (None, Breaks::default());
    loop {
        let changes = tokio::select! {
            () = stop.wait() => break,
            changes = stream.next() => changes,
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(error) => match breaks.survive(session, &error, &mut stop).await? {
                true => continue,
                false => break,
            },
        };
        breaks.end();
        let is_caught_up = changes.events.is_empty();
        let last = changes.events.len().saturating_sub(1);
        for (i, event) in changes.events.into_iter().enumerate() {
            // Only the last event gets the token: after an earlier one it would skip the rest of the response.
            let view = EventView::new(event, (i == last).then(|| changes.resume_token.clone()));
            match session.output.is_json() {
                true => session.output.json(&view)?,
                false => session.output.text(&format!("{}\n", table.line(&view.cells())))?,
            }
        }
        token = Some(changes.resume_token).filter(|token| !token.is_empty());
        if until_now && is_caught_up {
            break;
        }
    }
    if let Some(token) = token {
        note(&format!("continue after these events with --resume {token}"));
    }
    Ok(true)
}
