-- Reserve: units of all lines, or none. Works on loaded tables through the ledger; no redis.call. Runs
-- for a late commit too, which says in the same words what there is.

-- What there is of each line, with what is given back in the same step.
function availability(lines, given_back)
  local numbers = {}
  for i = 1, lines.n do
    local available = lines.stocks[i] and lines.stocks[i][AVAILABLE] or 0
    numbers[i] = pack('>I6', available + (given_back and given_back[lines.skus[i]] or 0))
  end
  return concat(numbers)
end

-- Whether this record is what the same request made.
function is_same(record, buyer, shape, origin)
  local letter = byte(record, 1)
  if letter == MEMO then return false end
  if letter < FIRST_EXTENDED then
    return origin == NO_ORIGIN and sub(record, letter == PENDING and TAIL or RESOLVED_TAIL) == buyer .. shape
  end
  local its_buyer, its_shape = buyer_and_shape(record)
  return its_buyer == buyer and its_shape == shape and extension_of(record, lines_of(shape)).origin == origin
end

-- What refuses the whole group, and what it shares; nil if nothing does. And the ttl in force: a SKU's own
-- limit shortens one that was not asked for.
local function refusal_of(lines, asked_ttl, ttl)
  local code, shared
  for i = 1, lines.n do
    local stock = lines.stocks[i]
    local rules = stock and stock.rules
    if not stock then
      code, shared = 'N', char(i)
    elseif stock[FLAGS] % 2 == 0 then
      code, shared = 'U', char(i)
    elseif rules then
      if ctx.now < rules[OPENS] or rules[CLOSES] > 0 and ctx.now >= rules[CLOSES] then
        code, shared = 'W', char(i) .. pack('>I6I6', rules[OPENS], rules[CLOSES])
      elseif rules[MOST_UNITS] > 0 and lines.quantities[i] > rules[MOST_UNITS] then
        code, shared = 'M', char(i) .. pack('>I6', rules[MOST_UNITS])
      elseif rules[LONGEST_TTL] > 0 then
        if asked_ttl > rules[LONGEST_TTL] then
          code, shared = 'T', char(i) .. pack('>I6', rules[LONGEST_TTL])
        end
        ttl = min(ttl, rules[LONGEST_TTL])
      end
    end
    if code then break end
  end
  return code, shared, ttl
end

-- Reservations that no rule counts, and that replace none: the first that are new take what there is, and the
-- last unit goes to exactly one of them. `rest` is what refuses all, if something does.
local function reserve_plain(group, head, rest)
  local shape, ids, lines, buyers = group.args, group.ids, group.lines, buyers_of(group)
  local n, room = #ids, 0
  if not rest then
    room, rest = MAX_OPERATIONS, ctx.backlog and 'A' or 'S'
    for i = 1, lines.n do room = min(room, floor(lines.stocks[i][AVAILABLE] / lines.quantities[i])) end
    if ctx.quota_records - ctx.record_count < room then room, rest = max(0, ctx.quota_records - ctx.record_count), 'Q' end
  end
  -- To almost everyone at a sale that is over.
  if room == 0 and next(known) == nil then return rep(rest, n), rest, '' end

  local record = 'P' .. head .. NO_BUYER .. shape
  local taken, names, n_taken, n_records = {}, buyers and {}, 0, #new_records
  local codes, details -- where not all are taken
  for i = 1, n do
    local id = ids[i]
    local before = known[id]
    if not before and n_taken < room then
      n_taken = n_taken + 1
      taken[n_taken] = id
      if names then
        names[n_taken] = buyers[i]
        record = 'P' .. head .. buyers[i] .. shape
      end
      known[id] = record
      new_records[n_records + 1], new_records[n_records + 2] = id, record
      n_records = n_records + 2
      if codes then codes[i] = 'K' end
    else
      if not codes then
        codes, details = {}, {}
        for k = 1, i - 1 do codes[k] = 'K' end
      end
      if not before then
        codes[i] = rest
      elseif is_same(before, buyers and buyers[i] or NO_BUYER, shape, NO_ORIGIN) then
        codes[i] = 'Y'
        details[#details + 1] = before
      else
        codes[i] = 'D'
      end
    end
  end
  if n_taken > 0 then
    local packed = n_taken == n and group.packed or concat(taken)
    move(lines, lines.quantities, n_taken, AVAILABLE, HELD)
    enter(run_of('H', 'P', sub(head, 1, 6), names, shape, ''), packed, n_taken, names and concat(names))
    watch_deadline(unpack_bytes('>I6', head), packed)
    ctx.pending = ctx.pending + n_taken
    ctx.record_count = ctx.record_count + n_taken
  end
  if not codes then return rep('K', n), nil, '' end
  return concat(codes), rest, concat(details)
end

local function reserve_group(group)
  local lines, args, extra = group.lines, group.args, group.extra
  if #extra < 6 then malformed('extra') end
  local refusal, shared, ttl = refusal_of(lines, (unpack_bytes('>I6', args)), (unpack_bytes('>I6', extra)))
  if ttl < 1 or ttl > MAX_TTL then malformed('ttl') end
  local head = pack('>I6', ctx.now + ttl) .. ctx.now_bytes
  local reserve = (group.target or lines.limited) and reserve_by_rule or reserve_plain
  local codes, rest, details, available = reserve(group, head, refusal)
  if rest == 'S' then shared = available or availability(lines) end
  return { codes, pack('>I6', ttl) .. (shared or ''), details }
end

apply.R, apply.r = reserve_group, reserve_group
