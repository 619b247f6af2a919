-- The bytes of every record, big-endian; the same formats are in server/src/store/wire.rs.
-- Pure functions; no redis.call. Formats as struct.pack reads them, lengths in bytes:
--   state   epoch I6, sequence I6, clock mark I6, clock offset i8, start of the generation I6,
--           its number B, next due I6 (0: none)                                               = 39
--   config  version B, retention I6, default ttl I6, longest ttl I6, records I6, SKUs I6,
--           events I6, partitions I2, secret                                              = 39 + 32
--   stock   available I6, held I6, sold I6, supplied I6, version I6, flags B (1: protected)   = 31
--   shape   ttl as asked I6 (0: the default), lines B, then for each: quantity I4, SKU length B, SKU
--   buyer   length B, buyer
--   record  state, deadline I6, created I6, [resolved I6 unless pending,] buyer, shape
--   memo    'M', at I6, kind, args: a remembered request that is no reservation
-- The state of a reservation is a letter: P pending, C committed, R rolled back, E expired.

local PENDING, MEMO = byte('P'), byte('M')
local STATE_FORMAT = '>I6I6I6i8I6BI6'
local CONFIG_FORMAT = '>BI6I6I6I6I6I6I2'
local STOCK_FORMAT = '>I6I6I6I6I6B'
local STOCK_LENGTH = 31

-- Where the counters stand in a stock table.
local AVAILABLE, HELD, SOLD, SUPPLIED, VERSION, FLAGS = 1, 2, 3, 4, 5, 6

local function corrupt(what)
  error(error_reply('SENTINELCORRUPT ' .. what))
end

local function malformed(what)
  error(error_reply('SENTINELMALFORMED ' .. what))
end

local function stock_from(bytes)
  if #bytes ~= STOCK_LENGTH then corrupt('stock record') end
  return { unpack_bytes(STOCK_FORMAT, bytes) }
end

local function stock_bytes(stock)
  return pack(STOCK_FORMAT, stock[1], stock[2], stock[3], stock[4], stock[5], stock[6])
end

-- The lines of a shape: skus[i], quantities[i], n. Refuses what the server should have refused.
local function lines_from(shape)
  if #shape < 7 then malformed('shape') end
  local n, at = byte(shape, 7), 8
  if n < 1 or n > MAX_LINES then malformed('lines') end
  local skus, quantities, seen = {}, {}, {}
  for i = 1, n do
    if at + 4 > #shape then malformed('line') end
    local quantity, length = unpack_bytes('>I4B', shape, at)
    local sku = sub(shape, at + 5, at + 4 + length)
    if quantity < 1 or quantity > MAX_QUANTITY then malformed('quantity') end
    if length == 0 or #sku ~= length or seen[sku] then malformed('sku') end
    skus[i], quantities[i], seen[sku] = sku, quantity, true
    at = at + 5 + length
  end
  if at ~= #shape + 1 then malformed('shape') end
  return { n = n, skus = skus, quantities = quantities, stocks = {} }
end

-- Where the buyer field of a record begins: after the instants that its state has.
local function buyer_at(record)
  return byte(record, 1) == PENDING and 14 or 20
end

-- The buyer field of a record, and its shape.
local function buyer_and_shape(record)
  local at = buyer_at(record)
  local length = byte(record, at)
  if not length then corrupt('reservation') end
  return sub(record, at, at + length), sub(record, at + length + 1)
end

local function deadline_of(record)
  return (unpack_bytes('>I6', record, 2))
end
