-- The bytes of every record, big-endian; the same formats are in server/src/store/wire.rs.
-- Pure functions; no redis.call. Formats as struct.pack reads them, lengths in bytes:
--   state   epoch I6, sequence I6, clock mark I6, clock offset i8, start of the generation I6,
--           its number B, next due I6 (0: none)                                               = 39
--   config  version B, revision I6, retention I6, default ttl I6, longest ttl I6, longest life I6,
--           records I6, SKUs I6, events I6, partitions I2, secret                        = 51 + 32
--   stock   available I6, held I6, sold I6, supplied I6, version I6, flags B                  = 31
--           and where flag 2 is set: rules revision I6, rules                            = 31 + 32
--   rules   most units I4, longest ttl I6, buyer's limit I4, opens I6, closes I6 (0: none each), and
--           before them in the args of 'F': flags B
--   shape   ttl as asked I6 (0: the default), lines B, then for each: quantity I4, SKU length B, SKU
--   buyer   length B, buyer
--   record  state, deadline I6, created I6, [resolved I6 unless pending,] buyer, shape
--   extended record: its state in lower case, and behind it: lines that count for the buyer I4 (a
--           bit each), origin 16 (zeros: none), and for each line: sold I4, released I4
--   memo    'M', at I6, kind, args: a remembered request that is no reservation
-- The state of a reservation is a letter: P pending, C committed, R rolled back, E expired. A record is
-- extended only where it has something to say: a plain sale costs no byte for the rules of others.

local error_reply, pack, unpack_bytes, sub, byte, char, upper, concat =
  redis.error_reply, struct.pack, struct.unpack, string.sub, string.byte, string.char, string.upper,
  table.concat
local MAX_LINES = 32 -- lines in a reservation
local MAX_QUANTITY = 1000000 -- units in a line

local PENDING, EXTENDED_PENDING, MEMO = byte('P'), byte('p'), byte('M')
local STATE_FORMAT = '>I6I6I6i8I6BI6'
local CONFIG_FORMAT = '>BI6I6I6I6I6I6I6I6I2'
local CONFIG_LENGTH = 51
local STOCK_FORMAT = '>I6I6I6I6I6B'
local STOCK_LENGTH = 31
local RULES_FORMAT = '>I6I4I6I4I6I6'
local RULES_LENGTH = 32
local NO_ORIGIN = string.rep('\0', 16)

-- Where the counters stand in a stock table, and the rules in a table of rules.
local AVAILABLE, HELD, SOLD, SUPPLIED, VERSION, FLAGS = 1, 2, 3, 4, 5, 6
local REVISION, MOST_UNITS, LONGEST_TTL, BUYER_LIMIT, OPENS, CLOSES = 1, 2, 3, 4, 5, 6
local PROTECTED, RULED = 1, 2 -- flags of a stock record

local function corrupt(what)
  error(error_reply('SENTINELCORRUPT ' .. what))
end

local function malformed(what)
  error(error_reply('SENTINELMALFORMED ' .. what))
end

local function stock_from(bytes)
  if #bytes == STOCK_LENGTH then return { unpack_bytes(STOCK_FORMAT, bytes) } end
  if #bytes ~= STOCK_LENGTH + RULES_LENGTH then corrupt('stock record') end
  local stock = { unpack_bytes(STOCK_FORMAT, bytes) }
  stock.rules = { unpack_bytes(RULES_FORMAT, bytes, STOCK_LENGTH + 1) }
  return stock
end

local function stock_bytes(stock)
  local bytes = pack(STOCK_FORMAT, stock[1], stock[2], stock[3], stock[4], stock[5], stock[6])
  local rules = stock.rules
  if not rules then return bytes end
  return bytes .. pack(RULES_FORMAT, rules[1], rules[2], rules[3], rules[4], rules[5], rules[6])
end

-- The lines of a shape: skus[i], quantities[i], n. Refuses what the server should have refused.
local function lines_from(shape)
  if #shape < 7 then malformed('shape') end
  local n, at = byte(shape, 7), 8
  if n < 1 or n > MAX_LINES then malformed('lines') end
  local skus, quantities, index = {}, {}, {}
  for i = 1, n do
    if at + 4 > #shape then malformed('line') end
    local quantity, length = unpack_bytes('>I4B', shape, at)
    local sku = sub(shape, at + 5, at + 4 + length)
    if quantity < 1 or quantity > MAX_QUANTITY then malformed('quantity') end
    if length == 0 or #sku ~= length or index[sku] then malformed('sku') end
    skus[i], quantities[i], index[sku] = sku, quantity, i
    at = at + 5 + length
  end
  if at ~= #shape + 1 then malformed('shape') end
  return { n = n, skus = skus, quantities = quantities, index = index, stocks = {} }
end

-- Lines as the bytes of a shape without a ttl; a line of no unit is left out.
local function shape_of(lines, amounts)
  local parts = {}
  for i = 1, lines.n do
    if amounts[i] > 0 then
      parts[#parts + 1] = pack('>I4B', amounts[i], #lines.skus[i]) .. lines.skus[i]
    end
  end
  return '\0\0\0\0\0\0' .. char(#parts) .. concat(parts)
end

local function is_pending(record)
  local state = byte(record, 1)
  return state == PENDING or state == EXTENDED_PENDING
end

-- The state of a record as its letter, and whether the record is extended.
local function state_of(record)
  local letter = sub(record, 1, 1)
  local state = upper(letter)
  return state, state ~= letter
end

local function deadline_of(record)
  return (unpack_bytes('>I6', record, 2))
end

-- The buyer field of a record, and its shape.
local function buyer_and_shape(record)
  local at = is_pending(record) and 14 or 20
  local length = byte(record, at)
  if not length then corrupt('reservation') end
  local last = #record
  if byte(record, 1) >= 97 then -- lower case
    local n = byte(record, at + length + 7)
    if not n then corrupt('reservation') end
    last = last - 20 - 8 * n
  end
  return sub(record, at, at + length), sub(record, at + length + 1, last)
end

-- What an extended record has behind the plain one: which lines count, origin, sold[i], released[i].
local function extension_of(record, n)
  local at = #record - 8 * n - 19
  local extension = { counted = unpack_bytes('>I4', record, at), origin = sub(record, at + 4, at + 19) }
  local sold, released = {}, {}
  for i = 1, n do
    sold[i], released[i] = unpack_bytes('>I4I4', record, at + 12 + 8 * i)
  end
  extension.sold, extension.released = sold, released
  return extension
end

local function extension_bytes(extension)
  local parts = { pack('>I4', extension.counted), extension.origin }
  for i = 1, #extension.sold do
    parts[i + 2] = pack('>I4I4', extension.sold[i], extension.released[i])
  end
  return concat(parts)
end

-- The extension that a plain record stands for: nothing counted, nothing sold or released but all.
local function implied_extension(state, lines)
  local sold, released = {}, {}
  for i = 1, lines.n do
    sold[i] = state == 'C' and lines.quantities[i] or 0
    released[i] = (state == 'R' or state == 'E') and lines.quantities[i] or 0
  end
  return { counted = 0, origin = NO_ORIGIN, sold = sold, released = released }
end

records = {
  MAX_TTL = 31536000000, -- ms: a year, far above what any namespace allows
  STATE_FORMAT = STATE_FORMAT, CONFIG_FORMAT = CONFIG_FORMAT, CONFIG_LENGTH = CONFIG_LENGTH,
  corrupt = corrupt, malformed = malformed, MEMO = MEMO, BUYER_LIMIT = BUYER_LIMIT,
  stock_from = stock_from, lines_from = lines_from, is_pending = is_pending,
  buyer_and_shape = buyer_and_shape, PENDING = PENDING, NO_ORIGIN = NO_ORIGIN, AVAILABLE = AVAILABLE,
  HELD = HELD, SOLD = SOLD, SUPPLIED = SUPPLIED, VERSION = VERSION, FLAGS = FLAGS, shape_of = shape_of,
  state_of = state_of, extension_of = extension_of, extension_bytes = extension_bytes,
  implied_extension = implied_extension, deadline_of = deadline_of, MOST_UNITS = MOST_UNITS,
  LONGEST_TTL = LONGEST_TTL, OPENS = OPENS, CLOSES = CLOSES, REVISION = REVISION, PROTECTED = PROTECTED,
  RULED = RULED, stock_bytes = stock_bytes, EXTENDED_PENDING = EXTENDED_PENDING,
}
