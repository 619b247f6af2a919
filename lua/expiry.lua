-- Due holds are given back before anything else is decided: those that the batch names, and then a
-- bounded number from the index. Reads DEADLINES and HOLDS; resolves through the ledger.

local HOLDS, DEADLINES = KEYS[3], KEYS[4]
local call, sub = redis.call, string.sub
local is_pending, deadline_of = records.is_pending, records.deadline_of
local known, load_fields, want_lines_of = batch.known, batch.load_fields, batch.want_lines_of
local settle = ledger.settle
local EXPIRE_BATCH = 512 -- due holds given back by one call, before the last group of ids
local EXPIRE_CHUNK = 16 -- entries of the deadline index read at a time

local due = {}               -- ids of pending reservations whose deadline has passed
local spent = {}             -- entries of the index that are done with

local function is_due(record)
  return is_pending(record) and deadline_of(record) <= ctx.now
end

local function find_due_in_batch()
  for id, record in pairs(known) do
    if is_due(record) then due[#due + 1] = id end
  end
  -- The order of pairs() is not the same everywhere; the order of events shall be.
  table.sort(due)
end

-- Takes entries from the index until EXPIRE_BATCH ids are reached; returns the ids not loaded yet.
local function read_index()
  local ids, read = {}, 0
  while true do
    local entries = call('ZRANGEBYSCORE', DEADLINES, '-inf', ctx.now, 'LIMIT', #spent, EXPIRE_CHUNK)
    for e = 1, #entries do
      if read >= EXPIRE_BATCH then
        ctx.backlog = true
        return ids
      end
      local entry = entries[e]
      spent[#spent + 1] = entry
      for i = 1, #entry - 15, 16 do
        local id = sub(entry, i, i + 15)
        read = read + 1
        if not known[id] then ids[#ids + 1] = id end
      end
    end
    if #entries < EXPIRE_CHUNK then return ids end
  end
end

local function find_due_in_index()
  if ctx.next_due == 0 or ctx.next_due > ctx.now then return end
  local ids = read_index()
  if #ids > 0 then
    local held = load_fields(HOLDS, ids)
    for i = 1, #ids do
      local record = held[i]
      -- Absent: resolved. Not due: its deadline was moved and another entry covers it.
      if record and is_due(record) then
        known[ids[i]] = record
        due[#due + 1] = ids[i]
      end
    end
  end
  local first = call('ZRANGEBYSCORE', DEADLINES, '-inf', '+inf', 'WITHSCORES', 'LIMIT', #spent, 1)
  ctx.next_due = tonumber(first[2] or 0)
end

local function find_due()
  find_due_in_batch()
  find_due_in_index()
  for i = 1, #due do want_lines_of(known[due[i]]) end
end

-- Resolved at the deadline, not at the moment that somebody noticed.
local function expire_due()
  for i = 1, #due do
    local record = known[due[i]]
    if is_pending(record) then -- not twice, should two entries name it
      settle(due[i], 'E', nil, deadline_of(record))
      ctx.expired = ctx.expired + 1
    end
  end
end

expiry = {
  spent = spent, find_due = find_due, expire_due = expire_due,
}
