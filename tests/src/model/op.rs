//! The calls of the model, and their identities. Plain data, no I/O.

use inventory_sentinel::v1::SkuRules;
use tonic::Code;

use super::Answer;

/// One call.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the requests")]
pub enum Op {
    SetStock {
        sku: String,
        on_hand: i64,
        condition: Condition,
        request_id: String,
    },
    AdjustStock {
        sku: String,
        delta: i64,
        request_id: String,
    },
    ConfigureSku {
        sku: String,
        rules: SkuRules,
        if_version: Option<i64>,
        request_id: String,
    },
    GetSku {
        sku: String,
    },
    DeleteSku {
        sku: String,
        request_id: String,
    },
    Reserve {
        request_id: String,
        lines: Vec<(String, i32)>,
        ttl_ms: Option<i64>,
        buyer_id: String,
        replaces: String,
    },
    /// `late`: repurchases after the deadline.
    Commit {
        reservation_id: String,
        late: bool,
    },
    CommitLines {
        reservation_id: String,
        lines: Vec<(String, i32)>,
        keep_rest: bool,
        request_id: String,
    },
    Rollback {
        reservation_id: String,
    },
    RollbackLines {
        reservation_id: String,
        lines: Vec<(String, i32)>,
        request_id: String,
    },
    Extend {
        reservation_id: String,
        ttl_ms: i64,
        request_id: String,
    },
    GetReservation {
        reservation_id: String,
    },
    GetStock {
        sku: String,
    },
    IsProtected {
        sku: String,
    },
}

/// When SetStock may be applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if the SKU is not known.
    IfAbsent,
    /// Only at this version of the SKU.
    IfVersion(i64),
}

impl Op {
    /// The identity of a change; a Commit or Rollback of a whole reservation has that of the reservation.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Op::SetStock { request_id, .. }
            | Op::AdjustStock { request_id, .. }
            | Op::ConfigureSku { request_id, .. }
            | Op::DeleteSku { request_id, .. }
            | Op::Reserve { request_id, .. }
            | Op::CommitLines { request_id, .. }
            | Op::RollbackLines { request_id, .. }
            | Op::Extend { request_id, .. } => Some(request_id),
            _ => None,
        }
    }

    /// The identity of a repeat of this call: its request id, for a change of a reservation together with that.
    pub(super) fn identity(&self) -> Option<String> {
        let request_id = self.request_id()?;
        Some(match self {
            Op::CommitLines { reservation_id: id, .. }
            | Op::RollbackLines { reservation_id: id, .. }
            | Op::Extend { reservation_id: id, .. } => format!("{id}\0{request_id}"),
            _ => request_id.to_owned(),
        })
    }

    /// Whether the namespace is made before this call is answered so.
    pub(super) fn makes_namespace(&self, answer: &Answer) -> bool {
        let is_malformed = matches!(answer, Answer::Refused(reason, _) if reason.code() == Code::InvalidArgument);
        let makes = matches!(self, Op::SetStock { .. }) || matches!(self, Op::AdjustStock { delta: 1.., .. });
        makes && !is_malformed
    }
}
