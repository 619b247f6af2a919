-- Reserve: units of all lines, or none. Works on loaded tables through the ledger; no redis.call.

-- Reserves that no limit per buyer counts and that replace nothing. The first new ones take the
-- available units, so exactly one of them gets the last unit. `rest` refuses all, if given.
local function reserve_plain(group, head, line_set, rest, deadline, earliest)
  local ids, lines, buyers = group.ids, group.lines, buyers_of(group)
  local n, room = #ids, 0
  if not rest then
    room, rest = MAX_OPERATIONS, ctx.may_return and ctx.may_return(lines) and AGAIN or SHORT
    for i = 1, lines.n do room = min(room, floor(lines.stocks[i][AVAILABLE] / lines.quantities[i])) end
    if ctx.quota_records - ctx.record_count < room then
      room, rest = max(0, ctx.quota_records - ctx.record_count), OVER_QUOTA
    end
  end

  local record = STATE_PENDING .. head .. NO_BUYER .. line_set
  local taken, names, n_taken, n_records = {}, buyers and {}, 0, #new_records
  local codes, details -- where not all are taken
  for i = 1, n do
    local id = ids[i]
    local before = records_by_id[id]
    if not before and n_taken < room then
      n_taken = n_taken + 1
      taken[n_taken] = id
      if names then
        names[n_taken] = buyers[i]
        record = STATE_PENDING .. head .. buyers[i] .. line_set
      end
      records_by_id[id] = record
      new_records[n_records + 1], new_records[n_records + 2] = id, record
      n_records = n_records + 2
      if codes then codes[i] = APPLIED end
    else
      if not codes then
        codes, details = {}, {}
        for k = 1, i - 1 do codes[k] = APPLIED end
      end
      if not before then
        codes[i] = rest
      elseif is_same(before, buyers and buyers[i] or NO_BUYER, line_set, group) then
        codes[i] = REPLAYED
        details[#details + 1] = before
      else
        codes[i] = ID_REUSED
      end
    end
  end
  if n_taken > 0 then
    local packed = n_taken == n and group.packed or concat(taken)
    transfer(lines, lines.quantities, n_taken, AVAILABLE, HELD, earliest)
    append_event(run_of(EVENT_HELD, STATE_PENDING, sub(head, 1, 6), names, line_set, ''), packed, n_taken,
      names and concat(names))
    watch_deadline(deadline, packed)
    ctx.pending = ctx.pending + n_taken
    ctx.record_count = ctx.record_count + n_taken
  end
  if not codes then return rep(APPLIED, n), nil, '' end
  return concat(codes), rest, concat(details)
end

local function reserve_group(group)
  local lines = group.lines
  local refusal, shared, ttl = refusal_of(lines, group)
  local ttl_bytes, line_set = pack('>I6', ttl), group.payload
  -- While the clock is in doubt, from the later instant (load/clock.lua). decide/doubt.lua may
  -- correct that.
  local deadline = ctx.now + doubt + ttl
  local earliest = doubt > 0 and 0 or deadline
  local head = pack('>I6', deadline) .. (doubt > 0 and pack('>I6', ctx.now + doubt) or ctx.now_bytes)
  -- The record keeps the ttl in force; in the older formats the requested one.
  local kept = ctx.format > 2 and ttl_bytes or sub(group.extra, 1, 6)
  if sub(line_set, 1, 6) ~= kept and not refusal then
    line_set = kept .. sub(line_set, 7)
    -- Operations of this batch that name the reservation find the same lines, with their stock.
    if not line_sets[line_set] then line_sets[line_set] = lines end
  end
  local reserve = (group.target or lines.limited) and reserve_by_rule or reserve_plain
  local codes, rest, details, available = reserve(group, head, line_set, refusal, deadline, earliest)
  if rest == SHORT then shared = available or availability(lines) end
  return { codes, ttl_bytes .. (shared or ''), details }
end

apply.reserve, apply.reserve_replacing = reserve_group, reserve_group
