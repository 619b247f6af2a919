-- The clock of the partition, P: deadlines and retention use it. P is Redis's TIME plus an offset.
-- The offset absorbs the steps of TIME, so durations stay right. Reads TIME, and META while there
-- is a doubt. Sets the instants of ctx.
--
-- A caller that has had an answer has P at that answer, and the time since then by its monotonic
-- clock. So it expects an instant. If TIME plus the offset differs from that instant by more than
-- CLOCK_BOUND, TIME has made a step. The offset absorbs the step before anything is decided. P never
-- runs backwards behind its mark, which is P at the last write.
--
-- A caller that has had no answer cannot distinguish elapsed time from a step of TIME. The
-- difference is kept as a doubt. Meanwhile P continues from the mark, so no hold ends early. New
-- holds count from the later instant, so none of those ends early either. An operation that the two
-- instants decide differently waits. The next caller that expects an instant ends the doubt. If
-- none has come for DOUBT_LASTS, the time has passed.
--
-- The time of day is P plus a correction. It decides sale windows and the age of identities, and
-- responses contain it. It follows TIME only when a difference has lasted for DAY_LASTS, because a
-- step that is undone sooner must not open a sale.

local CLOCK_BOUND = 1000 -- ms: a smaller difference is no step
local DOUBT_LASTS = 5000 -- ms: every server calls every partition more often (server/src/control/sweeper/)
local DAY_LASTS = 300000 -- ms

local time = call('TIME')
time = time[1] * 1000 + floor(time[2] / 1000)
local now = time
-- Usually there is no offset, and TIME is the expected instant.
if clock_offset ~= 0 or is_stepped or not expected or time < clock_mark or time - expected > CLOCK_BOUND
  or expected - time > CLOCK_BOUND then
  local raw, before = time + clock_offset, clock_offset + doubt
  now = raw
  if expected then
    if doubt > 0 then
      -- New holds have counted from the later of the two instants.
      now = raw + doubt
      local lag = expected - now
      if lag > CLOCK_BOUND or lag < -CLOCK_BOUND then ctx.doubt_lag = lag end
      doubt = 0
    end
    if time - expected <= CLOCK_BOUND and expected - time <= CLOCK_BOUND then
      now = time -- a step that is undone leaves no offset
    elseif now - expected > CLOCK_BOUND or expected - now > CLOCK_BOUND then
      now = expected
    end
  elseif doubt > 0 then
    if raw >= doubt_since + DOUBT_LASTS then now, doubt = raw + doubt, 0 end
  elseif (raw - clock_mark > CLOCK_BOUND or clock_mark - raw > CLOCK_BOUND)
    and ctx.format >= FIRST_WITH_STATE_3 then
    -- Where TIME is behind the mark the later instant is not known. 1 ms represents it.
    now, doubt, doubt_since, ctx.doubted = clock_mark, max(1, raw - clock_mark), clock_mark, ''
  end
  -- After a small step back P pauses, without an offset.
  local pauses = now == raw and now < clock_mark and clock_mark - now <= CLOCK_BOUND
  now = max(now, clock_mark)
  if now ~= raw and not pauses then clock_offset, clock_changed = now - time, true end
  if doubt_since > 0 then
    if doubt > 0 then
      ctx.doubted = ctx.doubted or call('HMGET', META, 'doubted')[1] or ''
      ctx.is_doubtful = ctx.next_due ~= 0 and ctx.next_due <= now + doubt
    else
      doubt_since, clock_changed, ctx.doubt_has_ended = 0, true, true
    end
  end

  if ctx.format >= FIRST_WITH_STATE_3 then
    local ahead = clock_offset + doubt + day_correction -- of TIME
    if ahead <= CLOCK_BOUND and ahead >= -CLOCK_BOUND then
      if day_since > 0 then day_since, clock_changed = 0, true end
    elseif day_since == 0 or clock_offset + doubt - before > CLOCK_BOUND
      or before - clock_offset - doubt > CLOCK_BOUND then
      day_since, clock_changed = now, true
    elseif now >= day_since + DAY_LASTS then
      day_correction, day_since, clock_changed = -clock_offset - doubt, 0, true
    end
  else
    day_correction = -clock_offset
  end
end
ctx.now, ctx.now_bytes = now, pack('>I6', now)
