-- Begins a new term with the first change of this call. Runs behind load/terms.lua where the
-- replication id of the store differs from that under which the last term began. Works on loaded
-- tables; reads the number of BUYERS.

local MAX_TERMS = 64 -- terms that are kept

local function is_used(name)
  for i = 1, #history.claims do
    if history.claims[i][2] == name then return true end
  end
  for i = 1, #history.terms do
    if history.terms[i][1] == name then return true end
  end
  return false
end

-- A process that lost changes and continues has the same replication id before and after.
local name = replid
if is_used(name) then name = redis.sha1hex(name .. ctx.now_bytes .. pack('>I6', ctx.first_sequence)) end
history.terms[#history.terms + 1] = { name, base_sequence + 1 }
if #history.terms > MAX_TERMS then table.remove(history.terms, 1) end
-- The other process may have lost the position of its purge.
if base_sequence > 0 and ctx.format >= FIRST_WITH_LIMIT_SINCE and call('HLEN', BUYERS) > 0 then
  ctx.purging, ctx.purge, ctx.purge_at = true, '', ctx.now
end
state_term, term_first, state_run, history.changed = name, base_sequence + 1, replid, true
