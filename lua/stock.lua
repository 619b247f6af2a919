-- SetStock, AdjustStock, ConfigureSku and GetStock. Works on loaded tables through the ledger;
-- reads the number of SKUs where one is made.

local PROTECTED = 1
local new_skus = 0

local function answer(code, stock)
  return { code, '', stock and stock_bytes(stock) or nil }
end

-- Makes the SKU, protected and empty, if the quota allows it.
local function made(sku)
  if call('HLEN', STOCK) + new_skus >= quota_skus then return nil end
  new_skus = new_skus + 1
  stocks[sku] = { 0, 0, 0, 0, 0, PROTECTED }
  return stocks[sku]
end

-- Changes the units on hand once for each identity, and remembers the identity.
local function change_stock(group, sku, delta_of)
  local id, memo = group.ids[1], group.kind .. group.args
  local record, stock = known[id], stocks[sku]
  if record then
    if byte(record, 1) == MEMO and sub(record, 8) == memo then return answer('Y', stock) end
    return answer('D')
  end
  local delta = delta_of(stock)
  if not stock and delta < 0 then return { 'N', '\1' } end
  local available, held = stock and stock[AVAILABLE] or 0, stock and stock[HELD] or 0
  if available + delta < 0 then return answer(backlog and 'A' or 'H', not backlog and stock or nil) end
  if available + held + delta > MAX_STOCK then return answer('L') end
  if records >= quota_records then return answer('Q') end
  stock = stock or made(sku)
  if not stock then return answer('Q') end
  supply(sku, delta, group.kind, id)
  records = records + 1
  put(id, 'M' .. pack('>I6', now) .. memo)
  return answer('K', stock)
end

local function set_stock(group)
  local on_hand = unpack_bytes('>I6', group.args)
  if on_hand > MAX_STOCK then malformed('stock') end
  return change_stock(group, sub(group.args, 7), function(stock)
    return stock and on_hand - stock[AVAILABLE] - stock[HELD] or on_hand
  end)
end

local function adjust_stock(group)
  local delta = unpack_bytes('>i8', group.args)
  if delta == 0 or delta > MAX_STOCK or delta < -MAX_STOCK then malformed('delta') end
  return change_stock(group, sub(group.args, 9), function() return delta end)
end

local function configure_sku(group)
  local mask, values, sku = byte(group.args, 1), byte(group.args, 2), sub(group.args, 3)
  if mask ~= PROTECTED or values > PROTECTED then malformed('rules') end
  local stock = stocks[sku]
  if not stock then return { 'N', '\1' } end
  if stock[FLAGS] == values then return answer('Y', stock) end
  configure(sku, values)
  return answer('K', stock)
end

local function read_stock(group)
  if backlog then return answer('A') end
  local stock = stocks[group.args]
  if not stock then return { 'N', '\1' } end
  return answer('V', stock)
end
