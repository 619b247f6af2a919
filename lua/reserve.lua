-- Reserve: units of all lines, or none. Works on loaded tables through the ledger; no redis.call.

local new_deadlines = {}   -- score, packed ids, ... for the index

-- What refuses the whole group, and what it shares; nil if nothing does.
local function refusal_of(lines)
  for i = 1, lines.n do
    local stock = lines.stocks[i]
    if not stock then return 'N', char(i) end
    if stock[FLAGS] % 2 == 0 then return 'U', char(i) end
  end
end

local function fits(lines)
  for i = 1, lines.n do
    if lines.stocks[i][AVAILABLE] < lines.quantities[i] then return false end
  end
  return true
end

local function availability(lines)
  local numbers = {}
  for i = 1, lines.n do numbers[i] = pack('>I6', lines.stocks[i][AVAILABLE]) end
  return concat(numbers)
end

-- One after the other, so that the last unit goes to exactly one of the group. Within a group stock
-- only falls: once it is short, all that follow are, with the same numbers.
local function reserve(group)
  local shape, ids, extra = group.args, group.ids, group.extra
  local lines = lines_of(shape)
  local ttl = #extra >= 6 and unpack_bytes('>I6', extra) or 0
  if ttl < 1 or ttl > MAX_TTL then malformed('ttl') end
  local deadline = now + ttl
  local deadline_bytes = pack('>I6', deadline)
  local head = 'P' .. deadline_bytes .. pack('>I6', now)

  local refusal, shared = refusal_of(lines)
  local codes, reply, taken = {}, { '', shared or '' }, {}
  local buyer, at = '\0', #extra > 6 and 7 or nil
  for i = 1, #ids do
    local id = ids[i]
    if at then
      buyer = sub(extra, at, at + (byte(extra, at) or 0))
      if buyer == '' then malformed('buyer') end
      at = at + #buyer
    end
    local record = known[id]
    if record then
      local same = byte(record, 1) ~= MEMO and sub(record, buyer_at(record)) == buyer .. shape
      codes[i] = same and 'Y' or 'D'
      if same then reply[#reply + 1] = record end
    elseif refusal then
      codes[i] = refusal
    elseif not fits(lines) then
      refusal = backlog and 'A' or 'S'
      if not backlog then reply[2] = availability(lines) end
      codes[i] = refusal
    elseif records >= quota_records then
      codes[i] = 'Q'
    else
      hold(id, head .. buyer .. shape, buyer, shape, deadline_bytes)
      records = records + 1
      taken[#taken + 1] = id
      codes[i] = 'K'
    end
  end
  if #taken > 0 then
    new_deadlines[#new_deadlines + 1] = deadline
    new_deadlines[#new_deadlines + 1] = concat(taken)
    if next_due == 0 or deadline < next_due then next_due = deadline end
  end
  reply[1] = concat(codes)
  return reply
end
