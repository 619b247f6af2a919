-- Commit, Rollback and the read of a reservation. Due holds were given back before, so a pending
-- record is before its deadline. Works on loaded tables through the ledger; no redis.call.

-- The answer for a resolved record. The same operation again is a replay. So is a Rollback of an
-- expired reservation, and of one that was sold only in part, because a Rollback released the rest.
local function answer_of(kind, record)
  local state, is_extended = state_of(record)
  if state == STATE_MEMO then return (ctx.missing or NO_SUCH_RESERVATION) end
  if kind == 'commit' then
    return state == STATE_COMMITTED and REPLAYED or state == STATE_ROLLED_BACK and RESERVATION_ROLLED_BACK
      or RESERVATION_EXPIRED
  end
  if state ~= STATE_COMMITTED then return REPLAYED end
  local _, line_set = buyer_and_line_set(record)
  local released = is_extended and extension_of(record, lines_from(line_set)).released or {}
  for i = 1, #released do
    if released[i] > 0 then return REPLAYED end
  end
  return RESERVATION_COMMITTED
end

local function resolve_group(group)
  local ids, kind, codes, details, i = group.ids, group.kind, {}, {}, 1
  local to = kind == 'commit' and STATE_COMMITTED or STATE_ROLLED_BACK
  while i <= #ids do
    local id = ids[i]
    local record = records_by_id[id]
    -- Made by this batch.
    if record and plain_info[record] == nil and is_pending(record) then load_lines_of_record(record) end
    if record and plain_info[record] then
      i = resolve_run(ids, group.packed, i, to, codes, details)
    else
      local code = (ctx.missing or NO_SUCH_RESERVATION) -- unknown, or a remembered request
      if record and is_pending(record) then
        resolve_extended(id, to)
        code = APPLIED
      elseif record then
        code = answer_of(kind, record)
      end
      codes[#codes + 1] = code
      if code == APPLIED or code == REPLAYED then details[#details + 1] = records_by_id[id] end
    end
    i = i + 1
  end
  return { concat(codes), '', concat(details) }
end

apply.commit, apply.rollback = resolve_group, resolve_group

if kinds.get_reservation then
  function apply.get_reservation(group)
    local codes, details = {}, {}
    for i = 1, #group.ids do
      local record = records_by_id[group.ids[i]]
      codes[i] = (ctx.missing or NO_SUCH_RESERVATION)
      if record and byte(record, 1) ~= MEMO then
        codes[i] = VALUE
        details[#details + 1] = record
      end
    end
    return { concat(codes), '', concat(details) }
  end
end
