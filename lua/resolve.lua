-- Commit, Rollback and the reading of a reservation. What is due was given back before, so a record
-- that is pending here is before its deadline. Works on loaded tables; no redis.call.

-- By the letter of the state: what the answer is where the reservation is resolved already. The
-- same again is a replay; Rollback of what the deadline gave back is one too.
local COMMIT_OF = { C = 'Y', R = 'B', E = 'E' }
local ROLLBACK_OF = { C = 'C', R = 'Y', E = 'Y' }

local function resolve_group(group, state, code_of)
  local codes, reply = {}, { '', '' }
  for i = 1, #group.ids do
    local id = group.ids[i]
    local record = known[id]
    local from = record and sub(record, 1, 1)
    if from == 'P' then
      resolve(id, state, now)
      codes[i] = 'K'
    else
      codes[i] = code_of[from] or 'X' -- unknown, or a remembered request
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
