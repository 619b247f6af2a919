-- Completes the reply with its head, which contract.lua describes. No redis.call.

local verdicts, clock = ctx.verdicts or '', ''
if clock_offset ~= 0 or day_correction ~= 0 or doubt ~= 0 then
  clock = pack(SHOWN_CLOCK_FORMAT, clock_offset, day_correction, doubt)
end
-- A purge continues with the next call, and without traffic with a sweep.
local next_due = ctx.next_due
if ctx.purging and ctx.purge_at and (next_due == 0 or ctx.purge_at < next_due) then
  next_due = ctx.purge_at
end
reply[1] = pack('>I6I6I4I6I6I6c40BB', ctx.now, reply_sequence, expired, next_due, config_revision,
  ctx.sequence, state_term, #clock, #verdicts) .. clock .. verdicts .. (ctx.fence or '')
return reply
