-- The partition: loads its state and its config, and reads the one clock and the generations.
-- Reads META, TIME and the size of both generations. Sets what ctx has of the partition.

local CLOCK_FREEZE = 1000 -- ms that the clock may stand still after a step back

local meta = call('HMGET', META, 'config', 'state')
if not meta[1] or not meta[2] then error(error_reply('SENTINELCLOSED no such partition')) end
local _, records, skus, partitions
_, ctx.config_revision, ctx.retention, _, _, ctx.longest_life, records, skus, ctx.events_kept, partitions =
  unpack_bytes(CONFIG_FORMAT, meta[1])
-- The namespace's quotas, divided among its partitions.
ctx.quota_records, ctx.quota_skus = math.ceil(records / partitions), math.ceil(skus / partitions)
if #meta[2] ~= STATE_LENGTH then corrupt('state') end
ctx.epoch, ctx.sequence, ctx.mark, ctx.offset, ctx.generation, ctx.next_due, ctx.pending,
  ctx.older_pending, ctx.older_written = unpack_bytes(STATE_FORMAT, meta[2])
ctx.first_sequence = ctx.sequence
if ctx.epoch ~= tonumber(ARGV[1]) then error(error_reply('SENTINELCLOSED another epoch')) end

-- One clock decides: Redis's. It never runs backwards, because no instant before the mark is ever
-- used; and after a step back it stands still for CLOCK_FREEZE at most, because a longer step is
-- taken into an offset, which goes when no hold's deadline depends on it any more.
local time = call('TIME')
time = time[1] * 1000 + floor(time[2] / 1000)
if ctx.offset ~= 0 and time >= ctx.mark and ctx.pending == 0 then ctx.offset = 0 end
local now = time + ctx.offset
if now < ctx.mark then
  if ctx.mark - now > CLOCK_FREEZE then ctx.offset = ctx.mark - time end
  now = ctx.mark
end
ctx.now, ctx.now_bytes = now, pack('>I6', now)

-- Two generations. A record stays in the one in which it was made, whatever becomes of it, and goes with the
-- whole of it, in O(1): when no reservation in it is pending, and its last change is as long ago as the
-- retention (write.lua). The state has how many are pending in both and in the older one, and when that
-- was written last.
if ctx.generation == 1 then
  ctx.current, ctx.older = RECORDS_B, RECORDS_A
else
  ctx.current, ctx.older = RECORDS_A, RECORDS_B
end
-- Both are asked, so that a wrong type is found here. A weight is no record.
ctx.older_count = call('HLEN', ctx.older) - 1
ctx.record_count = call('HLEN', ctx.current) - 1 + ctx.older_count
