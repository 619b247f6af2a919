-- Corrects the deadlines of holds that were created while the clock was in doubt. Runs before the
-- batch is applied, if a caller that has read the clock before expects another instant than the one
-- from which these holds count. Reads META and both generations; works on tables through the ledger.

local doubted = call('HMGET', META, 'doubted')[1] or ''
local ids = {}
for at = 1, #doubted - 15, 16 do
  local id = sub(doubted, at, at + 15)
  if not records_by_id[id] then ids[#ids + 1] = id end
end
-- Not through load_records: their stock is not loaded, and no unit moves.
if ids[1] then
  local current, older = load_fields(ctx.current, ids), load_fields(ctx.older, ids)
  for i = 1, #ids do
    records_by_id[ids[i]] = current[i] or older[i]
    if not current[i] and older[i] then in_older[ids[i]] = older[i] end
  end
end
for at = 1, #doubted - 15, 16 do
  local id = sub(doubted, at, at + 15)
  local record = records_by_id[id]
  if record and is_pending(record) then
    local deadline, created = unpack_bytes('>I6I6', record, 2)
    deadline = deadline + ctx.doubt_lag
    -- The next call gives it back.
    if deadline <= ctx.now then ctx.backlog = true end
    store_record(id, sub(record, 1, 1) .. pack('>I6I6', deadline, created + ctx.doubt_lag) .. sub(record, 14))
    extend_deadline(id, deadline)
  end
end
