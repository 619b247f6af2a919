-- The part of the ledger that resolves reservations. Runs where the batch has more than Reserves
-- that replace none, or where a hold is due. Works on the loaded tables; no redis.call.

-- Resolves reservations in one change of the counters: the longest run of `ids` that begins at
-- `first` and has only plain reservations with the same lines. Moves held -> sold (STATE_COMMITTED),
-- or held -> available (STATE_ROLLED_BACK by a call, STATE_EXPIRED by the deadline). Returns the
-- index of the last id resolved. Appends the answers to `codes` and `details`, if given. `packed` is
-- all ids in one string, or nil. Precondition: ids[first] is plain.
function resolve_run(ids, packed, first, to, codes, details)
  local like = plain_info[records_by_id[ids[first]]]
  local lines, is_named = like.lines, like.is_named
  local names, n_records, last = is_named and {}, #new_records, #ids
  local n, before, resolved_record, buyer = 0, nil, nil, nil
  for i = first, #ids do
    local id = ids[i]
    local record = records_by_id[id]
    if record ~= before then
      local its = record and plain_info[record]
      -- The run ends: another kind of reservation, or an id that was in it before.
      if not its or its.lines ~= lines or its.is_named ~= is_named or its.is_old ~= like.is_old then
        last = i - 1
        break
      end
      resolved_record, buyer, before = its[to], its.buyer, record
      if not resolved_record then
        -- Resolved at the deadline, not at the moment of this call.
        resolved_record = to .. (to == STATE_EXPIRED and sub(record, 2, 7) or ctx.now_bytes) .. record
        its[to] = resolved_record
      end
      if codes then
        if n > 0 then codes[#codes + 1] = rep(AS_BEFORE, n) end
        codes[#codes + 1], details[#details + 1], n = APPLIED, resolved_record, 0
      end
    else
      n = n + 1
    end
    records_by_id[id] = resolved_record
    new_records[n_records + 1], new_records[n_records + 2] = id, resolved_record
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
    transfer(lines, lines.quantities, n, HELD, to == STATE_COMMITTED and SOLD or AVAILABLE)
  end
  append_event(run_of(to, to, NO_DEADLINE, is_named, like.line_set, '', withdrawn), packed, n,
    names and concat(names))
  return last
end

-- Resolves one reservation, plain or not: these amounts, or all that is held.
function resolve_one(id, to, amounts, change)
  local record = records_by_id[id]
  if plain_info[record] == nil then load_lines_of_record(record) end
  if amounts or not plain_info[record] then return resolve_extended(id, to, amounts, change) end
  resolve_run({ id }, id, 1, to)
end
