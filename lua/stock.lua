-- SetStock, AdjustStock, ConfigureSku, DeleteSku, GetStock and IsProtected. Works on loaded tables through the
-- ledger (supply.lua); reads the number of SKUs where one is made, and TIME where a limit per buyer begins or ends.

local new_skus = 0
local ANY_REVISION = 281474976710655 -- all ones
local SETS_PAUSE = 64 -- bit of the rules to set

local function answer(code, stock)
  return { code, '', stock and stock_bytes(stock) or nil }
end

-- There is no such SKU, or it may be lost.
local function missing_sku()
  if ctx.missing == 'g' then return answer('g') end
  return { 'N', '\1' }
end

-- The answer to an identity that was used before, as things are now, and nothing if it was not. It comes before
-- whatever could refuse: a repeat changes nothing.
local function replay_of(group, sku)
  local record, stock = known[group.ids[1]], stocks[sku]
  if not record then return nil end
  if byte(record, 1) ~= MEMO or sub(record, 8) ~= group.kind .. group.args then return answer('D') end
  if not stock and group.kind ~= 'D' then return missing_sku() end -- deleted since
  return answer('Y', stock)
end

-- Makes the SKU, protected and empty; or returns nothing, and what refuses it.
local function made(sku)
  if call('HLEN', STOCK) + new_skus >= ctx.quota_skus then return nil, 'Q' end
  if AT_MEMORY_LIMIT == 1 then return nil, 'm' end
  new_skus = new_skus + 1
  become(sku, { 0, 0, 0, 0, 0, PROTECTED, 0 })
  return stocks[sku]
end

-- Changes the units on hand once for each identity, and remembers the identity. `refuse` may object.
local function change_stock(group, sku, delta_of, refuse)
  local replay = replay_of(group, sku)
  if replay then return replay end
  local stock = stocks[sku]
  if ctx.gated then return answer('g') end
  local objection = refuse and refuse(stock)
  if objection == 'v' then return { 'v', '', stock and stock_bytes(stock) or '' } end
  if objection then return answer(objection) end
  local delta = delta_of(stock)
  if not stock and delta < 0 then return missing_sku() end
  local available, held = stock and stock[AVAILABLE] or 0, stock and stock[HELD] or 0
  if available + delta < 0 then
    if ctx.may_return and ctx.may_return_to(stock) then return answer('A') end
    return answer('H', stock)
  end
  if available + held + delta > MAX_STOCK then return answer('L') end
  local refusal
  if not stock then stock, refusal = made(sku) end
  if refusal then return answer(refusal) end
  supply(sku, delta, group.kind, group.ids[1])
  remember(group.ids[1], group.kind .. group.args)
  return answer('K', stock)
end

function apply.S(group)
  local on_hand, condition, version = unpack_bytes('>I6BI6', group.args)
  if on_hand > MAX_STOCK or condition > 2 then fail('SENTINELMALFORMED stock') end
  return change_stock(group, sub(group.args, 14), function(stock)
    return stock and on_hand - stock[AVAILABLE] - stock[HELD] or on_hand
  end, function(stock)
    if condition == 1 and stock then return 'p' end
    if condition == 2 and (not stock or stock[VERSION] ~= version) then return 'v' end
  end)
end

function apply.A(group)
  local delta = unpack_bytes('>i8', group.args)
  if delta == 0 or delta > MAX_STOCK or delta < -MAX_STOCK then fail('SENTINELMALFORMED delta') end
  return change_stock(group, sub(group.args, 9), function() return delta end)
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

-- Whether P is as far ahead as it may be: each limit that begins or ends moves it on (supply.lua), and no hold shall end early.
local MOST_AHEAD = 50 -- ms
local function is_ahead()
  local time = call('TIME')
  return ctx.now - clock_offset - time[1] * 1000 - floor(time[2] / 1000) >= MOST_AHEAD
end

function apply.F(group)
  local args = group.args
  local mask, flags, most_units, ttl, limit, opens, closes, revision = unpack_bytes('>BBI4I6I4I6I6I6', args)
  if mask == 0 or flags % PAUSED > PROTECTED or flags > PROTECTED + PAUSED or most_units > MAX_QUANTITY or limit > MAX_QUANTITY then fail('SENTINELMALFORMED rules') end
  local sku = sub(args, 35)
  local replay = replay_of(group, sku)
  if replay then return replay end
  local stock = stocks[sku]
  if not stock then return missing_sku() end
  local current = stock.rules and stock.rules[REVISION] or 0
  if revision ~= ANY_REVISION and revision ~= current then return answer('v', stock) end
  local rules, differs = changed_rules(stock, mask, { 0, most_units, ttl, limit, opens, closes })
  if rules[CLOSES] > 0 and rules[CLOSES] <= rules[OPENS] then return { 'w', '' } end
  local protected, paused = stock[FLAGS] % 2, stock.paused
  if mask % 2 == 1 then protected = flags % 2 end
  if mask >= SETS_PAUSE then paused = flags >= PAUSED or nil end
  -- A limit begins or ends. The clock decides what counts for it, so it must be certain.
  local limit_before = stock.rules and stock.rules[BUYER_LIMIT] or 0
  local is_other_limit = (limit_before > 0) ~= (rules[BUYER_LIMIT] > 0) and ctx.format >= FIRST_WITH_LIMIT_SINCE
  if is_other_limit and (doubt > 0 or is_ahead()) then return answer('A') end
  if paused and ctx.format < FIRST_WITH_PAUSE then fail('SENTINELMALFORMED pause') end
  remember(group.ids[1], 'F' .. args)
  if not differs and protected == stock[FLAGS] % 2 and paused == stock.paused then return answer('k', stock) end
  rules[REVISION], stock.paused = current + 1, paused
  if is_other_limit then start_limit(sku, rules[BUYER_LIMIT] > 0) end
  configure(sku, protected + RULED, rules)
  return answer('K', stock)
end

function apply.D(group)
  local replay = replay_of(group, group.args)
  if replay then return replay end
  local stock = stocks[group.args]
  if ctx.gated or not stock and ctx.emptied then return answer('g') end
  if stock and stock[HELD] > 0 then
    if ctx.may_return and ctx.may_return_to(stock) then return answer('A') end
    return answer('h', stock)
  end
  remember(group.ids[1], 'D' .. group.args)
  if not stock then return answer('k') end
  local last = answer('K', stock)
  if stock.rules and stock.rules[BUYER_LIMIT] > 0 and ctx.format >= FIRST_WITH_LIMIT_SINCE then purge_counts() end
  delete(group.args)
  return last
end

-- Whether a SKU is protected may be among the lost changes.
function apply.H(group)
  if ctx.gated then return answer('g') end
  return apply.T(group)
end

function apply.T(group)
  local stock = stocks[group.args]
  if not stock then return missing_sku() end
  if ctx.backlog and ctx.may_return_to(stock) then return answer('A') end
  return answer('V', stock)
end
