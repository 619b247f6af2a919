-- Commit, Rollback, in whole and in part, Extend, and the reading of a reservation. What is due was
-- given back before, so a record that is pending here is before its deadline. Works on loaded tables
-- through the ledger; no redis.call.

local pack, unpack_bytes, sub, byte, char, concat, max =
  struct.pack, struct.unpack, string.sub, string.byte, string.char, table.concat, math.max
local MEMO, AVAILABLE, malformed, state_of, deadline_of, buyer_and_shape, extension_of, implied_extension =
  records.MEMO, records.AVAILABLE, records.malformed, records.state_of, records.deadline_of,
  records.buyer_and_shape, records.extension_of, records.implied_extension
local known, lines_of = batch.known, batch.lines_of
local over_limit = buyers.over_limit
local put, buy, held_amounts, settle, extend_deadline =
  ledger.put, ledger.buy, ledger.held_amounts, ledger.settle, ledger.extend_deadline
local availability = reserve.availability
local MAX_TTL = 31536000000 -- ms: a year, far above what any namespace allows

-- By the letter of the state: what the answer is where the reservation is resolved already. The
-- same again is a replay; Rollback of what the deadline gave back is one too.
local COMMIT_OF = { C = 'Y', R = 'B', E = 'E' }
local ROLLBACK_OF = { C = 'C', R = 'Y', E = 'Y' }
local CHANGE_OF = { C = 'C', R = 'B', E = 'E' }

-- Whether some units of a committed reservation were given back: then Rollback has been here.
local function was_released(record)
  local _, is_extended = state_of(record)
  if not is_extended then return false end
  local _, shape = buyer_and_shape(record)
  local n = byte(shape, 7)
  local released = extension_of(record, n).released
  for i = 1, n do
    if released[i] > 0 then return true end
  end
  return false
end

local function resolve_group(group, to, code_of)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local id = group.ids[i]
    local record = known[id]
    local state = record and state_of(record)
    if state == 'P' then
      settle(id, to, nil, ctx.now)
      codes[i] = 'K'
    else
      codes[i] = code_of[state] or 'X' -- unknown, or a remembered request
      if codes[i] == 'C' and was_released(record) then codes[i] = 'Y' end
    end
    if codes[i] == 'K' or codes[i] == 'Y' then reply[#reply + 1] = known[id] end
  end
  reply[1] = concat(codes)
  return reply
end

local function commit(group)
  return resolve_group(group, 'C', COMMIT_OF)
end

local function roll_back(group)
  return resolve_group(group, 'R', ROLLBACK_OF)
end

-- Buys anew what an expired reservation had, under an id that follows from its own.
local function buy_anew(id, purchase)
  if known[purchase] then return 'j', known[purchase] end
  local record = known[id]
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  for i = 1, lines.n do
    if not lines.stocks[i] or lines.stocks[i][AVAILABLE] < lines.quantities[i] then
      if ctx.backlog then return 'A' end
      return 'O', char(lines.n) .. availability(lines) .. record
    end
  end
  if ctx.record_count >= ctx.quota_records then return 'Q' end
  local code, detail = over_limit(lines, buyer)
  if code == 'I' then
    if ctx.backlog then return 'A' end
    return code, detail
  end
  buy(purchase, id, buyer, shape)
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
      code = COMMIT_OF[state] or 'X'
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
  if ttl < 1 or ttl > MAX_TTL then malformed('ttl') end
  return change_once(group, function(record)
    local latest = unpack_bytes('>I6', record, 8) + ctx.longest_life
    if ctx.now + ttl > latest then return 'x', pack('>I6', max(0, latest - deadline_of(record))) end
    extend_deadline(group.target, max(deadline_of(record), ctx.now + ttl))
    return 'K'
  end)
end

local function read_reservations(group)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local record = known[group.ids[i]]
    codes[i] = 'X'
    if record and byte(record, 1) ~= MEMO then
      codes[i] = 'V'
      reply[#reply + 1] = record
    end
  end
  reply[1] = concat(codes)
  return reply
end

resolve.commit = commit
resolve.roll_back = roll_back
resolve.commit_late = commit_late
resolve.commit_lines = commit_lines
resolve.roll_back_lines = roll_back_lines
resolve.extend = extend
resolve.read_reservations = read_reservations
