//! Turns the steps of the model test into calls, with the objects of the run that they refer to.

use sentinel_tests::model::{Condition, Op};

use super::{
    Run,
    steps::{If, Part, SKUS, Step, reused, reworded},
};

impl Run<'_> {
    /// The step as a call; `None` if it refers to something that is not there.
    pub(super) fn op(&mut self, step: &Step) -> Option<Op> {
        let sku = |sku: &usize| SKUS[*sku].to_owned();
        let back = |back: usize, length: usize| (length > 0).then(|| length - 1 - back % length);
        let reservation =
            |at: &usize| back(*at, self.reservations.len()).map_or("A".repeat(24), |at| self.reservations[at].clone());
        let earlier = |at: &usize| back(*at, self.calls.len()).map(|at| self.calls[at].clone());
        let request_id = format!("request-{}", self.ids);
        self.ids += 1;
        Some(match step {
            Step::SetStock(of, on_hand, when) => {
                let condition = match when {
                    If::Always => Condition::Always,
                    If::Absent => Condition::IfAbsent,
                    If::Version(off) => Condition::IfVersion(self.model.version(&sku(of)).unwrap_or_default() + off),
                };
                Op::SetStock { sku: sku(of), on_hand: *on_hand, condition, request_id }
            }
            // 0 is no change. `Step::Bad` tries it.
            Step::AdjustStock(of, delta) => {
                Op::AdjustStock { sku: sku(of), delta: if *delta == 0 { 1 } else { *delta }, request_id }
            }
            Step::Configure(of, rules, off) => {
                let if_version = off.map(|off| self.model.rules_version(&sku(of)) + off);
                Op::ConfigureSku { sku: sku(of), rules: *rules, if_version, request_id }
            }
            Step::GetSku(of) => Op::GetSku { sku: sku(of) },
            Step::DeleteSku(of) => Op::DeleteSku { sku: sku(of), request_id },
            Step::Reserve(lines, ttl_ms, buyer) => Op::Reserve {
                request_id,
                lines: lines.iter().map(|(of, quantity)| (sku(of), *quantity)).collect(),
                ttl_ms: *ttl_ms,
                buyer_id: (*buyer).into(),
                replaces: String::new(),
            },
            Step::Replace(at, step) => {
                let replaced = reservation(at);
                let mut op = self.op(step)?;
                if let Op::Reserve { replaces, .. } = &mut op {
                    *replaces = replaced;
                }
                op
            }
            Step::Commit(at, late) => Op::Commit { reservation_id: reservation(at), late: *late },
            Step::CommitLines(at, part, keep_rest) => {
                let (reservation_id, keep_rest) = (reservation(at), *keep_rest);
                let lines = self.lines_of(&reservation_id, part);
                Op::CommitLines { reservation_id, lines, keep_rest, request_id }
            }
            Step::Rollback(at) => Op::Rollback { reservation_id: reservation(at) },
            Step::RollbackLines(at, part) => {
                let reservation_id = reservation(at);
                let lines = self.lines_of(&reservation_id, part);
                Op::RollbackLines { reservation_id, lines, request_id }
            }
            Step::Extend(at, ttl_ms) => Op::Extend { reservation_id: reservation(at), ttl_ms: *ttl_ms, request_id },
            Step::GetReservation(at) => Op::GetReservation { reservation_id: reservation(at) },
            Step::IsProtected(of) => Op::IsProtected { sku: sku(of) },
            Step::Repeat(at) => earlier(at)?,
            Step::Reword(at, words) => reworded(earlier(at)?, *words),
            Step::Reuse(at, field) => reused(earlier(at)?, *field),
            Step::Bad(op) => op.clone(),
            Step::PassDeadline | Step::Idle(_) | Step::During(..) => return None,
        })
    }

    /// The lines that a part names of a reservation.
    fn lines_of(&self, id: &str, part: &Part) -> Vec<(String, i32)> {
        let reservation = self.model.reservations().find(|reservation| reservation.reservation_id == id);
        let held: Vec<_> = reservation.into_iter().flat_map(|of| &of.lines).filter(|line| line.held > 0).collect();
        let mut lines: Vec<(String, i32)> = Vec::new();
        for &(at, units) in &part.lines {
            let (sku, units) = match held.len() {
                0 => (SKUS[at], units),
                _ if part.is_wild => (SKUS[at], units),
                length => (held[at % length].sku.as_str(), units.min(held[at % length].held)),
            };
            if lines.iter().all(|(named, _)| named != sku) {
                lines.push((sku.into(), units));
            }
        }
        lines
    }
}
