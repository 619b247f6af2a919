//! The alphabets of the protocol: each letter and word once, for Rust and, through the prelude, for Lua. No I/O.

/// An alphabet of one-byte codes: a variant, its byte, its name in Lua, and what it means.
macro_rules! alphabet {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $byte:literal $lua:literal $doc:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $doc] $variant = $byte,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The one that has this byte.
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its byte in the protocol.
            pub const fn byte(self) -> u8 {
                self as u8
            }

            /// Its name in Lua.
            pub const fn lua_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $lua,)+
                }
            }
        }
    };
}

/// The kinds of groups in a batch: a variant, its word in Lua, and what it means.
macro_rules! kinds {
    ($($variant:ident $word:literal $doc:literal,)+) => {
        /// The kind of the operations of a group. Its word is sent once for each group.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum OpKind {
            $(#[doc = $doc] $variant,)+
        }

        impl OpKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its word in the protocol.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

kinds! {
    Reserve "reserve" "Reserve.",
    FirstReserve "reserve_first" "Reserve whose ids were never sent before, as the caller claims.",
    ReserveReplacing "reserve_replacing" "Reserve that gives another hold back in the same step.",
    Commit "commit" "Commit.",
    CommitLate "commit_late" "Commit, or after the deadline repurchase.",
    CommitLines "commit_lines" "Commit of some lines.",
    Rollback "rollback" "Rollback.",
    RollbackLines "rollback_lines" "Rollback of some lines.",
    Extend "extend" "Extend.",
    GetReservation "get_reservation" "Reads a reservation.",
    SetStock "set_stock" "SetStock.",
    AdjustStock "adjust_stock" "AdjustStock.",
    ConfigureSku "configure_sku" "ConfigureSku and SetProtection.",
    DeleteSku "delete_sku" "DeleteSku.",
    GetStock "get_stock" "Reads the stock of a SKU; one answer for all.",
    IsProtected "is_protected" "The same, but refused while the partition is gated.",
    BeginSettlement "begin_settlement" "Begins the settlement of a fence.",
    SettleSku "settle_sku" "Settles one SKU.",
    EndSettlement "end_settlement" "Ends the settlement and opens the partition.",
    ClosePartition "close_partition" "Closes the partition, or checks that it can be closed.",
}

impl OpKind {
    /// Whether all operations of a group share one answer: those without an identity.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, OpKind::GetStock | OpKind::IsProtected)
    }

    /// Whether a group can have several operations.
    pub(crate) const fn is_groupable(self) -> bool {
        matches!(
            self,
            OpKind::Reserve
                | OpKind::FirstReserve
                | OpKind::Commit
                | OpKind::CommitLate
                | OpKind::Rollback
                | OpKind::GetReservation
        ) || self.is_shared()
    }
}

alphabet! {
    /// How the script answers one operation. `contract.lua` has the details of each.
    AnswerCode {
        AsBefore = b'=' "AS_BEFORE" "The same code and detail as the operation before it.",
        Applied = b'K' "APPLIED" "Applied: one change.",
        AppliedInTwoSteps = b'+' "APPLIED_IN_TWO_STEPS" "Applied: two changes.",
        Unchanged = b'k' "UNCHANGED" "Remembered; nothing had to change.",
        Repurchased = b'J' "REPURCHASED" "Repurchased after the deadline: one change.",
        Replayed = b'Y' "REPLAYED" "The request was applied before.",
        RepurchasedBefore = b'j' "REPURCHASED_BEFORE" "The repurchase was applied before.",
        Value = b'V' "VALUE" "The value that was read, or a step that changes no unit.",
        Fenced = b'g' "FENCED" "The partition has lost changes and is not settled.",
        NotFenced = b'f' "NOT_FENCED" "There is nothing to settle.",
        Superseded = b'o' "SUPERSEDED" "Another settlement or another loss has come since.",
        OtherFence = b'e' "OTHER_FENCE" "The fence is another one.",
        Short = b'S' "SHORT" "Too few units are available.",
        NoSuchSku = b'N' "NO_SUCH_SKU" "No such SKU.",
        NotProtected = b'U' "NOT_PROTECTED" "The SKU is not protected.",
        SalePaused = b'u' "SALE_PAUSED" "The SKU or the namespace is paused.",
        OutsideWindow = b'W' "OUTSIDE_WINDOW" "The sale has not opened, or has closed.",
        TooManyUnits = b'M' "TOO_MANY_UNITS" "More units than one line of the SKU may have.",
        TtlTooLong = b'T' "TTL_TOO_LONG" "A longer ttl than the SKU permits.",
        BuyerMissing = b'P' "BUYER_MISSING" "The SKU has a limit per buyer, and none is named.",
        OverBuyerLimit = b'I' "OVER_BUYER_LIMIT" "More units than one buyer may have.",
        RepurchaseShort = b'O' "REPURCHASE_SHORT" "Too few units are available to repurchase.",
        Again = b'A' "AGAIN" "Due holds wait to be given back: submit it once more.",
        IdReused = b'D' "ID_REUSED" "The identity was used with other arguments.",
        OverQuota = b'Q' "OVER_QUOTA" "The quota of the namespace is used up.",
        StoreFull = b'm' "STORE_FULL" "The store is at its memory limit, and this would make a SKU.",
        NoSuchReservation = b'X' "NO_SUCH_RESERVATION" "No such reservation.",
        ReservationExpired = b'E' "RESERVATION_EXPIRED" "The reservation expired.",
        ReservationRolledBack = b'B' "RESERVATION_ROLLED_BACK" "The reservation was rolled back.",
        ReservationCommitted = b'C' "RESERVATION_COMMITTED" "The reservation was committed.",
        LineNotHeld = b'Z' "LINE_NOT_HELD" "More units of a line than are held.",
        TooManyChanges = b'z' "TOO_MANY_CHANGES" "The reservation has as many changes as it may have.",
        BeyondLongestLife = b'x' "BEYOND_LONGEST_LIFE" "The hold would last longer than a hold may.",
        BelowHeld = b'H' "BELOW_HELD" "Fewer units than are held.",
        HasHolds = b'h' "HAS_HOLDS" "Units are held.",
        AboveStockLimit = b'L' "ABOVE_STOCK_LIMIT" "More units than a SKU may have.",
        SkuExists = b'p' "SKU_EXISTS" "The SKU exists, and must not.",
        OtherVersion = b'v' "OTHER_VERSION" "The SKU or its rules have another version.",
        ClosesBeforeOpening = b'w' "CLOSES_BEFORE_OPENING" "The sale would close before it opens.",
    }
}

impl AnswerCode {
    /// By how much an operation with this answer advances the sequence.
    pub(crate) const fn changes(self) -> u64 {
        match self {
            AnswerCode::Applied | AnswerCode::Repurchased => 1,
            AnswerCode::AppliedInTwoSteps => 2,
            _ => 0,
        }
    }
}

alphabet! {
    /// The state of a record: the first byte of a plain record. Other forms of records have it in lower case, or with
    /// `DIGESTED` added.
    RecordState {
        Pending = b'P' "STATE_PENDING" "Held.",
        Committed = b'C' "STATE_COMMITTED" "Sold.",
        RolledBack = b'R' "STATE_ROLLED_BACK" "Given back by a call.",
        Expired = b'E' "STATE_EXPIRED" "Given back by the deadline.",
        Memo = b'M' "STATE_MEMO" "No reservation: a remembered request.",
    }
}

/// Added to the letter of a record that has an extension: its lower case.
pub(crate) const EXTENDED: u8 = 0x20;
/// Added to the letter together with `EXTENDED` if the record has a digest of its request, and alone if it has changes
/// too.
pub(crate) const DIGESTED: u8 = 0x80;

alphabet! {
    /// The kind of a remembered request: the first byte of its fingerprint.
    MemoKind {
        SetStock = b'S' "MEMO_SET_STOCK" "SetStock.",
        AdjustStock = b'A' "MEMO_ADJUST_STOCK" "AdjustStock.",
        ConfigureSku = b'F' "MEMO_CONFIGURE_SKU" "ConfigureSku and SetProtection.",
        DeleteSku = b'D' "MEMO_DELETE_SKU" "DeleteSku.",
        Settlement = b'I' "MEMO_SETTLEMENT" "The settlement of a fence.",
        ConfigureNamespace = b'N' "MEMO_CONFIGURE_NAMESPACE" "ConfigureNamespace, and the creation of a namespace.",
        CommitLines = b'c' "MEMO_COMMIT_LINES" "Commit of some lines.",
        RollbackLines = b'b' "MEMO_ROLLBACK_LINES" "Rollback of some lines.",
        Extend = b'E' "MEMO_EXTEND" "Extend.",
    }
}

alphabet! {
    /// The kind of an event of the stream.
    EventKind {
        Held = b'H' "EVENT_HELD" "A reservation was created.",
        Committed = b'C' "EVENT_COMMITTED" "Units were sold.",
        RolledBack = b'R' "EVENT_ROLLED_BACK" "A call gave units back.",
        Expired = b'E' "EVENT_EXPIRED" "A deadline gave units back.",
        Extended = b'X' "EVENT_EXTENDED" "A deadline was moved.",
        Repurchased = b'L' "EVENT_REPURCHASED" "Units were sold after the deadline.",
        StockSet = b'S' "EVENT_STOCK_SET" "SetStock.",
        StockAdjusted = b'A' "EVENT_STOCK_ADJUSTED" "AdjustStock.",
        Configured = b'F' "EVENT_CONFIGURED" "The rules of a SKU were changed.",
        Deleted = b'D' "EVENT_DELETED" "A SKU was deleted.",
        SkuSettled = b'U' "EVENT_SKU_SETTLED" "The counters of a SKU were settled.",
        PartitionSettled = b'O' "EVENT_PARTITION_SETTLED" "The partition was settled and opened.",
        HistoryLost = b'V' "EVENT_HISTORY_LOST" "The store has lost changes.",
    }
}

/// The state in an event that is about no reservation.
pub(crate) const NO_STATE: u8 = b'-';

alphabet! {
    /// Whether a claim is part of the history.
    VerdictCode {
        Part = b'k' "VERDICT_PART" "It is.",
        Settled = b's' "VERDICT_SETTLED" "Lost, and an operator has settled it.",
        Unproven = b'u' "VERDICT_UNPROVEN" "Too old to be compared.",
        Lost = b'l' "VERDICT_LOST" "Lost.",
    }
}

alphabet! {
    /// Whether a loss gates the partition, as the caller's knowledge begins.
    GateMode {
        Gates = b'g' "GATES" "It does.",
        DoesNotGate = b'n' "DOES_NOT_GATE" "It does not.",
    }
}

/// An error that the script raises before its first write: the code of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No such partition, or another epoch.
    Closed,
    /// A record that the script did not write.
    Corrupt,
    /// A record of a newer version.
    Newer,
    /// Arguments that no server sends.
    Malformed,
    /// The user lacks a permission.
    Denied,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Closed, Self::Corrupt, Self::Newer, Self::Malformed, Self::Denied];

    /// The first word of the error.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "SENTINELCLOSED",
            Self::Corrupt => "SENTINELCORRUPT",
            Self::Newer => "SENTINELNEWER",
            Self::Malformed => "SENTINELMALFORMED",
            Self::Denied => "SENTINELDENIED",
        }
    }

    /// The one that has this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.word() == word)
    }

    /// Its name in Lua.
    pub(crate) fn lua_name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Corrupt => "CORRUPT",
            Self::Newer => "NEWER",
            Self::Malformed => "MALFORMED",
            Self::Denied => "DENIED",
        }
    }
}

/// Flags of a stock record.
pub(crate) mod stock_flags {
    /// The units are governed here.
    pub(crate) const PROTECTED: u8 = 1;
    /// The record has rules.
    pub(crate) const RULED: u8 = 2;
    /// The record has a count of withdrawn units.
    pub(crate) const HAS_WITHDRAWN: u8 = 4;
    /// Units of old holds are withdrawn.
    pub(crate) const WITHDRAWS: u8 = 8;
    /// The record has the earliest deadline of its holds.
    pub(crate) const HAS_EARLIEST: u8 = 16;
    /// The sale of the SKU is paused.
    pub(crate) const PAUSED: u8 = 32;
    /// The record has the instant since which the limit per buyer counts.
    pub(crate) const HAS_LIMIT_SINCE: u8 = 64;
    /// In the event of a change of rules: the rules follow.
    pub(crate) const HAS_VALUES: u8 = 64;
}

/// Flags of a state record and of a fence.
pub(crate) mod state_flags {
    /// The partition takes and adds no units.
    pub(crate) const GATED: u8 = 1;
    /// The partition has lost everything and continues.
    pub(crate) const EMPTIED: u8 = 2;
    /// A loss has no event yet.
    pub(crate) const UNREPORTED: u8 = 4;
    /// The replication id under which the term began follows.
    pub(crate) const OTHER_RUN: u8 = 8;
    /// The correction and the doubt of the clock follow.
    pub(crate) const STEPPED: u8 = 16;
    /// Counts of buyers whose limit has ended are being dropped.
    pub(crate) const PURGING: u8 = 32;
}
