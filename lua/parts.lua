-- What is done to a reservation by a request of its own: Commit and Rollback in part, Extend; and the
-- Commit that buys anew after the deadline. Made only when a batch has one of them. Works on loaded
-- tables through the ledger; no redis.call.

local pack, unpack_bytes, sub, byte, char, concat, max =
  struct.pack, struct.unpack, string.sub, string.byte, string.char, table.concat, math.max
local MEMO, AVAILABLE, malformed, state_of, deadline_of, buyer_and_shape, extension_of, implied_extension =
  records.MEMO, records.AVAILABLE, records.malformed, records.state_of, records.deadline_of,
  records.buyer_and_shape, records.extension_of, records.implied_extension
local known, lines_of = batch.known, batch.lines_of
local put, held_amounts, settle = ledger.put, ledger.held_amounts, ledger.settle

local CHANGE_OF = { C = 'C', R = 'B', E = 'E' }

-- Buys anew what an expired reservation had, under an id that follows from its own.
local function buy_anew(id, purchase)
  if known[purchase] then return 'j', known[purchase] end
  local record = known[id]
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  for i = 1, lines.n do
    if not lines.stocks[i] or lines.stocks[i][AVAILABLE] < lines.quantities[i] then
      if ctx.backlog then return 'A' end
      return 'O', char(lines.n) .. reserve.availability(lines) .. record
    end
  end
  if ctx.record_count >= ctx.quota_records then return 'Q' end
  local code, detail = buyers.over_limit(lines, buyer)
  if code == 'I' then
    if ctx.backlog then return 'A' end
    return code, detail
  end
  ledger.buy(purchase, id, buyer, shape)
  ctx.record_count = ctx.record_count + 1
  return 'J', known[purchase]
end

local function commit_late(group)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local id, purchase = group.ids[i], sub(group.extra, 16 * i - 15, 16 * i)
    if #purchase ~= 16 then malformed('purchase') end
    local record = known[id]
    local state = record and state_of(record)
    local code, detail
    if state == 'P' then
      settle(id, 'C', nil, ctx.now)
      code, detail = 'K', known[id]
    elseif state == 'E' then
      code, detail = buy_anew(id, purchase)
    else
      code = resolve.COMMIT_OF[state] or 'X'
      detail = code == 'Y' and record or nil
    end
    codes[i] = code
    if detail then reply[#reply + 1] = detail end
  end
  reply[1] = concat(codes)
  return reply
end

-- What the changes share that are remembered by a request of their own: the reservation must be
-- pending, the identity new. `apply(record)` returns a code, and a detail unless it was applied.
local function change_once(group, apply)
  local id, memo = group.ids[1], group.kind .. group.args
  local seen, record = known[id], known[group.target]
  if seen then
    if byte(seen, 1) ~= MEMO or sub(seen, 8) ~= memo then return { 'D', '' } end
    if not record then return { 'X', '' } end
    return { 'Y', '', record }
  end
  local state = record and state_of(record)
  if state ~= 'P' then return { CHANGE_OF[state] or 'X', '' } end
  if ctx.record_count >= ctx.quota_records then return { 'Q', '' } end
  local code, detail = apply(record)
  if code == 'K' or code == '+' then
    put(id, 'M' .. pack('>I6', ctx.now) .. memo)
    ctx.record_count = ctx.record_count + 1
    detail = known[group.target]
  end
  return { code, '', detail }
end

-- The amounts that these lines name of a reservation's, or the line of which less is held.
local function named_amounts(record, named)
  local _, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  local _, is_extended = state_of(record)
  local extension = is_extended and extension_of(record, lines.n) or implied_extension('P', lines)
  local held, total = held_amounts(lines, extension)
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

local function commit_lines(group)
  local keep = byte(group.args, 17)
  return change_once(group, function(record)
    local amounts, rest, short = named_amounts(record, group.lines)
    if short then return 'Z', short end
    settle(group.target, 'C', amounts, ctx.now)
    if rest == 0 or keep == 1 then return 'K' end
    settle(group.target, 'R', nil, ctx.now)
    return '+'
  end)
end

local function roll_back_lines(group)
  return change_once(group, function(record)
    local amounts, _, short = named_amounts(record, group.lines)
    if short then return 'Z', short end
    settle(group.target, 'R', amounts, ctx.now)
    return 'K'
  end)
end

local function extend(group)
  local ttl = #group.args == 22 and unpack_bytes('>I6', group.args, 17) or 0
  if ttl < 1 or ttl > records.MAX_TTL then malformed('ttl') end
  return change_once(group, function(record)
    local latest = unpack_bytes('>I6', record, 8) + ctx.longest_life
    if ctx.now + ttl > latest then return 'x', pack('>I6', max(0, latest - deadline_of(record))) end
    ledger.extend_deadline(group.target, max(deadline_of(record), ctx.now + ttl))
    return 'K'
  end)
end

parts.apply = { L = commit_late, c = commit_lines, b = roll_back_lines, E = extend }
