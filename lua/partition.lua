-- The partition: loads its state and its config, and reads the one clock and the generations.
-- Reads META and TIME. Sets what ctx has of the partition.

local CLOCK_FREEZE = 1000 -- ms that the clock may stand still after a step back

local meta = call('HMGET', META, 'config', 'state')
if not meta[1] or not meta[2] then error(error_reply('SENTINELCLOSED no such partition')) end
local _, records, skus, partitions
_, ctx.config_revision, ctx.retention, _, _, ctx.longest_life, records, skus, ctx.events_kept, partitions =
  unpack_bytes(CONFIG_FORMAT, meta[1])
-- The namespace's quotas, divided among its partitions.
ctx.quota_records, ctx.quota_skus = math.ceil(records / partitions), math.ceil(skus / partitions)
ctx.epoch, ctx.sequence, ctx.mark, ctx.offset, ctx.generation_start, ctx.generation, ctx.next_due =
  unpack_bytes(STATE_FORMAT, meta[2])
ctx.first_sequence = ctx.sequence
if ctx.epoch ~= tonumber(ARGV[1]) then error(error_reply('SENTINELCLOSED another epoch')) end

-- One clock decides: Redis's. It never runs backwards, because no instant before the mark is ever
-- used; and after a step back it stands still for CLOCK_FREEZE at most, because a longer step is
-- taken into an offset, which goes when no hold's deadline depends on it any more.
local time = call('TIME')
time = time[1] * 1000 + floor(time[2] / 1000)
if ctx.offset ~= 0 and time >= ctx.mark and call('HLEN', HOLDS) <= NO_HOLDS then ctx.offset = 0 end
local now = time + ctx.offset
if now < ctx.mark then
  if ctx.mark - now > CLOCK_FREEZE then ctx.offset = ctx.mark - time end
  now = ctx.mark
end
ctx.now, ctx.now_bytes = now, pack('>I6', now)

-- Two generations of one retention each: a record is found for at least that long after its last
-- change, and goes with its whole generation, in O(1).
local age = now - ctx.generation_start
if age >= ctx.retention then
  ctx.generation, ctx.generation_start = 1 - ctx.generation, now
  ctx.past_is_over, ctx.other_is_over = true, age >= 2 * ctx.retention
end
if ctx.generation == 1 then
  ctx.past, ctx.past_other = PAST_B, PAST_A
else
  ctx.past, ctx.past_other = PAST_A, PAST_B
end
