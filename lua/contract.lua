-- The contract of the whole script. The files of lua/ are joined into one script in the order of
-- server/src/store/script.rs; each opens with its own contract and uses only what stands before it.
--
-- Why a script: a batch must read counters and records, decide, and write all or nothing; MULTI
-- can't decide. Lua in Redis does not roll back, hence the rule of the house: LOAD everything with
-- variadic calls, APPLY on Lua tables, WRITE with variadic calls. Every error is raised before the
-- first write, and no write can fail.
--
-- KEYS, all of one partition and so of one cluster slot:
--   1 meta       hash    config, state (see records.lua)
--   2 stock      hash    SKU -> stock record
--   3 holds      hash    16-byte id -> record of a PENDING reservation
--   4 deadlines  zset    packed ids -> deadline; may name reservations that are resolved already
--   5 past:a     hash    16-byte id -> resolved reservation or remembered request
--   6 past:b     hash    the other generation of the same
--   7 events     stream  one entry for each batch that changed something
--   8 buyers     hash    SKU NUL buyer -> units held and bought, of SKUs with a limit per buyer
--
-- ARGV, to open a partition:       'open', config record, epoch
-- ARGV, to configure a namespace:  'configure', revision that is replaced, config record
-- ARGV, for a batch:               epoch, then four for each group of operations that differ only by id:
--   kind   args                                  ids            extra
--   'R'    shape (records.lua)                   16 bytes each  ttl I6, then a buyer field each, or nothing
--   'r'    shape                                 16 bytes       the same, then the id that is replaced
--   'C'    ''                                    16 bytes each  ''      commit
--   'L'    ''                                    16 bytes each  the id of the purchase each: commit, or buy anew
--   'B'    ''                                    16 bytes each  ''      roll back
--   'c'    target id, keep the rest B, shape     16 bytes       ''      commit these lines
--   'b'    target id, shape                      16 bytes       ''      roll back these lines
--   'E'    target id, ttl I6                     16 bytes       ''      extend
--   'G'    ''                                    16 bytes each  ''      read a reservation
--   'S'    on hand I6, condition B, version I6, SKU   16 bytes  ''      set stock (0 always, 1 if absent, 2 if version)
--   'A'    delta i8, SKU                         16 bytes       ''      adjust stock
--   'F'    rules to set B, rules (records.lua), revision that is replaced I6 (all ones: any), SKU   ''   ''   configure
--   'D'    SKU                                   ''             ''      delete; one answer for all
--   'T'    SKU                                   ''             ''      read stock; one answer for all
-- The ids of 'c', 'b', 'E', 'S' and 'A' are those of remembered requests.
-- A batch without groups gives back what is due, and drops the records whose time is over.
--
-- Reply to a batch: now (ms), sequence before the first group, reservations expired by this call,
-- the next deadline (ms; 0: none; not after now: more are due), revision of the config, then for each
-- group an array: codes (one byte each), what the group shares, and a detail for each code that has
-- one, in order. What an 'R' or 'r' shares begins with the ttl in force, I6.
--   K applied: +1 on the sequence   detail: record; stock record (S, A, F, D); none (R, r)
--   + applied in two steps: +2      detail: none (r), record (c)
--   J bought anew: +1               detail: record of the purchase
--   Y replayed                      detail: record; stock record (S, A, F); none (D)
--   j bought anew before            detail: record of the purchase
--   V value                         detail: record (G), stock record (T)
--   S short                         shared: available I6 of each line
--   N no such SKU, U not protected  shared: the number of the line B
--   W outside of the sale's window  shared: the number of the line B, opens I6, closes I6
--   M too many units, T too long    shared: the number of the line B, the limit I6
--   P the buyer is not named        detail: SKU length B, SKU
--   I over the buyer's limit        detail: SKU length B, SKU, units that he has I6, may have I6
--   O bought anew, but short        detail: lines B, available I6 of each, record
--   A again: due holds wait to be given back; submit it once more
--   D the identity was used with other arguments      Q quota
--   X no such reservation   E it expired   B it was rolled back   C it was committed
--   Z more than is held of a line   detail: SKU length B, SKU, held I6
--   x beyond the longest life       detail: ms that are left I6
--   H below what is held            detail: stock record
--   h units are held                detail: stock record
--   L above the limit on stock
--   p present, though asked for only if absent
--   v another version               detail: stock record; empty for a SKU that is not known
--   w the sale would close before it opens
-- Errors, all of them before the first write: SENTINELCLOSED (no such partition, or another epoch),
-- SENTINELCORRUPT (a record that this script did not write), SENTINELMALFORMED (arguments).

local META, STOCK, HOLDS, DEADLINES, PAST_A, PAST_B, EVENTS, BUYERS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]

local call, error_reply = redis.call, redis.error_reply
local pack, unpack_bytes = struct.pack, struct.unpack
local sub, byte, char, upper, lower = string.sub, string.byte, string.char, string.upper, string.lower
local concat, min, max = table.concat, math.min, math.max

local MAX_OPERATIONS = 512    -- operations in a batch
local MAX_LINES = 32          -- lines in a reservation
local MAX_QUANTITY = 1000000  -- units in a line
local MAX_STOCK = 1000000000  -- units on hand of a SKU
local MAX_TTL = 31536000000   -- ms: a year, far above what any namespace allows
local MAX_ARGUMENTS = 1000    -- of one redis.call; unpack() fails near 8,000
local EXPIRE_BATCH = 512      -- due holds given back by one call, before the last group of ids
local EXPIRE_CHUNK = 16       -- entries of the deadline index read at a time
local CLOCK_FREEZE = 1000     -- ms that the clock may stand still after a step back
