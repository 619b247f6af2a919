-- The terms of the partition's history, the settled losses, and the fence, as tables. Loads them
-- once a call. This file precedes each file that needs it. Reads META.

local TERMS_VERSION, FENCE_VERSION = 1, 1
local MAX_SETTLED = 64 -- epochs of which lost changes were settled

if not history then
  local fields = call('HMGET', META, 'terms', 'fence')
  local terms, settled, claims = {}, {}, {}
  history = { terms = terms, settled = settled, claims = claims, fenced_at = 0, settling = NO_ORIGIN }
  if fields[1] then
    if byte(fields[1], 1) > TERMS_VERSION then fail(NEWER, 'terms') end
    local bytes, at = fields[1], 3
    for i = 1, byte(bytes, 2) do
      local name, first
      name, first, at = unpack_bytes('>c40I6', bytes, at)
      terms[i] = { name, first }
    end
    for i = 1, byte(bytes, at) do
      settled[i] = { unpack_bytes('>I6I6', bytes, at + 1 + 12 * (i - 1)) }
    end
  end
  if fields[2] then
    if byte(fields[2], 1) > FENCE_VERSION then fail(NEWER, 'fence') end
    local _, number, at
    _, history.fenced_at, history.settling, number, at = unpack_bytes('>BI6c16B', fields[2])
    for i = 1, number do
      claims[i] = { unpack_bytes('>I6c40I6I6', fields[2], at + (CLAIM_LENGTH + 6) * (i - 1)) }
    end
  end
end

-- Marks a lost change, and all of its epoch before it, as settled. The sequence continues after it,
-- so no later change is mistaken for a lost one.
function settle_up_to(epoch, sequence)
  if epoch == state_epoch and sequence > ctx.sequence then
    ctx.sequence, ctx.first_sequence = sequence, sequence
  end
  for i = 1, #history.settled do
    local settled = history.settled[i]
    if settled[1] == epoch then
      settled[2] = max(settled[2], sequence)
      return
    end
  end
  history.settled[#history.settled + 1] = { epoch, sequence }
  if #history.settled > MAX_SETTLED then table.remove(history.settled, 1) end
end

-- The fields of META that store them, with their values. A fence that was opened has no claims.
function history_fields()
  local terms, settled, claims = history.terms, history.settled, history.claims
  local parts = { char(TERMS_VERSION, #terms) }
  for i = 1, #terms do parts[#parts + 1] = pack('>c40I6', terms[i][1], terms[i][2]) end
  parts[#parts + 1] = char(#settled)
  for i = 1, #settled do parts[#parts + 1] = pack('>I6I6', settled[i][1], settled[i][2]) end
  local fence = { pack('>BI6c16B', FENCE_VERSION, history.fenced_at, history.settling, #claims) }
  for i = 1, #claims do
    fence[i + 1] = pack('>I6c40I6I6', claims[i][1], claims[i][2], claims[i][3], claims[i][4])
  end
  return { 'terms', concat(parts), 'fence', concat(fence) }
end
