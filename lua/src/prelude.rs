//! The prelude: Lua definitions of the constants that the script shares with Rust. The assembler replaces each constant
//! by its value. No I/O.

use std::fmt::Write as _;

use crate::{
    codes::{
        AnswerCode, DIGESTED, EXTENDED, ErrorCode, EventKind, GateMode, MemoKind, NO_STATE, RecordState, VerdictCode,
        state_flags, stock_flags,
    },
    config, history, limits,
};

/// A constant for each letter, limit, flag and version. `at_memory_limit` selects the script that runs while Redis is
/// at its memory limit.
pub(crate) fn prelude(at_memory_limit: bool) -> String {
    let mut out = String::new();
    let mut text = |name: &str, value: &str| _ = writeln!(out, "local {name} = '{value}'");
    for code in ErrorCode::ALL {
        text(code.lua_name(), code.word());
    }
    let mut letter = |name: &str, byte: u8| text(name, &char::from(byte).to_string());
    AnswerCode::ALL.iter().for_each(|code| letter(code.lua_name(), code.byte()));
    RecordState::ALL.iter().for_each(|state| letter(state.lua_name(), state.byte()));
    MemoKind::ALL.iter().for_each(|kind| letter(kind.lua_name(), kind.byte()));
    EventKind::ALL.iter().for_each(|kind| letter(kind.lua_name(), kind.byte()));
    VerdictCode::ALL.iter().for_each(|verdict| letter(verdict.lua_name(), verdict.byte()));
    letter(GateMode::Gates.lua_name(), GateMode::Gates.byte());
    letter("NO_STATE", NO_STATE);
    let changes = [MemoKind::CommitLines, MemoKind::RollbackLines, MemoKind::Extend];
    text("MEMOS_OF_CHANGES", &escaped(changes.into_iter().map(MemoKind::byte)));
    let of_reservations =
        [EventKind::Held, EventKind::Extended, EventKind::Committed, EventKind::RolledBack, EventKind::Expired];
    text("EVENTS_OF_RESERVATIONS", &escaped(of_reservations.into_iter().map(EventKind::byte)));
    text("LATER_LETTERS", &escaped(later_letters()));
    for (name, number) in numbers(at_memory_limit) {
        _ = writeln!(out, "local {name} = {number}");
    }
    out
}

/// The first bytes of all records but a plain pending one.
fn later_letters() -> impl Iterator<Item = u8> {
    let states = RecordState::ALL.iter().map(|state| state.byte());
    states.flat_map(|letter| match RecordState::from_byte(letter) {
        Some(RecordState::Memo) => vec![letter],
        Some(RecordState::Pending) => vec![letter + EXTENDED, letter + EXTENDED + DIGESTED, letter + DIGESTED],
        _ => vec![letter, letter + EXTENDED, letter + EXTENDED + DIGESTED, letter + DIGESTED],
    })
}

/// Bytes as the inside of a Lua text.
fn escaped(bytes: impl Iterator<Item = u8>) -> String {
    bytes.map(|byte| format!("\\{byte}")).collect()
}

fn numbers(at_memory_limit: bool) -> Vec<(&'static str, u64)> {
    let pending = RecordState::Pending.byte();
    vec![
        ("AT_MEMORY_LIMIT", at_memory_limit.into()),
        // Limits.
        ("MAX_OPERATIONS", limits::MAX_OPERATIONS as u64),
        ("MAX_LINES", limits::MAX_LINES as u64),
        ("MAX_QUANTITY", limits::MAX_QUANTITY.into()),
        ("MAX_STOCK", limits::MAX_STOCK),
        ("MAX_CHANGES", limits::MAX_CHANGES as u64),
        ("NEWEST_FORMAT", limits::FORMATS.1.into()),
        ("FIRST_WITH_PAUSE", limits::FIRST_WITH_PAUSE.into()),
        // First bytes of records.
        ("PENDING", pending.into()),
        ("EXTENDED_PENDING", (pending + EXTENDED).into()),
        ("DIGESTED_PENDING", (pending + EXTENDED + DIGESTED).into()),
        ("CHANGED_PENDING", (pending + DIGESTED).into()),
        ("MEMO", RecordState::Memo.byte().into()),
        // Versions.
        ("STATE_VERSION_2", history::STATE_VERSIONS[0].into()),
        ("STATE_VERSION", history::STATE_VERSIONS[1].into()),
        ("CONFIG_VERSION_2", config::FIRST_WITH_FORMAT.into()),
        ("CONFIG_VERSION", config::VERSION.into()),
        ("PAUSED_NAMESPACE", config::PAUSED.into()),
        // Flags of a stock record.
        ("PROTECTED", stock_flags::PROTECTED.into()),
        ("RULED", stock_flags::RULED.into()),
        ("HAS_WITHDRAWN", stock_flags::HAS_WITHDRAWN.into()),
        ("WITHDRAWS", stock_flags::WITHDRAWS.into()),
        ("HAS_EARLIEST", stock_flags::HAS_EARLIEST.into()),
        ("PAUSED", stock_flags::PAUSED.into()),
        ("HAS_LIMIT_SINCE", stock_flags::HAS_LIMIT_SINCE.into()),
        ("HAS_VALUES", stock_flags::HAS_VALUES.into()),
        // Flags of a state record and of a fence.
        ("GATED", state_flags::GATED.into()),
        ("EMPTIED", state_flags::EMPTIED.into()),
        ("UNREPORTED", state_flags::UNREPORTED.into()),
        ("OTHER_RUN", state_flags::OTHER_RUN.into()),
        ("STEPPED", state_flags::STEPPED.into()),
        ("PURGING", state_flags::PURGING.into()),
    ]
}
