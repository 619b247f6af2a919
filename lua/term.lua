-- Begins a new term with the first change of this call. Runs behind terms.lua where the replication id of the store is
-- another one than that under which the last term began. Works on loaded tables; no redis.call.

local MAX_TERMS = 64 -- terms that are kept

local function is_used(name)
  for _, list in ipairs({ ctx.settled, ctx.claims }) do
    for i = 1, #list do
      if list[i][2] == name then return true end
    end
  end
  for i = 1, #ctx.terms do
    if ctx.terms[i][1] == name then return true end
  end
  return false
end

-- A process that lost changes and goes on has the same replication id before and after.
local name = ctx.replid
if is_used(name) then name = redis.sha1hex(name .. ctx.now_bytes .. pack('>I6', ctx.first_sequence)) end
ctx.terms[#ctx.terms + 1] = { name, ctx.first_sequence + 1 }
if #ctx.terms > MAX_TERMS then table.remove(ctx.terms, 1) end
ctx.term, ctx.term_first, ctx.run, ctx.history_changed = name, ctx.first_sequence + 1, ctx.replid, true
reply[7] = name
