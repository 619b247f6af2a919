-- Reserve: units of all lines, or none. Works on loaded tables through the ledger; no redis.call.

local pack, unpack_bytes, sub, byte, char, concat, min =
  struct.pack, struct.unpack, string.sub, string.byte, string.char, table.concat, math.min
local PENDING, MEMO, NO_ORIGIN, AVAILABLE, FLAGS, MOST_UNITS, LONGEST_TTL, OPENS, CLOSES, malformed,
      state_of, buyer_and_shape, extension_of, implied_extension =
  records.PENDING, records.MEMO, records.NO_ORIGIN, records.AVAILABLE, records.FLAGS, records.MOST_UNITS,
  records.LONGEST_TTL, records.OPENS, records.CLOSES, records.malformed, records.state_of,
  records.buyer_and_shape, records.extension_of, records.implied_extension
local known, lines_of = batch.known, batch.lines_of
local counts_line, buyers_of, over_limit = buyers.counts_line, buyers.buyers_of, buyers.over_limit
local hold, held_amounts, settle, watch_deadline =
  ledger.hold, ledger.held_amounts, ledger.settle, ledger.watch_deadline

-- What refuses the whole group, and what it shares; nil if nothing does.
local function refusal_of(lines, asked_ttl)
  for i = 1, lines.n do
    local stock = lines.stocks[i]
    if not stock then return 'N', char(i) end
    if stock[FLAGS] % 2 == 0 then return 'U', char(i) end
    local rules = stock.rules
    if rules then
      if ctx.now < rules[OPENS] or rules[CLOSES] > 0 and ctx.now >= rules[CLOSES] then
        return 'W', char(i) .. pack('>I6I6', rules[OPENS], rules[CLOSES])
      end
      if rules[MOST_UNITS] > 0 and lines.quantities[i] > rules[MOST_UNITS] then
        return 'M', char(i) .. pack('>I6', rules[MOST_UNITS])
      end
      if rules[LONGEST_TTL] > 0 and asked_ttl > rules[LONGEST_TTL] then
        return 'T', char(i) .. pack('>I6', rules[LONGEST_TTL])
      end
    end
  end
end

-- The ttl in force: a SKU's own limit shortens one that was not asked for.
local function ttl_of(lines, ttl)
  for i = 1, lines.n do
    local rules = lines.stocks[i] and lines.stocks[i].rules
    if rules and rules[LONGEST_TTL] > 0 then ttl = min(ttl, rules[LONGEST_TTL]) end
  end
  return ttl
end

-- Whether the stock covers the lines, with what is given back in the same step.
local function fits(lines, given_back)
  for i = 1, lines.n do
    local available = lines.stocks[i][AVAILABLE]
    if given_back then available = available + (given_back[lines.skus[i]] or 0) end
    if available < lines.quantities[i] then return false end
  end
  return true
end

-- What there is of each line, with what is given back in the same step.
local function availability(lines, given_back)
  local numbers = {}
  for i = 1, lines.n do
    local available = lines.stocks[i] and lines.stocks[i][AVAILABLE] or 0
    numbers[i] = pack('>I6', available + (given_back and given_back[lines.skus[i]] or 0))
  end
  return concat(numbers)
end

-- Whether this record is what the same request made.
local function is_same(record, buyer, shape, origin)
  local letter = byte(record, 1)
  if letter == MEMO then return false end
  if letter < 97 then -- plain
    return origin == NO_ORIGIN and sub(record, letter == PENDING and 14 or 20) == buyer .. shape
  end
  local its_buyer, its_shape = buyer_and_shape(record)
  return its_buyer == buyer and its_shape == shape
    and extension_of(record, byte(shape, 7)).origin == origin
end

-- What the hold that is to be replaced gives back: units by SKU, those that count for this buyer,
-- or why it can't be replaced. Nothing if it holds nothing any more.
local function replaced_units(id, buyer)
  local record = known[id]
  if not record or byte(record, 1) == MEMO then return nil, nil, 'X' end
  local state, is_extended = state_of(record)
  if state == 'C' then return nil, nil, 'C' end
  if state ~= 'P' then return nil, nil end
  local its_buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  local extension = is_extended and extension_of(record, lines.n) or implied_extension('P', lines)
  local amounts = held_amounts(lines, extension)
  local units, counted = {}, {}
  for i = 1, lines.n do
    units[lines.skus[i]] = amounts[i]
    if its_buyer == buyer and counts_line(extension.counted, i) then counted[lines.skus[i]] = amounts[i] end
  end
  return units, counted
end

-- One after the other, so that the last unit goes to exactly one of the group. Within a group stock
-- only falls: once it is short, all that follow are, with the same numbers.
local function reserve_group(group)
  local shape, ids, lines = group.args, group.ids, group.lines
  local buyers = buyers_of(group)
  local asked = unpack_bytes('>I6', shape)
  local ttl = ttl_of(lines, (unpack_bytes('>I6', group.extra)))
  if ttl < 1 or ttl > records.MAX_TTL then malformed('ttl') end
  local deadline = ctx.now + ttl
  local head = pack('>I6I6', deadline, ctx.now)
  local origin = group.target or NO_ORIGIN

  local refusal, shared = refusal_of(lines, asked)
  local codes, reply, taken = {}, { '', '' }, {}
  for i = 1, #ids do
    local id, buyer = ids[i], buyers and buyers[i] or '\0'
    local record = known[id]
    local code, detail
    if record then
      if is_same(record, buyer, shape, origin) then code, detail = 'Y', record else code = 'D' end
    elseif refusal then
      code = refusal
    else
      local units, counted, unfit
      if group.target then units, counted, unfit = replaced_units(group.target, buyer) end
      if unfit then
        code = unfit
      elseif not fits(lines, units) then
        refusal = ctx.backlog and 'A' or 'S'
        if not ctx.backlog then shared = availability(lines, units) end
        code = refusal
      elseif ctx.record_count >= ctx.quota_records then
        code = 'Q'
      else
        code, detail = over_limit(lines, buyer, counted)
        if not code then
          if units then settle(group.target, 'R', nil, ctx.now) end
          hold(id, head, buyer, shape, origin)
          ctx.record_count = ctx.record_count + 1
          taken[#taken + 1] = id
          code = units and '+' or 'K'
        elseif ctx.backlog and code == 'I' then
          code, detail = 'A', nil
        end
      end
    end
    codes[i] = code
    if detail then reply[#reply + 1] = detail end
  end
  if #taken > 0 then watch_deadline(deadline, concat(taken)) end
  reply[1], reply[2] = concat(codes), pack('>I6', ttl) .. (shared or '')
  return reply
end

reserve.availability = availability
reserve.apply = { R = reserve_group, r = reserve_group }
