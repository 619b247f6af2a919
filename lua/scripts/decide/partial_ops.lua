-- Commit and Rollback of some lines, Extend, and the Commit that repurchases after the deadline.
-- Works on loaded tables through the ledger; no redis.call.

-- The answer to a change of a reservation in this state, which is not pending.
local function code_of(state)
  return state == STATE_COMMITTED and RESERVATION_COMMITTED
    or state == STATE_ROLLED_BACK and RESERVATION_ROLLED_BACK
    or state == STATE_EXPIRED and RESERVATION_EXPIRED or (ctx.missing or NO_SUCH_RESERVATION)
end

-- The units that an expired reservation held at its deadline: a line set, and its lines with their
-- stock.
local function lapsed_lines(record)
  local _, line_set = buyer_and_line_set(record)
  local lines = lines_of(line_set)
  local amounts = held_amounts(lines, extension_of(record, lines))
  local held_line_set = line_set_of(lines, amounts)
  local held = lines_from(held_line_set)
  for i = 1, held.n do held.stocks[i] = stocks[held.skus[i]] end
  held.limited = lines.limited
  return held_line_set, held
end

-- Repurchases an expired reservation, under an id that is derived from its own.
local function try_repurchase(id, purchase)
  if records_by_id[purchase] then return REPURCHASED_BEFORE, records_by_id[purchase] end
  if ctx.gated then return FENCED end
  local record = records_by_id[id]
  local buyer = buyer_and_line_set(record)
  local line_set, lines = lapsed_lines(record)
  for i = 1, lines.n do
    if not lines.stocks[i] or lines.stocks[i][AVAILABLE] < lines.quantities[i] then
      if ctx.may_return and ctx.may_return(lines) then return AGAIN end
      return REPURCHASE_SHORT, line_set .. availability(lines)
    end
  end
  if ctx.record_count >= ctx.quota_records and ctx.format < FIRST_WITH_CHANGES then return OVER_QUOTA end
  if lines.limited then
    local code, detail = over_limit(lines, buyer)
    if code == OVER_BUYER_LIMIT and ctx.may_return
      and ctx.may_return_to(stocks[sub(detail, 2, 1 + byte(detail))]) then
      return AGAIN
    end
    if code then return code, detail end
  end
  repurchase(purchase, id, buyer, line_set, lines)
  ctx.record_count = ctx.record_count + 1
  return REPURCHASED, records_by_id[purchase]
end

function apply.commit_late(group)
  local codes, details = {}, {}
  for i = 1, #group.ids do
    local id, purchase = group.ids[i], sub(group.extra, 16 * i - 15, 16 * i)
    if #purchase ~= 16 then fail(MALFORMED, 'purchase') end
    local record = records_by_id[id]
    local state = record and state_of(record)
    local code, detail
    if state == STATE_PENDING then
      resolve_one(id, STATE_COMMITTED)
      code, detail = APPLIED, records_by_id[id]
    elseif state == STATE_EXPIRED then
      code, detail = try_repurchase(id, purchase)
    elseif state == STATE_COMMITTED then
      code, detail = REPLAYED, record
    else
      code = code_of(state)
    end
    codes[i] = code
    if detail then details[#details + 1] = detail end
  end
  return { concat(codes), '', concat(details) }
end

-- Whether two remembered requests are the same; the order of their lines does not count.
local function is_same_change(seen, memo)
  if seen == memo then return true end
  local kind = sub(memo, 1, 1)
  local at = kind == MEMO_COMMIT_LINES and 19 or kind == MEMO_ROLLBACK_LINES and 18
  return at and sub(seen, 1, at - 1) == sub(memo, 1, at - 1)
    and digest_of('', sub(seen, at), '') == digest_of('', sub(memo, at), '')
end

-- The digest by which a reservation remembers a change: half a digest of its identity, and half a
-- digest of the change with its lines in the order of their bytes.
local function digest_of_change(group, kind)
  local payload = group.payload
  local at = kind == MEMO_COMMIT_LINES and 18 or kind == MEMO_ROLLBACK_LINES and 17
  local what = at and digest_of(kind .. sub(payload, 1, at - 1), sub(payload, at), '')
    or sub(redis.sha1hex(kind .. payload), 1, 16)
  return sub(redis.sha1hex(group.ids[1]), 1, 8) .. sub(what, 1, 8)
end

-- Whether a reservation remembers this change (true), another one of this identity (false), or
-- neither (nil).
local function has_changed(record, change)
  local changed = changes_length(record)
  for at = #record - changed + 2, #record - 1, CHANGE_LENGTH do
    if sub(record, at, at + 7) == sub(change, 1, 8) then return sub(record, at, at + 15) == change end
  end
end

-- Applies a change that has an identity. The reservation must be pending, and the identity new.
-- `change(record, digest)` returns a code, and a detail unless it was applied. Since format 5 the
-- identity of a change is its reservation together with its request, and the reservation remembers
-- it. In an older format a separate record remembers it, which is still found.
local function change_once(group, kind, change)
  local id, memo = group.ids[1], kind .. group.payload
  local seen, record, digest = records_by_id[id], records_by_id[group.target], nil
  if ctx.format >= FIRST_WITH_CHANGES then
    if seen and (byte(seen, 1) ~= MEMO or not find(MEMOS_OF_CHANGES, sub(seen, 8, 8), 1, true)) then
      seen = nil
    end
    if record and byte(record, 1) ~= MEMO then
      digest = digest_of_change(group, kind)
      local is_again = has_changed(record, digest)
      if is_again ~= nil then return is_again and { REPLAYED, '', record } or { ID_REUSED, '' } end
    end
  end
  if seen then
    if byte(seen, 1) ~= MEMO or not is_same_change(sub(seen, 8), memo) then return { ID_REUSED, '' } end
    if not record then return { (ctx.missing or NO_SUCH_RESERVATION), '' } end
    return { REPLAYED, '', record }
  end
  if not record or not is_pending(record) then return { code_of(record and state_of(record)), '' } end
  if digest then
    if changes_length(record) > CHANGE_LENGTH * MAX_CHANGES then return { TOO_MANY_CHANGES, '' } end
  elseif ctx.record_count >= ctx.quota_records then
    return { OVER_QUOTA, '' }
  end
  local code, detail = change(record, digest)
  if code == APPLIED or code == APPLIED_IN_TWO_STEPS then
    if not digest then
      store_record(id, STATE_MEMO .. ctx.now_bytes .. memo)
      ctx.record_count = ctx.record_count + 1
    end
    detail = records_by_id[group.target]
  end
  return { code, '', detail }
end

-- The amounts of a reservation that these lines name, and how many units are held beside them; or
-- the line of which fewer units are held.
local function named_amounts(record, named)
  local _, line_set = buyer_and_line_set(record)
  local lines = lines_of(line_set)
  local held, total = held_amounts(lines, extension_of(record, lines))
  local amounts, named_total = {}, 0
  for i = 1, lines.n do amounts[i] = 0 end
  for i = 1, named.n do
    local sku = named.skus[i]
    local at = lines.index[sku]
    local most = at and held[at] or 0
    if named.quantities[i] > most then return nil, nil, char(#sku) .. sku .. pack('>I6', most) end
    amounts[at] = named.quantities[i]
    named_total = named_total + amounts[at]
  end
  return amounts, total - named_total
end

function apply.commit_lines(group)
  local keep = byte(group.payload, 17)
  return change_once(group, MEMO_COMMIT_LINES, function(record, change)
    local amounts, rest, short = named_amounts(record, group.lines)
    if short then return LINE_NOT_HELD, short end
    resolve_one(group.target, STATE_COMMITTED, amounts, change)
    if rest == 0 or keep == 1 then return APPLIED end
    resolve_one(group.target, STATE_ROLLED_BACK)
    return APPLIED_IN_TWO_STEPS
  end)
end

function apply.rollback_lines(group)
  return change_once(group, MEMO_ROLLBACK_LINES, function(record, change)
    local amounts, _, short = named_amounts(record, group.lines)
    if short then return LINE_NOT_HELD, short end
    resolve_one(group.target, STATE_ROLLED_BACK, amounts, change)
    return APPLIED
  end)
end

function apply.extend(group)
  local ttl = #group.payload == 22 and unpack_bytes('>I6', group.payload, 17) or 0
  if ttl < 1 or ttl > TTL_BOUND then fail(MALFORMED, 'ttl') end
  -- A moved deadline must be neither too early nor too late, so it waits until the clock is
  -- certain.
  if doubt > 0 then return { AGAIN, '' } end
  return change_once(group, MEMO_EXTEND, function(record, change)
    local latest = unpack_bytes('>I6', record, 8) + ctx.longest_life
    if ctx.now + ttl > latest then
      return BEYOND_LONGEST_LIFE, pack('>I6', max(0, latest - deadline_of(record)))
    end
    extend_deadline(group.target, max(deadline_of(record), ctx.now + ttl), change)
    return APPLIED
  end)
end
