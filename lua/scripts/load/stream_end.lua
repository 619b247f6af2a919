-- Sets the sequence from which a settlement continues. Runs behind load/terms.lua before anything
-- is applied, because the numbers of a call are counted from one sequence. Reads EVENTS; changes
-- only tables.

for g = 1, #groups do
  local group = groups[g]
  if group.kind == 'begin_settlement' and ctx.format > 1 then
    -- An earlier script wrote its event and could not write the rest. The next change follows the
    -- end of the stream, in a term of another name.
    local last = call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
    local sequence = last and tonumber(string.match(last[1], '^%d+')) or 0
    if sequence > ctx.sequence then
      ctx.half_done = ctx.sequence
      ctx.sequence, ctx.first_sequence, base_sequence, state_run = sequence, sequence, sequence, ''
      if not ctx.gated then
        ctx.gated, history.fenced_at, ctx.missing, history.changed = true, ctx.now, FENCED, true
      end
    end
  elseif group.kind == 'end_settlement' and ctx.gated and history.settling == sub(group.payload, 1, 16) then
    for i = 1, #history.claims do settle_up_to(history.claims[i][1], history.claims[i][3]) end
  end
end
