-- Commit and Rollback of all that is held, and the reading of a reservation. What is due was given back
-- before, so a record that is pending here is before its deadline. Works on loaded tables through the
-- ledger; no redis.call.

local byte, concat = string.byte, table.concat
local MEMO, state_of, buyer_and_shape, extension_of =
  records.MEMO, records.state_of, records.buyer_and_shape, records.extension_of
local known, settle = batch.known, ledger.settle

-- By the letter of the state: what the answer is where the reservation is resolved already. The
-- same again is a replay; Rollback of what the deadline gave back is one too.
local COMMIT_OF = { C = 'Y', R = 'B', E = 'E' }
local ROLLBACK_OF = { C = 'C', R = 'Y', E = 'Y' }

-- Whether some units of a committed reservation were given back: then Rollback has been here.
local function was_released(record)
  local _, is_extended = state_of(record)
  if not is_extended then return false end
  local _, shape = buyer_and_shape(record)
  local n = byte(shape, 7)
  local released = extension_of(record, n).released
  for i = 1, n do
    if released[i] > 0 then return true end
  end
  return false
end

local function resolve_group(group, to, code_of)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local id = group.ids[i]
    local record = known[id]
    local state = record and state_of(record)
    if state == 'P' then
      settle(id, to, nil, ctx.now)
      codes[i] = 'K'
    else
      codes[i] = code_of[state] or 'X' -- unknown, or a remembered request
      if codes[i] == 'C' and was_released(record) then codes[i] = 'Y' end
    end
    if codes[i] == 'K' or codes[i] == 'Y' then reply[#reply + 1] = known[id] end
  end
  reply[1] = concat(codes)
  return reply
end

local function commit(group)
  return resolve_group(group, 'C', COMMIT_OF)
end

local function roll_back(group)
  return resolve_group(group, 'R', ROLLBACK_OF)
end

local function read_reservations(group)
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

resolve.COMMIT_OF = COMMIT_OF
resolve.apply = { C = commit, B = roll_back, G = read_reservations }
