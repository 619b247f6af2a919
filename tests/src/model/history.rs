//! Linearizability of a concurrent history, in O(n log n): every answer with a sequence is
//! replayed through the model in that order, and the order must agree with the clock on the wall.
//! Pure data, no I/O.

use std::time::Instant;

use super::{Answer, Model, Op, execute::Received, millis};

/// One call of a history.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation.
    pub op: Op,
    /// Before it was sent.
    pub start: Instant,
    /// After it was answered.
    pub end: Instant,
    /// The answer.
    pub received: Received,
}

impl Call {
    /// Whether the answer shows that this call made a change. A change has a unique number.
    fn is_change(&self) -> bool {
        match (&self.op, &self.received.answer) {
            (Op::GetReservation { .. } | Op::GetStock { .. } | Op::ConfigureSku { .. }, _) => false,
            (_, Answer::Reservation(_, replayed) | Answer::Stock(_, replayed) | Answer::Extended(_, _, replayed)) => {
                !replayed
            }
            (_, Answer::Deleted(last, replayed)) => last.is_some() && !replayed,
            _ => false,
        }
    }

    /// The order of answers with the same number: the change that it belongs to, then a
    /// ConfigureSku, which may be that change without showing it, then the reads.
    fn rank(&self) -> u8 {
        match self.op {
            _ if self.is_change() => 0,
            Op::ConfigureSku { .. } => 1,
            _ => 2,
        }
    }
}

/// The instant of the store's clock in an answer: that of the change it made.
pub fn instant_of(op: &Op, answer: &Answer) -> Option<i64> {
    match (op, answer) {
        (Op::Reserve { .. }, Answer::Reservation(made, false)) => Some(millis(made.created_at)),
        (_, Answer::Reservation(ended, false)) if !matches!(op, Op::GetReservation { .. }) => {
            ended.resolved_at.map(|at| millis(Some(at)))
        }
        (Op::Extend { ttl_ms, .. }, Answer::Extended(extended, _, false)) => Some(millis(extended.expires_at) - ttl_ms),
        _ => None,
    }
}

/// The id that a server chose for the reservation it made; empty if it made none.
pub fn new_id_of<'a>(op: &Op, answer: &'a Answer) -> &'a str {
    match (op, answer) {
        (Op::Reserve { .. }, Answer::Reservation(made, false)) => &made.reservation_id,
        (Op::Commit { reservation_id: requested, late: true }, Answer::Reservation(bought, false))
            if bought.reservation_id != *requested =>
        {
            &bought.reservation_id
        }
        _ => "",
    }
}

/// Replays a complete history of a namespace that began as this model and in which no hold expired.
/// Returns the model as it is afterwards.
///
/// # Errors
/// The first answer that no order explains.
pub fn replay(mut model: Model, calls: &[Call]) -> Result<Model, String> {
    agrees_with_the_wall(calls)?;
    let mut numbered: Vec<(i64, &Call)> =
        calls.iter().filter_map(|call| Some((call.received.sequence?, call))).collect();
    numbered.sort_by_key(|(sequence, call)| (*sequence, call.rank()));
    let mut open = Unnumbered::of(calls, model.sequence());
    open.observe(&model);
    for (sequence, call) in numbered {
        let Received { answer, .. } = &call.received;
        let before = model.sequence();
        let expected = model.expect(&call.op, instant_of(&call.op, answer).unwrap_or(0), new_id_of(&call.op, answer));
        if expected != *answer || model.sequence() != sequence {
            return Err(format!("{call:?}\nexpected, as number {}: {expected:?}", model.sequence()));
        }
        if model.sequence() != before {
            open.observe(&model);
        }
    }
    open.finish().map(|()| model)
}

/// A call that ended before another began has the smaller number, or the same if both only read.
fn agrees_with_the_wall(calls: &[Call]) -> Result<(), String> {
    let mut by_end: Vec<&Call> = calls.iter().filter(|call| call.received.sequence.is_some()).collect();
    let mut by_start = by_end.clone();
    by_end.sort_by_key(|call| call.end);
    by_start.sort_by_key(|call| call.start);
    let mut ended = by_end.into_iter().peekable();
    let mut last: Option<&Call> = None;
    for call in by_start {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end < call.start) {
            if last.is_none_or(|last| last.received.sequence < earlier.received.sequence) {
                last = Some(earlier);
            }
        }
        let Some(last) = last else { continue };
        let least = last.received.sequence.map(|number| number + i64::from(call.is_change()));
        if call.received.sequence < least {
            return Err(format!("{call:?}\nbegan after this had ended: {last:?}"));
        }
    }
    Ok(())
}

/// Answers without a number: each must be true at some moment between its start and its end.
struct Unnumbered<'a> {
    /// First and last number at which the call can have been decided, by the first.
    waiting: Vec<(i64, i64, &'a Call)>,
    active: Vec<(i64, &'a Call)>,
}

impl<'a> Unnumbered<'a> {
    fn of(calls: &'a [Call], first: i64) -> Self {
        let mut by_end: Vec<(Instant, i64)> =
            calls.iter().filter_map(|call| Some((call.end, call.received.sequence?))).collect();
        let changes = calls.iter().filter(|call| call.is_change());
        let mut by_start: Vec<(Instant, i64)> =
            changes.filter_map(|call| Some((call.start, call.received.sequence?))).collect();
        by_end.sort();
        by_start.sort();
        // The largest number up to each end, and the smallest from each start on.
        let mut largest = first;
        for (_, number) in &mut by_end {
            largest = largest.max(*number);
            *number = largest;
        }
        let mut smallest = i64::MAX;
        for (_, number) in by_start.iter_mut().rev() {
            smallest = smallest.min(*number);
            *number = smallest;
        }
        let window = |call: &'a Call| {
            let earlier = by_end.partition_point(|(end, _)| *end < call.start);
            let later = by_start.partition_point(|(start, _)| *start <= call.end);
            let low = if earlier == 0 { first } else { by_end[earlier - 1].1 };
            let high = by_start.get(later).map_or(i64::MAX, |(_, number)| number - 1);
            (low, high, call)
        };
        let mut waiting: Vec<_> = calls.iter().filter(|call| call.received.sequence.is_none()).map(window).collect();
        waiting.sort_by_key(|(low, _, _)| std::cmp::Reverse(*low));
        Self { waiting, active: Vec::new() }
    }

    /// Drops the answers that are true in this state of the model.
    fn observe(&mut self, model: &Model) {
        while let Some((_, high, call)) = self.waiting.pop_if(|(low, _, _)| *low <= model.sequence()) {
            self.active.push((high, call));
        }
        self.active.retain(|(high, call)| *high < model.sequence() || !is_true(model, call));
    }

    fn finish(self) -> Result<(), String> {
        let unexplained = self.active.first().map(|(_, call)| *call).or(self.waiting.first().map(|(_, _, call)| *call));
        unexplained.map_or(Ok(()), |call| Err(format!("true at no moment of its call: {call:?}")))
    }
}

fn is_true(model: &Model, call: &Call) -> bool {
    match (&call.op, &call.received.answer) {
        (Op::IsProtected { sku }, answer @ Answer::IsProtected(_)) => {
            *answer == Answer::IsProtected(model.counters(sku).is_some_and(|of| of.is_protected))
        }
        (op, answer) => model.refusal(op, 0).as_ref() == Some(answer),
    }
}
