-- Commit, Rollback and the reading of a reservation. What is due was given back before, so a record that
-- is pending here is before its deadline. Works on loaded tables through the ledger; no redis.call.

-- Whether some units of a committed reservation were given back: then Rollback has been here.
local function was_released(record)
  if byte(record, 1) < FIRST_EXTENDED then return false end
  local _, shape = buyer_and_shape(record)
  local lines = lines_from(shape)
  local released = extension_of(record, lines).released
  for i = 1, lines.n do
    if released[i] > 0 then return true end
  end
  return false
end

-- By the state of a resolved record: what the answer is. The same again is a replay; Rollback of what
-- the deadline gave back is one too.
local function commit_code(state)
  return state == 'C' and 'Y' or state == 'R' and 'B' or state == 'E' and 'E' or 'X'
end

local function roll_back_code(state, record)
  if state == 'C' then return was_released(record) and 'Y' or 'C' end
  return (state == 'R' or state == 'E') and 'Y' or 'X'
end

local function resolve_group(group, to, code_of)
  local codes, reply, n = {}, { '', '' }, 2
  for i = 1, #group.ids do
    local id = group.ids[i]
    local record = known[id]
    local code = 'X' -- unknown, or a remembered request
    if record then
      if is_pending(record) then
        settle(id, to, nil, ctx.now)
        code = 'K'
      else
        code = code_of(state_of(record), record)
      end
    end
    codes[i] = code
    if code == 'K' or code == 'Y' then
      n = n + 1
      reply[n] = known[id]
    end
  end
  reply[1] = concat(codes)
  return reply
end

function apply.C(group)
  return resolve_group(group, 'C', commit_code)
end

function apply.B(group)
  return resolve_group(group, 'R', roll_back_code)
end

function apply.G(group)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local record = known[group.ids[i]]
    codes[i] = 'X'
    if record and byte(record, 1) ~= MEMO then
      codes[i] = 'V'
      reply[#reply + 1] = record
    end
  end
  reply[1] = concat(codes)
  return reply
end
