-- The ledger of stock itself: units that come in or leave, the rules of a SKU, its deletion, and
-- the memory of requests that change it. Runs with decide/stock.lua and decide/settle.lua; no
-- redis.call.

-- Replaces the stock table of a SKU, also in the lines of the batch; false: it does not exist.
local function become(sku, stock)
  stocks[sku] = stock
  for _, lines in pairs(line_sets) do
    local i = lines.index[sku]
    if i then lines.stocks[i] = stock end
  end
end

-- Remembers a request of an administrator, which no quota refuses. Also one that changed nothing:
-- its delayed duplicate must not undo a later change.
local function remember(id, memo)
  store_record(id, STATE_MEMO .. ctx.now_bytes .. memo)
  if ctx.format < FIRST_WITH_STATE_3 then
    ctx.record_count = ctx.record_count + 1
  else
    admin_records = admin_records + 1
  end
end

-- The only change of `supplied`. `kind` is the letter of the event, and of the memo too.
local function supply(sku, delta, kind, id)
  local stock = stocks[sku]
  local sequence = next_sequence(1)
  stock[AVAILABLE] = stock[AVAILABLE] + delta
  stock[SUPPLIED] = stock[SUPPLIED] + delta
  if stock[AVAILABLE] < 0 or stock[SUPPLIED] < 0 then fail(CORRUPT, 'a counter below zero') end
  stock[VERSION] = sequence
  changed_stock[sku] = true
  append_event(run_of(kind, NO_STATE, NO_DEADLINE, false, pack('>i8', delta) .. sku, ''), id, 1)
end

-- Sets the rules of a SKU; no unit moves. The event contains them since format 5, and a flag marks
-- that.
local function configure(sku, flags, rules)
  local stock = stocks[sku]
  stock[FLAGS], stock[VERSION], stock.rules = flags + stock[FLAGS] - stock[FLAGS] % 4, next_sequence(1), rules
  changed_stock[sku] = true
  local values = char(flags)
  if ctx.format >= FIRST_WITH_PAUSE then
    values = char(flags + (stock.paused and PAUSED or 0) + HAS_VALUES) .. pack('>I6I4I6I4I6I6', unpack(rules))
  end
  append_event(run_of(EVENT_CONFIGURED, NO_STATE, NO_DEADLINE, false, values .. sku, ''), NO_ORIGIN, 1)
end

-- Counts of buyers have lost their limit. They are dropped in steps (load/ended_counts.lua), from
-- the first field on.
local function purge_counts()
  ctx.purging, ctx.purge, ctx.purge_at = true, '', ctx.now
end

-- Another limit per buyer counts from now on, or none does. Holds and counts from before this
-- instant do not count.
local function start_limit(sku, is_set)
  ctx.now = ctx.now + 1
  ctx.now_bytes = pack('>I6', ctx.now)
  stocks[sku].limit_since = is_set and ctx.now or nil
  purge_counts()
  for field in pairs(counts or {}) do
    if sub(field, 1, #sku + 1) == sku .. '\0' then counts[field] = 0 end
  end
end

-- Sets the counters of a SKU after a settlement, with the flags that decide about its old holds.
local function set_settled(sku, available, flags)
  local stock = stocks[sku]
  local supplied = available + stock[HELD] + stock[SOLD]
  local delta = supplied - stock[SUPPLIED]
  stock[AVAILABLE], stock[SUPPLIED], stock[VERSION], stock[FLAGS] =
    available, supplied, next_sequence(1), flags
  changed_stock[sku] = true
  append_event(run_of(EVENT_SKU_SETTLED, NO_STATE, NO_DEADLINE, false, pack('>i8', delta) .. sku, ''),
    NO_ORIGIN, 1)
end

-- Deletes a SKU that nobody holds.
local function delete(sku)
  next_sequence(1)
  become(sku, false)
  changed_stock[sku] = true
  append_event(run_of(EVENT_DELETED, NO_STATE, NO_DEADLINE, false, sku, ''), NO_ORIGIN, 1)
end
