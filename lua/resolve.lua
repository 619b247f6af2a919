-- Commit, Rollback and the reading of a reservation. What is due was given back before, so a record that
-- is pending here is before its deadline. Works on loaded tables through the ledger; no redis.call.

-- By the state of a resolved record: what the answer is. The same again is a replay; Rollback of what the
-- deadline gave back is one too, and Rollback of what was bought only in part, for then it has been here.
local function answer_of(kind, record)
  local state, is_extended = state_of(record)
  if state == 'M' then return (ctx.missing or 'X') end
  if kind == 'C' then return state == 'C' and 'Y' or state == 'R' and 'B' or 'E' end
  if state ~= 'C' then return 'Y' end
  local _, shape = buyer_and_shape(record)
  local released = is_extended and extension_of(record, lines_from(shape)).released or {}
  for i = 1, #released do
    if released[i] > 0 then return 'Y' end
  end
  return 'C'
end

local function resolve_group(group)
  local ids, kind, codes, details, i = group.ids, group.kind, {}, {}, 1
  local to = kind == 'C' and 'C' or 'R'
  while i <= #ids do
    local id = ids[i]
    local record = known[id]
    -- Made by this batch.
    if record and alike[record] == nil and is_pending(record) then touch(record) end
    if record and alike[record] then
      i = settle_stretch(ids, group.packed, i, to, codes, details)
    else
      local code = (ctx.missing or 'X') -- unknown, or a remembered request
      if record and is_pending(record) then
        settle_extended(id, to)
        code = 'K'
      elseif record then
        code = answer_of(kind, record)
      end
      codes[#codes + 1] = code
      if code == 'K' or code == 'Y' then details[#details + 1] = known[id] end
    end
    i = i + 1
  end
  return { concat(codes), '', concat(details) }
end

apply.C, apply.B = resolve_group, resolve_group

if kinds.G then
  function apply.G(group)
    local codes, details = {}, {}
    for i = 1, #group.ids do
      local record = known[group.ids[i]]
      codes[i] = (ctx.missing or 'X')
      if record and byte(record, 1) ~= MEMO then
        codes[i] = 'V'
        details[#details + 1] = record
      end
    end
    return { concat(codes), '', concat(details) }
  end
end
