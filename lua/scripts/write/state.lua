-- Saves the state of the partition, and its history if that changed. No other file writes either of
-- them. formats.lua has the formats.

local bytes
if ctx.format == 1 then
  bytes = pack(STATE_FORMAT_1, state_epoch, ctx.sequence, ctx.now, clock_offset, generation, ctx.next_due,
    ctx.pending, older_pending, older_written)
else
  -- No hold is older than the settlement any more.
  if ctx.settled_at and ctx.pending == 0 and not ctx.gated then ctx.settled_at = nil end
  local flags = (ctx.gated and GATED or 0) + (ctx.emptied and EMPTIED or 0)
    + (ctx.unreported and UNREPORTED or 0)
  local is_other_run = state_run ~= state_term
  local clock = ''
  if ctx.format > 2 and (day_correction ~= 0 or day_since ~= 0 or doubt_since ~= 0) then
    clock = pack(CLOCK_FORMAT, day_correction, day_since, doubt, doubt_since)
    flags = flags + STEPPED
  end
  if ctx.purging then flags = flags + PURGING end
  if is_other_run then flags = flags + OTHER_RUN end
  if ctx.format == 2 then
    bytes = pack(STATE_FORMAT_2, STATE_VERSION_2, state_epoch, state_term, ctx.sequence, ctx.now,
      clock_offset, generation, ctx.next_due, ctx.pending, older_pending, older_written, term_first, flags,
      ctx.settled_at or 0)
  else
    bytes = pack(STATE_FORMAT, STATE_VERSION, state_epoch, state_term, ctx.sequence, ctx.now, clock_offset,
      generation, ctx.next_due, ctx.pending, older_pending, older_written, term_first, flags,
      ctx.settled_at or 0, admin_records, older_admin_records) .. clock
  end
  if is_other_run then bytes = bytes .. state_run end
end
local doubted = ctx.doubt_has_ended and '' or ctx.doubted
if doubted then call('HSET', META, 'doubted', doubted) end
if ctx.purge then call('HSET', META, 'purge', ctx.purge) end
if history and history.changed then
  call('HSET', META, 'state', bytes, unpack(history_fields()))
else
  call('HSET', META, 'state', bytes)
end
