-- Finds the holds that are due: those that the batch names, and then a bounded number from the
-- index. decide/apply.lua gives them back before anything else is decided. Reads DEADLINES and both
-- generations.

-- The number of due holds after which one call takes no further entry: for a call that may need
-- them, and for one that does not.
local EXPIRE_BATCH = 128
local EXPIRE_BESIDE = 16
local EXPIRE_CHUNK = 16 -- entries of the deadline index read at a time

local now = ctx.now
-- No deadline precedes the next one of the index.
if ctx.next_due ~= 0 and ctx.next_due <= now then
  -- Holds whose deadlines decide/doubt.lua corrects in this call. By the uncorrected ones they
  -- could end early.
  local doubted
  if ctx.doubt_lag then
    local ids = call('HMGET', META, 'doubted')[1] or ''
    doubted = {}
    for at = 1, #ids - 15, 16 do doubted[sub(ids, at, at + 15)] = true end
  end
  for id, record in pairs(records_by_id) do
    if is_pending(record) and deadline_of(record) <= now and not (doubted and doubted[id]) then
      due[#due + 1] = id
    end
  end
  -- The order of pairs() varies; the order of events must not.
  if due[2] then table.sort(due) end

  -- A sweep gives holds back, and so does a batch that names a SKU which may have a due hold.
  local is_needed = not groups[1] or clock_changed or ctx.is_doubtful or kinds.begin_settlement
    or kinds.settle_sku or kinds.end_settlement or kinds.close_partition
  if not is_needed then
    for _, stock in pairs(stocks) do
      if stock and stock[HELD] > 0 and stock[EARLIEST] <= now then is_needed = true end
    end
  end

  -- Takes entries from the index up to the limit. If the call needs them, the last entry may exceed
  -- the limit.
  local most = is_needed and EXPIRE_BATCH or EXPIRE_BESIDE
  local ids, read, entries = {}, 0, nil
  repeat
    entries = call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', #consumed_entries, EXPIRE_CHUNK)
    for e = 1, #entries do
      local entry = entries[e]
      ctx.backlog = (is_needed and read or read + #entry / 16) >= most
      if ctx.backlog then break end
      if #entry % 16 ~= 0 then fail(NEWER, 'entry of the deadline index') end
      consumed_entries[#consumed_entries + 1] = entry
      for i = 1, #entry - 15, 16 do
        local id = sub(entry, i, i + 15)
        read = read + 1
        if not records_by_id[id] then ids[#ids + 1] = id end
      end
    end
  until ctx.backlog or #entries < EXPIRE_CHUNK
  if ids[1] then load_records(ids) end
  for i = 1, #ids do
    local record = records_by_id[ids[i]]
    -- Not pending: resolved. Not due: its deadline was moved, and another entry covers it.
    if record and is_pending(record) and deadline_of(record) <= now and not (doubted and doubted[ids[i]]) then
      due[#due + 1] = ids[i]
    end
  end
  local first = call('ZRANGEBYSCORE', DEADLINES, '-inf', '+inf', 'WITHSCORES', 'LIMIT', #consumed_entries, 1)
  ctx.next_due = tonumber(first[2] or 0)
end

for i = 1, #due do load_lines_of_record(records_by_id[due[i]]) end
