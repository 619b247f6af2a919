-- Finds an event stream that is ahead of the state: an earlier script wrote its event and could not write the rest.
-- Runs before a settlement. Reads EVENTS; changes nothing but ctx.

local last = call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
local sequence = last and tonumber(string.match(last[1], '^%d+')) or 0
if ctx.format > 1 and sequence > ctx.sequence then
  -- The next change goes behind what the stream has, in a term of another name.
  ctx.sequence, ctx.first_sequence, state_run = sequence, sequence, ''
  if not ctx.gated then ctx.gated, history.fenced_at, ctx.missing, history.changed = true, ctx.now, 'g', true end
end
