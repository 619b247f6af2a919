-- The only place that writes a batch. Everything it writes to was read by this call, so that a wrong
-- type was found before; the event stream, which was not, is written first.

local META, STOCK, HOLDS, DEADLINES, EVENTS, BUYERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7], KEYS[8]
local call, pack, byte, char, concat, min, max =
  redis.call, struct.pack, string.byte, string.char, table.concat, math.min, math.max
local PENDING, EXTENDED_PENDING, MEMO, stock_bytes =
  records.PENDING, records.EXTENDED_PENDING, records.MEMO, records.stock_bytes
local retired, state_bytes = partition.retired, partition.state_bytes
local groups, known, stocks, counts = batch.groups, batch.known, batch.stocks, batch.counts
local changed_counts = buyers.changed_counts
local changed_stock, changed, run_list, new_deadlines =
  ledger.changed_stock, ledger.changed, ledger.run_list, ledger.new_deadlines
local spent = expiry.spent
local MAX_ARGUMENTS = 1000 -- of one redis.call; unpack() fails near 8,000

-- Sends one variadic command in as many calls as the limit on arguments asks for.
local function call_with(command, key, arguments)
  for first = 1, #arguments, MAX_ARGUMENTS do
    call(command, key, unpack(arguments, first, min(first + MAX_ARGUMENTS - 1, #arguments)))
  end
end

-- One entry: version, now, first sequence, runs (kind, state after it, deadline, shape, rest,
-- entries), and the stock after the batch; a SKU that is gone has no record. Its id is the last
-- sequence, so that a reader resumes by sequence.
local function write_event()
  local parts = { char(1), pack('>I6I6I2', ctx.now, ctx.first_sequence, #run_list) }
  for r = 1, #run_list do
    local run = run_list[r]
    parts[#parts + 1] = run.head .. pack('>I2', run.n) .. concat(run)
  end
  local skus = {}
  for sku in pairs(changed_stock) do skus[#skus + 1] = sku end
  table.sort(skus)
  parts[#parts + 1] = pack('>I2', #skus)
  for i = 1, #skus do
    local record = stocks[skus[i]] and stock_bytes(stocks[skus[i]]) or ''
    parts[#parts + 1] = char(#skus[i]) .. skus[i] .. char(#record) .. record
  end
  local oldest = string.format('%.0f', max(0, ctx.sequence - ctx.events_kept))
  call('XADD', EVENTS, 'MINID', '~', oldest, string.format('%.0f-0', ctx.sequence), 'b', concat(parts))
end

local function write_records()
  local held, resolved, past = {}, {}, {}
  for i = 1, #changed do
    local id = changed[i]
    local record = known[id]
    local state = byte(record, 1)
    if state == PENDING or state == EXTENDED_PENDING then
      held[#held + 1] = id
      held[#held + 1] = record
    else
      if state ~= MEMO then resolved[#resolved + 1] = id end
      past[#past + 1] = id
      past[#past + 1] = record
    end
  end
  call_with('HSET', HOLDS, held)
  call_with('HDEL', HOLDS, resolved)
  call_with('HSET', ctx.past, past)
end

local function write_stock()
  local values, gone = {}, {}
  for sku in pairs(changed_stock) do
    local stock = stocks[sku]
    if stock then
      values[#values + 1] = sku
      values[#values + 1] = stock_bytes(stock)
    else
      gone[#gone + 1] = sku
    end
  end
  call_with('HSET', STOCK, values)
  call_with('HDEL', STOCK, gone)
end

local function write_counts()
  local values, gone = {}, {}
  for i = 1, #changed_counts do
    local field = changed_counts[i]
    if counts[field] > 0 then
      values[#values + 1] = field
      values[#values + 1] = string.format('%.0f', counts[field])
    else
      gone[#gone + 1] = field
    end
  end
  call_with('HSET', BUYERS, values)
  call_with('HDEL', BUYERS, gone)
end

function write.batch()
  local moved = ctx.sequence > ctx.first_sequence
  local sweeping = #groups == 0 and #retired > 0
  if not moved and #spent == 0 and not sweeping then return end
  -- Two keys that were perhaps not read: a wrong type shows now.
  if #new_deadlines > 0 then call('ZCARD', DEADLINES) end
  if #changed > 0 and not retired[1] then call('HLEN', ctx.past) end
  if moved then write_event() end
  if #retired > 0 then call('UNLINK', unpack(retired)) end
  if moved then
    write_records()
    write_stock()
    write_counts()
    call_with('ZADD', DEADLINES, new_deadlines)
  end
  call_with('ZREM', DEADLINES, spent)
  call('HSET', META, 'state', state_bytes())
end

