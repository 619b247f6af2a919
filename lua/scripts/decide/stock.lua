-- SetStock, AdjustStock, ConfigureSku, DeleteSku, GetStock and IsProtected. Works on loaded tables
-- through the ledger (decide/stock_ledger.lua). Reads the number of SKUs where one is made, and
-- TIME where a limit per buyer begins or ends.

local new_skus = 0
local ANY_REVISION = 281474976710655 -- all ones
local SETS_PAUSE = 64 -- bit of the rules to set

local function answer(code, stock)
  return { code, '', stock and stock_bytes(stock) or nil }
end

-- The SKU does not exist, or may be lost.
local function missing_sku()
  if ctx.missing == FENCED then return answer(FENCED) end
  return { NO_SUCH_SKU, '\1' }
end

-- The answer to an identity that was used before, with the stock of now; nil if it was not. It
-- precedes every refusal: a repeat changes nothing.
local function replay_of(group, kind, sku)
  local record, stock = records_by_id[group.ids[1]], stocks[sku]
  if not record then return nil end
  if byte(record, 1) ~= MEMO or sub(record, 8) ~= kind .. group.payload then return answer(ID_REUSED) end
  if not stock and kind ~= MEMO_DELETE_SKU then return missing_sku() end -- deleted since
  return answer(REPLAYED, stock)
end

-- Creates the SKU, protected and empty; or returns nil and the code that refuses it.
local function make_sku(sku)
  if call('HLEN', STOCK) + new_skus >= ctx.quota_skus then return nil, OVER_QUOTA end
  if AT_MEMORY_LIMIT == 1 then return nil, STORE_FULL end
  new_skus = new_skus + 1
  become(sku, { 0, 0, 0, 0, 0, PROTECTED, 0 })
  return stocks[sku]
end

-- Changes the units on hand once for each identity, and remembers the identity. `refuse`, if given,
-- returns the code that refuses the change, or nil.
local function change_stock(group, kind, sku, delta_of, refuse)
  local replay = replay_of(group, kind, sku)
  if replay then return replay end
  local stock = stocks[sku]
  if ctx.gated then return answer(FENCED) end
  local objection = refuse and refuse(stock)
  if objection == OTHER_VERSION then return { OTHER_VERSION, '', stock and stock_bytes(stock) or '' } end
  if objection then return answer(objection) end
  local delta = delta_of(stock)
  if not stock and delta < 0 then return missing_sku() end
  local available, held = stock and stock[AVAILABLE] or 0, stock and stock[HELD] or 0
  if available + delta < 0 then
    if ctx.may_return and ctx.may_return_to(stock) then return answer(AGAIN) end
    return answer(BELOW_HELD, stock)
  end
  if available + held + delta > MAX_STOCK then return answer(ABOVE_STOCK_LIMIT) end
  local refusal
  if not stock then stock, refusal = make_sku(sku) end
  if refusal then return answer(refusal) end
  supply(sku, delta, kind, group.ids[1])
  remember(group.ids[1], kind .. group.payload)
  return answer(APPLIED, stock)
end

function apply.set_stock(group)
  local on_hand, condition, version = unpack_bytes('>I6BI6', group.payload)
  if on_hand > MAX_STOCK or condition > 2 then fail(MALFORMED, 'stock') end
  return change_stock(group, MEMO_SET_STOCK, sub(group.payload, 14), function(stock)
    return stock and on_hand - stock[AVAILABLE] - stock[HELD] or on_hand
  end, function(stock)
    if condition == 1 and stock then return SKU_EXISTS end
    if condition == 2 and (not stock or stock[VERSION] ~= version) then return OTHER_VERSION end
  end)
end

function apply.adjust_stock(group)
  local delta = unpack_bytes('>i8', group.payload)
  if delta == 0 or delta > MAX_STOCK or delta < -MAX_STOCK then fail(MALFORMED, 'delta') end
  return change_stock(group, MEMO_ADJUST_STOCK, sub(group.payload, 9), function() return delta end)
end

-- The rules after the change, and whether they differ from those before.
local function changed_rules(stock, mask, values)
  local rules, differs = stock.rules and { unpack(stock.rules) } or { 0, 0, 0, 0, 0, 0 }, false
  for i = MOST_UNITS, CLOSES do
    if bit.band(mask, bit.lshift(1, i - 1)) ~= 0 and rules[i] ~= values[i] then
      rules[i], differs = values[i], true
    end
  end
  return rules, differs
end

-- Whether P is ahead of TIME by the most that is permitted. Each limit that begins or ends advances
-- P (decide/stock_ledger.lua), and no hold may end early.
local MOST_AHEAD = 50 -- ms
local function is_ahead()
  local time = call('TIME')
  return ctx.now - clock_offset - time[1] * 1000 - floor(time[2] / 1000) >= MOST_AHEAD
end

function apply.configure_sku(group)
  local payload = group.payload
  local mask, flags, most_units, ttl, limit, opens, closes, revision =
    unpack_bytes('>BBI4I6I4I6I6I6', payload)
  if mask == 0 or flags % PAUSED > PROTECTED or flags > PROTECTED + PAUSED or most_units > MAX_QUANTITY
    or limit > MAX_QUANTITY then
    fail(MALFORMED, 'rules')
  end
  local sku = sub(payload, 35)
  local replay = replay_of(group, MEMO_CONFIGURE_SKU, sku)
  if replay then return replay end
  local stock = stocks[sku]
  if not stock then return missing_sku() end
  local current = stock.rules and stock.rules[REVISION] or 0
  if revision ~= ANY_REVISION and revision ~= current then return answer(OTHER_VERSION, stock) end
  local rules, differs = changed_rules(stock, mask, { 0, most_units, ttl, limit, opens, closes })
  if rules[CLOSES] > 0 and rules[CLOSES] <= rules[OPENS] then return { CLOSES_BEFORE_OPENING, '' } end
  local protected, paused = stock[FLAGS] % 2, stock.paused
  if mask % 2 == 1 then protected = flags % 2 end
  if mask >= SETS_PAUSE then paused = flags >= PAUSED or nil end
  -- A limit begins or ends. The clock decides which holds count for it, so it must be certain.
  local limit_before = stock.rules and stock.rules[BUYER_LIMIT] or 0
  local is_other_limit = (limit_before > 0) ~= (rules[BUYER_LIMIT] > 0)
    and ctx.format >= FIRST_WITH_LIMIT_SINCE
  if is_other_limit and (doubt > 0 or is_ahead()) then return answer(AGAIN) end
  if paused and ctx.format < FIRST_WITH_PAUSE then fail(MALFORMED, 'pause') end
  remember(group.ids[1], MEMO_CONFIGURE_SKU .. payload)
  if not differs and protected == stock[FLAGS] % 2 and paused == stock.paused then
    return answer(UNCHANGED, stock)
  end
  rules[REVISION], stock.paused = current + 1, paused
  if is_other_limit then start_limit(sku, rules[BUYER_LIMIT] > 0) end
  configure(sku, protected + RULED, rules)
  return answer(APPLIED, stock)
end

function apply.delete_sku(group)
  local replay = replay_of(group, MEMO_DELETE_SKU, group.payload)
  if replay then return replay end
  local stock = stocks[group.payload]
  if ctx.gated or not stock and ctx.emptied then return answer(FENCED) end
  if stock and stock[HELD] > 0 then
    if ctx.may_return and ctx.may_return_to(stock) then return answer(AGAIN) end
    return answer(HAS_HOLDS, stock)
  end
  remember(group.ids[1], MEMO_DELETE_SKU .. group.payload)
  if not stock then return answer(UNCHANGED) end
  local last = answer(APPLIED, stock)
  if stock.rules and stock.rules[BUYER_LIMIT] > 0 and ctx.format >= FIRST_WITH_LIMIT_SINCE then
    purge_counts()
  end
  delete(group.payload)
  return last
end

-- The protection of a SKU may be among the lost changes.
function apply.is_protected(group)
  if ctx.gated then return answer(FENCED) end
  return apply.get_stock(group)
end

function apply.get_stock(group)
  local stock = stocks[group.payload]
  if not stock then return missing_sku() end
  if ctx.backlog and ctx.may_return_to(stock) then return answer(AGAIN) end
  return answer(VALUE, stock)
end
