//! A buyer's record of one hold, line by line. Sends nothing.

use inventory_sentinel_client::{Applied, Reservation, State};

use super::behavior::CartLine;
use crate::demo::ledger::{End, Entry, Ledger, Part};

/// A reservation by the responses that its buyer got.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) id: String,
    pub(crate) buyer: u32,
    pub(crate) lines: Vec<HeldLine>,
}

/// One line of it, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldLine {
    pub(crate) product: usize,
    pub(crate) held: u32,
    pub(crate) sold: u32,
}

/// The units of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Units {
    All,
    /// One of the first line.
    One,
}

impl Hold {
    pub(crate) fn new(id: &str, buyer: u32, cart: &[CartLine]) -> Hold {
        let line = |want: &CartLine| HeldLine { product: want.product, held: want.units, sold: 0 };
        Hold { id: id.to_owned(), buyer, lines: cart.iter().map(line).collect() }
    }

    /// Records that units were sold.
    pub(crate) fn bought(&mut self, units: Units) {
        self.each(units, |line, units| {
            line.held -= units;
            line.sold += units;
        });
    }

    /// Records that units were released.
    pub(crate) fn released(&mut self, units: Units) {
        self.each(units, |line, units| line.held -= units);
    }

    fn each(&mut self, units: Units, change: impl Fn(&mut HeldLine, u32)) {
        match units {
            Units::All => self.lines.iter_mut().for_each(|line| change(line, line.held)),
            Units::One => change(&mut self.lines[0], 1),
        }
    }

    /// Compares a response with the record.
    pub(crate) fn check(&self, ledger: &Ledger, call: &str, answer: &Applied<Reservation>) {
        let counts = answer.lines.iter().map(|line| (i64::from(line.held), i64::from(line.sold)));
        let known = self.lines.iter().map(|line| (i64::from(line.held), i64::from(line.sold)));
        let holds = self.lines.iter().any(|line| line.held > 0);
        if answer.id != self.id || !counts.eq(known) || holds != (answer.state == State::Pending) {
            ledger.violation(format!("{call} returned {:?}; the buyer has {self:?}", answer.value));
        }
    }

    /// The ledger entry of the hold; `otherwise` is its end if no unit was sold.
    pub(crate) fn entry(self, otherwise: End) -> Entry {
        let parts: Vec<Part> = self.lines.iter().map(|line| Part { product: line.product, sold: line.sold }).collect();
        let sold = parts.iter().any(|part| part.sold > 0);
        let end = if sold && otherwise != End::Lost { End::Committed } else { otherwise };
        Entry { id: self.id, parts, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_kept_by_line() {
        let mut hold = Hold::new("r", 7, &[CartLine { product: 2, units: 2 }, CartLine { product: 0, units: 1 }]);
        hold.released(Units::One);
        let nothing_sold = hold.clone().entry(End::Expired);
        assert_eq!(nothing_sold.end, End::Expired);
        hold.bought(Units::All);
        assert!(hold.lines.iter().all(|line| line.held == 0));
        let sold = hold.entry(End::Expired);
        assert_eq!(sold.end, End::Committed);
        assert_eq!(sold.parts, [Part { product: 2, sold: 1 }, Part { product: 0, sold: 1 }]);
    }
}
