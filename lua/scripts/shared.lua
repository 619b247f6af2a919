-- The names that the files share: library functions, keys, constants, the tables of this call, and
-- the functions that more than one file calls. Nothing runs here.
--
-- The assembler replaces each constant by its value, so a constant costs nothing at run time.
--
-- Redis executes the whole script in each call, so every table and function that is created here
-- costs time in every batch. A function costs about a tenth of an operation, and more if it uses
-- many names of other files. Therefore a step that runs once a call is plain code and not a
-- function, and a file that not every batch needs runs under a condition (main.lua).

local call, error_reply, pack, unpack_bytes, sub, byte, char, rep, concat, find, min, max, floor =
  redis.call, redis.error_reply, struct.pack, struct.unpack, string.sub, string.byte, string.char,
  string.rep, table.concat, string.find, math.min, math.max, math.floor
local META, STOCK, RECORDS_A, RECORDS_B, DEADLINES, EVENTS, BUYERS = unpack(KEYS)

-- Limits.
local MAX_ARGUMENTS = 1000 -- of one redis.call; unpack() fails near 8,000
local ENTRY_IDS = 128 -- ids in an entry of DEADLINES; holds are given back by whole entries
local TTL_BOUND = 31536000000 -- ms: a year, far above the limit of any namespace

-- Formats and first bytes of the records (formats.lua).
local STATE_FORMAT = '>BI6c40I6I6i8BI6I6I6I6I6BI6I6I6'
local STATE_LENGTH = 117
local STATE_FORMAT_2 = '>BI6c40I6I6i8BI6I6I6I6I6BI6'
local STATE_LENGTH_2 = 105
local STATE_FORMAT_1 = '>I6I6I6i8BI6I6I6I6' -- in a namespace of format 1
local STATE_LENGTH_1 = 51
local CLOCK_FORMAT = '>i8I6I6I6' -- behind the state, if its flag STEPPED is set
local CLOCK_LENGTH = 26
local SHOWN_CLOCK_FORMAT = '>i8i8I6' -- in a reply: offset, correction, doubt
local CONFIG_FORMAT = '>BI6I6I6I6I6I6I6I6I2'
local CONFIG_LENGTH = 51
local NO_TERM = '0000000000000000000000000000000000000000'
local CLAIM_LENGTH = 52
local DELETION_VERSION = 1
local DELETING_FORMAT = '>Bc16c16BI6c40I6'
local DELETED_LENGTH = 68
local MAX_DELETED = 64 -- deletions of one partition that are remembered
local EXPECTATION_LENGTH = 6
local NO_FENCE = '0000000000000000'
local FIRST_SMALL = 97 -- 'a'
local TAIL, RESOLVED_TAIL = 14, 21 -- of buyer and line set in a pending record, and in a resolved one
local FIRST_EXTENDED = 97 -- 'a': the state of an extended record is in lower case
local FIRST_DIGESTED = 128 -- of an extended record that has a digest of its request
local LAST_CHANGED = 223 -- of a record with a digest that has changes too; they begin at 128
local CHANGE_LENGTH = 16 -- a change: half a digest of its identity, and half a digest of the change
local FIRST_WITH_CHANGES = 5 -- the first format in which a reservation has its changes
local NO_ORIGIN = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local NO_BUYER = '\0'
local NO_DEADLINE = '\0\0\0\0\0\0'
local FIRST_WITH_EARLIEST = 4 -- the first format whose stock records may have the bound
local FIRST_WITH_LIMIT_SINCE = 5 -- the first format in which the counts of buyers end with the limit
local COUNT_FORMAT, COUNT_LENGTH = '>I6I6', 12 -- of a buyer's count: limit since, units
local NEWEST_FLAGS = 127 -- a stock record with a greater number has a newer version
local PADDING_FIELD, PADDING_LENGTH = 'weight', 1024 -- of each generation (write/open.lua)

-- Indices of the counters in a stock table, and of the rules in a table of rules. EARLIEST (ms): no
-- pending hold of the SKU has an earlier deadline; 0: not known. Without held units it means
-- nothing.
local AVAILABLE, HELD, SOLD, SUPPLIED, VERSION, FLAGS, EARLIEST = 1, 2, 3, 4, 5, 6, 7
local SETS_BUYER_LIMIT = 8 -- bit of the rules to set
local REVISION, MOST_UNITS, LONGEST_TTL, BUYER_LIMIT, OPENS, CLOSES = 1, 2, 3, 4, 5, 6

-- The fields of the partition and of this call that functions use. Created with all usual fields,
-- because a table that grows is allocated a second time. These rare fields are not among them:
-- is_doubtful (whether a hold may be due by the clock), closes (decide/close.lua), may_return_to
-- and may_return (decide/returning.lua), doubted, doubt_lag, doubt_has_ended (load/clock.lua),
-- half_done (load/stream_end.lua), gated and emptied (the partition has lost changes and takes and
-- adds no units, or continues), unreported (a loss has no event yet), settled_at (ms: earlier holds
-- are older than the last settlement), purging (counts of buyers whose limit has ended are dropped
-- in steps), purge (the new position for META, load/ended_counts.lua), purge_at (ms: when the next
-- step is), has_terms (the state is not that of format 1), missing (the answer where a reservation
-- may be lost), fence and verdicts (of the reply).
local ctx = {
  format = 0, -- of the namespace
  paused = false, -- whether the namespace is
  sequence = 0,
  next_due = 0,
  pending = 0,
  longest_life = 0,
  quota_records = 0,
  quota_skus = 0,
  now = 0, -- the partition's clock in this call, ms
  now_bytes = '', -- the same as I6
  current = '', -- the generation in which new records are created
  older = '', -- the one before it
  record_count = 0, -- records of the partition that count against its quota
  first_sequence = 0, -- of this call's first change, minus one
  backlog = false, -- whether more holds are due than this call gives back
  only_reserves = false, -- whether there is nothing in the batch but Reserves that replace none
  any_limited = false, -- whether a SKU of the batch has a limit per buyer
  any_extended = false, -- whether a record of the batch is extended, or can become so
  any_counted = false, -- whether the batch can change how many units a buyer has
  moves_records = false, -- whether the batch may move units of reservations that exist already
}
-- The rest of the partition's state and of its config (load/partition.lua, formats.lua), which no
-- function uses.
local newer_config         -- the caller's config, if it is newer than the stored one
local base_sequence = 0    -- the sequence as it was loaded
local state_epoch, clock_mark, clock_offset, generation, older_pending, older_written = 0, 0, 0, 0, 0, 0
-- Remembered requests of administrators in both generations, and in the older one: outside of the
-- quota. In formats 1 and 2 the state has no room for them, and they count.
local admin_records, older_admin_records = 0, 0
local FIRST_WITH_STATE_3 = 3 -- the first format whose state has these, and the clock
-- The clock (load/clock.lua): the correction of P for the time of day, and since when (P) the time
-- of day differs from TIME; how far P may be behind, and since when (P).
local day_correction, day_since, doubt, doubt_since = 0, 0, 0, 0
local is_stepped           -- whether the state has any of these
local clock_changed        -- whether any of these, or the offset, is not as it was loaded
local expected             -- P as the caller expects it, ms; nil: it expects none
local state_term = NO_TERM -- of the last sequence
local term_first = 0       -- the first sequence of that term
local state_run = NO_TERM  -- the replication id under which that term began
local config_revision, retention, events_kept
local older_count          -- records of the older generation
local expired = 0          -- holds that this call has given back
local history       -- set by load/terms.lua, if it runs: terms and lost changes
local is_unproven   -- whether load/history.lua must check the caller's claims
local is_same_run   -- whether the caller confirms that the store's process wrote the last sequence
local has_changes   -- whether this call advanced the sequence
local replid        -- the store's replication id, if it did
local saves         -- whether write/state.lua has something to save
local is_batch      -- whether this is neither 'open' nor 'configure'
local kinds = {}    -- kind -> true, of the groups
local groups = {}   -- { kind, payload, packed = n ids in one string, n, ids = {..} once loaded, extra,
                    -- lines, target }
local records_by_id = {} -- id -> record of now: from the store, or as this call has changed it
local in_older = {} -- id -> record as it was, for records of the older generation
local line_sets = {} -- line set -> its lines
local stocks = {}   -- SKU -> stock table; false: no such SKU
local counts        -- SKU NUL buyer -> units held and bought; nil where the batch has no limit per buyer
local plain_info = {} -- record -> { lines, line_set, buyer, is_named, is_old }; false: it is not plain
local due = {}      -- ids of pending reservations whose deadline has passed
local consumed_entries = {} -- entries of the deadline index to remove
local apply = {}    -- kind -> what applies a group of it
local reply, reply_sequence -- and the sequence before the first group

-- Set by the ledger, for write/batch.lua.
local changed_stock = {}  -- SKU -> true
local new_records = {}    -- id, record, ... of new and changed ones, in order, possibly twice
local changed_counts      -- fields of BUYERS, in order, possibly twice
local stored_counts = 0   -- the fields of BUYERS, with those that this batch adds and drops
local purged              -- fields of BUYERS whose limit has ended; nil if none was read
local run_list = {}       -- the runs of events, in order
local new_deadlines = {}  -- deadline -> packed ids for the index, in pieces

-- The functions that more than one file calls, by the file that defines them.
local fail, lines_from -- load/lines.lua
local is_pending, state_of, changes_length, deadline_of, buyer_and_line_set -- load/record_fields.lua
local stock_bytes -- write/stock_bytes.lua
local history_fields, settle_up_to -- load/terms.lua
local load_fields, lines_of, buyers_of -- load/batch.lua
local load_lines_of_record, load_records, load_named_records -- load/records.lua
local run_of, append_event, transfer, next_sequence, store_record, watch_deadline -- decide/ledger.lua
local resolve_run, resolve_one -- decide/resolve_ledger.lua
local is_old, release_old -- decide/withdrawal.lua
-- decide/extended_records.lua
local line_set_of, digest_of, extension_of, held_amounts
local hold_extended, repurchase, resolve_extended, extend_deadline
local limited_lines, counts_line, still_counted, since_of, count, over_limit -- load/buyer_limits.lua
local availability, refusal_of -- decide/refusal.lua
local is_same -- decide/same_request.lua
local reserve_by_rule -- decide/reserve_limited.lua
