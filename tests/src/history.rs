//! Checks that concurrent answers are those of one shop in which calls are applied one after the other. The sequence of
//! an answer is its position in that order, so the check is a sort and a replay. No I/O.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many units came in.
    Supplied(i64),
    /// A reservation of so many units was made.
    Held(String, i64),
    /// A reservation was committed.
    Committed(String),
    /// A reservation was rolled back.
    RolledBack(String),
    /// So many units were requested, and so many were available.
    Short(i64, i64),
    /// A replay of a reservation.
    Replayed(String),
    /// Available, held, sold.
    Read(i64, i64, i64),
}

impl Event {
    fn is_change(&self) -> bool {
        !matches!(self, Event::Short(..) | Event::Replayed(_) | Event::Read(..))
    }
}

#[derive(Debug)]
struct Entry {
    began: Instant,
    ended: Instant,
    sequence: i64,
    event: Event,
}

/// The answers about one SKU, the only one in its partition. Holds must not expire: an expiry has no answer.
#[derive(Debug, Default)]
pub struct History(Vec<Entry>);

impl History {
    /// Notes an answer that has just come.
    pub fn note(&mut self, began: Instant, sequence: i64, event: Event) {
        self.note_ended(began, Instant::now(), sequence, event);
    }

    /// Notes an answer.
    pub fn note_ended(&mut self, began: Instant, ended: Instant, sequence: i64, event: Event) {
        self.0.push(Entry { began, ended, sequence, event });
    }

    /// Whether there is an order of one after the other that explains all answers.
    ///
    /// # Errors
    /// The first answer that it does not explain.
    pub fn check(mut self) -> Result<(), String> {
        self.check_real_time()?;
        // A change comes before the answers that have seen it.
        self.0.sort_by_key(|entry| (entry.sequence, !entry.event.is_change()));
        let mut last = 0;
        let mut shop = Model::default();
        for Entry { sequence, event, .. } in &self.0 {
            let place = || format!("{event:?} at {sequence}, where the model has {shop:?}");
            if event.is_change() {
                last += 1;
            }
            if *sequence != last {
                return Err(format!("{}: change {last} is missing or was given twice", place()));
            }
            let before = place();
            if !shop.explains(event) {
                return Err(before);
            }
        }
        Ok(())
    }

    /// A call that ended before another began has the smaller number; equal only if the later changed nothing.
    fn check_real_time(&self) -> Result<(), String> {
        let mut by_end: Vec<_> = self.0.iter().collect();
        by_end.sort_by_key(|entry| entry.ended);
        let mut by_begin: Vec<_> = self.0.iter().collect();
        by_begin.sort_by_key(|entry| entry.began);
        let (mut ended, mut seen) = (by_end.into_iter().peekable(), 0);
        for entry in by_begin {
            while let Some(earlier) = ended.next_if(|earlier| earlier.ended < entry.began) {
                seen = seen.max(earlier.sequence);
            }
            if entry.sequence < seen + i64::from(entry.event.is_change()) {
                return Err(format!("{entry:?} began after an answer with sequence {seen}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Model {
    available: i64,
    sold: i64,
    held: HashMap<String, i64>,
    made: HashSet<String>,
}

impl Model {
    /// Applies a change or compares a reading; false if the model cannot explain it.
    fn explains(&mut self, event: &Event) -> bool {
        match event {
            Event::Supplied(units) => {
                self.available += units;
                self.available >= 0
            }
            Event::Held(id, units) => {
                self.available -= units;
                self.made.insert(id.clone()) && self.held.insert(id.clone(), *units).is_none() && self.available >= 0
            }
            Event::Committed(id) => self.held.remove(id).map(|units| self.sold += units).is_some(),
            Event::RolledBack(id) => self.held.remove(id).map(|units| self.available += units).is_some(),
            Event::Short(requested, there) => *there == self.available && *there < *requested,
            Event::Replayed(id) => self.made.contains(id),
            Event::Read(available, held, sold) => {
                (*available, *held, *sold) == (self.available, self.held.values().sum(), self.sold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A history in which call `i` lasted from second `began` to second `ended`.
    fn history(calls: &[(u64, u64, i64, Event)]) -> History {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let mut history = History::default();
        for (began, ended, sequence, event) in calls {
            history.note_ended(at(*began), at(*ended), *sequence, event.clone());
        }
        history
    }

    fn held(id: &str) -> Event {
        Event::Held(id.into(), 1)
    }

    #[test]
    fn a_good_history_passes() {
        let calls = [
            (0, 1, 1, Event::Supplied(1)),
            (2, 5, 2, held("a")),
            (2, 4, 2, Event::Short(1, 0)),
            (6, 7, 3, Event::Committed("a".into())),
            (6, 8, 3, Event::Read(0, 0, 1)),
        ];
        assert_eq!(history(&calls).check(), Ok(()));
    }

    #[test]
    fn bad_histories_are_found() {
        let supplied = (0, 1, 1, Event::Supplied(1));
        for bad in [
            // Sold twice.
            vec![supplied.clone(), (2, 3, 2, held("a")), (2, 3, 3, held("b"))],
            // One number for two changes, and one that is missing.
            vec![supplied.clone(), (2, 3, 1, held("a"))],
            vec![supplied.clone(), (2, 3, 3, held("a"))],
            // Sold out while there is one.
            vec![supplied.clone(), (2, 3, 1, Event::Short(1, 0))],
            // Seen before it happened: a stale read.
            vec![supplied.clone(), (2, 3, 2, held("a")), (4, 5, 1, Event::Read(1, 0, 0))],
            // Resolved twice.
            vec![
                supplied,
                (2, 3, 2, held("a")),
                (4, 5, 3, Event::RolledBack("a".into())),
                (4, 5, 4, Event::Committed("a".into())),
            ],
        ] {
            let text = format!("{bad:?}");
            assert!(history(&bad).check().is_err(), "{text}");
        }
    }
}
