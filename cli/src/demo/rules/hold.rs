//! A buyer's own book of one hold: what he was told, line by line. Sends nothing.

use inventory_sentinel_client::{Applied, Reservation, State};

use super::roles::Want;
use crate::demo::ledger::{End, Entry, Ledger, Part};

/// A reservation as its buyer knows it.
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

/// Which units a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Units {
    All,
    /// One of the first line.
    One,
}

impl Hold {
    pub(crate) fn new(id: &str, buyer: u32, cart: &[Want]) -> Hold {
        let line = |want: &Want| HeldLine { product: want.product, held: want.units, sold: 0 };
        Hold { id: id.to_owned(), buyer, lines: cart.iter().map(line).collect() }
    }

    /// These units are his.
    pub(crate) fn bought(&mut self, units: Units) {
        self.each(units, |line, units| {
            line.held -= units;
            line.sold += units;
        });
    }

    /// These units are not held any more.
    pub(crate) fn gave_back(&mut self, units: Units) {
        self.each(units, |line, units| line.held -= units);
    }

    fn each(&mut self, units: Units, book: impl Fn(&mut HeldLine, u32)) {
        match units {
            Units::All => self.lines.iter_mut().for_each(|line| book(line, line.held)),
            Units::One => book(&mut self.lines[0], 1),
        }
    }

    /// Checks what an answer says of the hold against the book.
    pub(crate) fn check(&self, ledger: &Ledger, call: &str, answer: &Applied<Reservation>) {
        let counts = answer.lines.iter().map(|line| (i64::from(line.held), i64::from(line.sold)));
        let known = self.lines.iter().map(|line| (i64::from(line.held), i64::from(line.sold)));
        let holds = self.lines.iter().any(|line| line.held > 0);
        if answer.id != self.id || !counts.eq(known) || holds != (answer.state == State::Pending) {
            ledger.broken(format!("{call} answered {:?}; its buyer knows {self:?}", answer.value));
        }
    }

    /// The end of it: if it sold nothing, as `otherwise` says.
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
        let mut hold = Hold::new("r", 7, &[Want { product: 2, units: 2 }, Want { product: 0, units: 1 }]);
        hold.gave_back(Units::One);
        let nothing_sold = hold.clone().entry(End::Expired);
        assert_eq!(nothing_sold.end, End::Expired);
        hold.bought(Units::All);
        assert!(hold.lines.iter().all(|line| line.held == 0));
        let sold = hold.entry(End::Expired);
        assert_eq!(sold.end, End::Committed);
        assert_eq!(sold.parts, [Part { product: 2, sold: 1 }, Part { product: 0, sold: 1 }]);
    }
}
