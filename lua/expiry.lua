-- Finds the holds that are due: those that the batch names, and then a bounded number from the index;
-- apply.lua gives them back before anything else is decided. Reads DEADLINES and both generations.

local EXPIRE_BATCH = 128 -- due holds given back by one call, before the last entry: others wait meanwhile
local EXPIRE_CHUNK = 16 -- entries of the deadline index read at a time

local now = ctx.now
-- No deadline lies before the next that the index has.
if ctx.next_due ~= 0 and ctx.next_due <= now then
  -- Holds whose deadlines doubt.lua corrects in this call: by the uncorrected ones they could end early.
  local doubted
  if ctx.doubt_lag then
    local ids = call('HMGET', META, 'doubted')[1] or ''
    doubted = {}
    for at = 1, #ids - 15, 16 do doubted[sub(ids, at, at + 15)] = true end
  end
  for id, record in pairs(known) do
    if is_pending(record) and deadline_of(record) <= now and not (doubted and doubted[id]) then due[#due + 1] = id end
  end
  -- The order of pairs() is not the same everywhere; the order of events shall be.
  if due[2] then table.sort(due) end

  -- Takes entries from the index until EXPIRE_BATCH ids are reached.
  local ids, read, entries = {}, 0, nil
  repeat
    entries = call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', #spent, EXPIRE_CHUNK)
    for e = 1, #entries do
      ctx.backlog = read >= EXPIRE_BATCH
      if ctx.backlog then break end
      local entry = entries[e]
      if #entry % 16 ~= 0 then fail('SENTINELNEWER entry of the deadline index') end
      spent[#spent + 1] = entry
      for i = 1, #entry - 15, 16 do
        local id = sub(entry, i, i + 15)
        read = read + 1
        if not known[id] then ids[#ids + 1] = id end
      end
    end
  until ctx.backlog or #entries < EXPIRE_CHUNK
  if ids[1] then look_up(ids) end
  for i = 1, #ids do
    local record = known[ids[i]]
    -- Not pending: resolved. Not due: its deadline was moved and another entry covers it.
    if record and is_pending(record) and deadline_of(record) <= now and not (doubted and doubted[ids[i]]) then
      due[#due + 1] = ids[i]
    end
  end
  local first = call('ZRANGEBYSCORE', DEADLINES, '-inf', '+inf', 'WITHSCORES', 'LIMIT', #spent, 1)
  ctx.next_due = tonumber(first[2] or 0)
end

for i = 1, #due do touch(known[due[i]]) end
