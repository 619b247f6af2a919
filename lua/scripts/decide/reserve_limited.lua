-- Reserve where a limit per buyer counts, or where the new reservation replaces another one. Works
-- on loaded tables through the ledger; no redis.call.

-- Whether the available units cover the lines, including those that the same step gives back.
local function fits(lines, given_back)
  for i = 1, lines.n do
    local available = lines.stocks[i][AVAILABLE]
    if given_back then available = available + (given_back[lines.skus[i]] or 0) end
    if available < lines.quantities[i] then return false end
  end
  return true
end

-- The units that the replaced hold gives back, by SKU, and those of them that count for this buyer;
-- or the code that refuses to replace it. Nothing if it holds nothing any more.
local function replaced_units(id, buyer)
  local record = records_by_id[id]
  if not record or byte(record, 1) == MEMO then return nil, nil, (ctx.missing or NO_SUCH_RESERVATION) end
  local state = state_of(record)
  if state == STATE_COMMITTED then return nil, nil, RESERVATION_COMMITTED end
  if state ~= STATE_PENDING then return nil, nil end
  local its_buyer, line_set = buyer_and_line_set(record)
  local lines = lines_of(line_set)
  local extension = extension_of(record, lines)
  local amounts = held_amounts(lines, extension)
  local units, counted = {}, {}
  local mask = extension.counted ~= 0
    and still_counted(lines, extension.counted, unpack_bytes('>I6', record, 8)) or 0
  local withdraws = ctx.settled_at and is_old(record)
  for i = 1, lines.n do
    local stock = stocks[lines.skus[i]]
    -- Units of a hold that is older than a settlement do not return to the stock.
    units[lines.skus[i]] = withdraws and stock and stock[FLAGS] >= WITHDRAWS and 0 or amounts[i]
    if mask ~= 0 and its_buyer == buyer and counts_line(mask, i) then
      counted[lines.skus[i]] = amounts[i]
    end
  end
  return units, counted
end

-- Reserves that count for a limit per buyer or replace another reservation, one after the other.
function reserve_by_rule(group, head, line_set, rest, deadline, earliest)
  local ids, lines, target = group.ids, group.lines, group.target
  local buyers = buyers_of(group)
  local origin = target or NO_ORIGIN
  local codes, details, taken = {}, {}, {}
  local available
  for i = 1, #ids do
    local id, buyer = ids[i], buyers and buyers[i] or NO_BUYER
    local record = records_by_id[id]
    local code, detail
    if record then
      if is_same(record, buyer, line_set, group) then
        code, detail = REPLAYED, record
      else
        code = ID_REUSED
      end
    elseif rest then
      code = rest
    else
      local units, counted, unfit
      if target then units, counted, unfit = replaced_units(target, buyer) end
      if unfit then
        code = unfit
      elseif not fits(lines, units) then
        -- Within a group stock only falls. Once it is short, all that follow are short too, with
        -- the same numbers.
        rest = ctx.may_return and ctx.may_return(lines) and AGAIN or SHORT
        available = availability(lines, units)
        code = rest
      elseif ctx.record_count + (lines.limited and stored_counts or 0) >= ctx.quota_records then
        code = OVER_QUOTA
      else
        if lines.limited then code, detail = over_limit(lines, buyer, counted) end
        if not code then
          if units then resolve_one(target, STATE_ROLLED_BACK) end
          hold_extended(id, head, buyer, line_set, origin, earliest)
          ctx.record_count = ctx.record_count + 1
          taken[#taken + 1] = id
          code = units and APPLIED_IN_TWO_STEPS or APPLIED
        elseif code == OVER_BUYER_LIMIT and ctx.may_return
          and ctx.may_return_to(stocks[sub(detail, 2, 1 + byte(detail))]) then
          code, detail = AGAIN, nil
        end
      end
    end
    codes[i] = code
    if detail then details[#details + 1] = detail end
  end
  if taken[1] then watch_deadline(deadline, concat(taken)) end
  return concat(codes), rest, concat(details), available
end
