-- The settlement of a partition that lost changes: begin, set the counters of each SKU, open. Each
-- is a separate operation, so no call is longer for a partition of many SKUs. The partition stays
-- gated until the last. Runs behind load/terms.lua and decide/stock_ledger.lua. Works on loaded
-- tables; no redis.call.

local OLD_HOLDS_RETURN, ONLY_KNOWN = 1, 2 -- flags of settle_sku

-- The answer to an identity that was used before; nil if it was not.
local function replay_of(group, key)
  local record = records_by_id[group.ids[1]]
  if not record then return nil end
  return { byte(record, 1) == MEMO and sub(record, 8) == MEMO_SETTLEMENT .. key and REPLAYED
    or ID_REUSED, '' }
end

local function is_superseded(key)
  return not ctx.gated or history.settling ~= key
end

function apply.begin_settlement(group)
  if #group.payload ~= 32 then fail(MALFORMED, 'key') end
  local key, fence = sub(group.payload, 1, 16), sub(group.payload, 17)
  local replay = replay_of(group, key)
  if replay then return replay end
  if not ctx.gated and not ctx.emptied then return { NOT_FENCED, '' } end
  -- Holds that are made while the clock is in doubt count from later than P.
  if doubt > 0 then return { AGAIN, '' } end
  local current = ctx.fence and sub(ctx.fence, -16) or NO_FENCE
  if fence ~= current then return { OTHER_FENCE, current } end
  if not ctx.gated then ctx.gated, history.fenced_at = true, ctx.now end
  -- Every existing hold was made before this instant, and every later one is made at it or after.
  ctx.now = ctx.now + 1
  ctx.settled_at, history.settling, history.changed = ctx.now, key, true
  return { VALUE, '' }
end

function apply.settle_sku(group)
  local flags, available = unpack_bytes('>BI6', group.payload)
  local sku = sub(group.payload, 8)
  if flags > OLD_HOLDS_RETURN + ONLY_KNOWN or available > MAX_STOCK then fail(MALFORMED, 'settlement') end
  if is_superseded(group.ids[1]) then return { SUPERSEDED, '' } end
  local stock = stocks[sku]
  if not stock then
    if flags >= ONLY_KNOWN then return { NO_SUCH_SKU, '\1' } end
    stock = { 0, 0, 0, 0, 0, PROTECTED, 0 }
    become(sku, stock)
  end
  local withdraws = flags % 2 == 0
  if withdraws then stock.withdrawn = stock.withdrawn or 0 end
  local new_flags = stock[FLAGS] % HAS_WITHDRAWN + (stock.withdrawn and HAS_WITHDRAWN or 0)
    + (withdraws and WITHDRAWS or 0)
  if stock[VERSION] > 0 and stock[AVAILABLE] == available and stock[FLAGS] == new_flags
    and stock[SUPPLIED] == available + stock[HELD] + stock[SOLD] then
    return { REPLAYED, '', stock_bytes(stock) }
  end
  set_settled(sku, available, new_flags)
  return { APPLIED, '', stock_bytes(stock) }
end

function apply.end_settlement(group)
  if #group.payload ~= 16 then fail(MALFORMED, 'key') end
  local replay = replay_of(group, group.payload)
  if replay then return replay end
  if is_superseded(group.payload) then return { SUPERSEDED, '' } end
  ctx.gated, ctx.emptied, history.claims, history.settling, history.fenced_at = false, false, {}, NO_ORIGIN, 0
  history.changed, ctx.missing, ctx.fence = true, nil, nil
  next_sequence(1)
  append_event(run_of(EVENT_PARTITION_SETTLED, NO_STATE, NO_DEADLINE, false, '', ''), group.ids[1], 1)
  remember(group.ids[1], MEMO_SETTLEMENT .. group.payload)
  return { APPLIED, '' }
end
