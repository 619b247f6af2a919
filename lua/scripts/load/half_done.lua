-- Corrects the state's pending reservations where a script of an older release wrote its events and
-- records, and could not write the deadline index or the state. Runs behind load/stream_end.lua.
-- Reads EVENTS and both generations; changes only tables.

local MOST_ENTRIES = 64 -- entries of the stream that are read; interrupted scripts are rare

local was_pending, ids = {}, {} -- id -> whether the state counts it as pending
local entries = call('XREVRANGE', EVENTS, '+', string.format('(%.0f-0', ctx.half_done), 'COUNT', MOST_ENTRIES)
for e = #entries, 1, -1 do
  local bytes = entries[e][2][2]
  local version = byte(bytes, 1)
  if version > 3 then fail(NEWER, 'event') end
  -- Behind the head: write/batch.lua fixes its length.
  local at = version == 1 and 14 or version == 2 and 66 or 74
  local runs
  runs, at = unpack_bytes('>I2', bytes, at)
  for _ = 1, runs do
    local kind, is_named = sub(bytes, at, at), byte(bytes, at + 8) > 0
    at = at + 9
    for _ = 1, version == 1 and 2 or 3 do at = at + 2 + unpack_bytes('>I2', bytes, at) end
    local n
    n, at = unpack_bytes('>I2', bytes, at)
    if find(EVENTS_OF_RESERVATIONS, kind, 1, true) then
      for i = 0, n - 1 do
        local id = sub(bytes, at + 16 * i, at + 16 * i + 15)
        if was_pending[id] == nil then
          was_pending[id] = kind ~= EVENT_HELD
          ids[#ids + 1] = id
        end
      end
    end
    at = at + 16 * n
    at = at + 2 + 4 * unpack_bytes('>I2', bytes, at)
    for _ = 1, is_named and n or 0 do at = at + 1 + byte(bytes, at) end
  end
end

local current, older = {}, {}
if ids[1] then current, older = load_fields(ctx.current, ids), load_fields(ctx.older, ids) end
for i = 1, #ids do
  local id, record = ids[i], current[i] or older[i]
  local pending = record and is_pending(record)
  local change = (pending and 1 or 0) - (was_pending[id] and 1 or 0)
  ctx.pending = ctx.pending + change
  if older[i] then older_pending = older_pending + change end
  if pending then
    -- The index may contain it already. That is harmless: an entry may name resolved reservations.
    local deadline = deadline_of(record)
    new_deadlines[deadline] = new_deadlines[deadline] or {}
    table.insert(new_deadlines[deadline], id)
    if ctx.next_due == 0 or deadline < ctx.next_due then ctx.next_due = deadline end
  end
end
