-- The part of the ledger that resolves reservations. Runs where the batch has more than Reserves that replace none, or where a hold is
-- due. Works on the tables that were loaded; no redis.call.

-- held -> sold (STATE_COMMITTED), or held -> available (STATE_ROLLED_BACK by a call, STATE_EXPIRED by the deadline): of all that is held by the
-- reservations from the first of these ids on, as long as they are plain and have the same lines, which is
-- booked as one. Returns the index of the last; adds to `codes` and `details`, if given, what is answered. The
-- first is one of them. `packed` is all ids in one string, where there is that.
function settle_stretch(ids, packed, first, to, codes, details)
  local like = alike[known[ids[first]]]
  local lines, is_named = like.lines, like.is_named
  local names, n_records, last = is_named and {}, #new_records, #ids
  local n, before, settled, buyer = 0, nil, nil, nil
  for i = first, #ids do
    local id = ids[i]
    local record = known[id]
    if record ~= before then
      local its = record and alike[record]
      -- Not any more: another one, or an id that has stood here before.
      if not its or its.lines ~= lines or its.is_named ~= is_named or its.is_old ~= like.is_old then
        last = i - 1
        break
      end
      settled, buyer, before = its[to], its.buyer, record
      if not settled then
        -- Resolved at the deadline, not at the moment that somebody noticed.
        settled = to .. (to == STATE_EXPIRED and sub(record, 2, 7) or ctx.now_bytes) .. record
        its[to] = settled
      end
      if codes then
        if n > 0 then codes[#codes + 1] = rep(AS_BEFORE, n) end
        codes[#codes + 1], details[#details + 1], n = APPLIED, settled, 0
      end
    else
      n = n + 1
    end
    known[id] = settled
    new_records[n_records + 1], new_records[n_records + 2] = id, settled
    n_records = n_records + 2
    if names then names[#names + 1] = buyer end
  end
  if codes and n > 0 then codes[#codes + 1] = rep(AS_BEFORE, n) end
  n = last - first + 1
  if n < #ids or not packed then packed = concat(ids, '', first, last) end
  ctx.pending = ctx.pending - n
  local withdrawn
  if like.is_old and to ~= STATE_COMMITTED then
    withdrawn = release_old(lines, lines.quantities, n)
  else
    move(lines, lines.quantities, n, HELD, to == STATE_COMMITTED and SOLD or AVAILABLE)
  end
  enter(run_of(to, to, NO_DEADLINE, is_named, like.shape, '', withdrawn), packed, n, names and concat(names))
  return last
end

-- The same of one reservation, plain or not: of these amounts, or of all that is held.
function settle(id, to, amounts, change)
  local record = known[id]
  if alike[record] == nil then touch(record) end
  if amounts or not alike[record] then return settle_extended(id, to, amounts, change) end
  settle_stretch({ id }, id, 1, to)
end
