-- The partition: its state, its one clock, its generations, and how it is opened.
-- Reads META and TIME, and on opening and configuring writes META. Sets: now, epoch, sequence, ...

local META, STOCK, HOLDS, DEADLINES, PAST_A, PAST_B, EVENTS, BUYERS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local call, error_reply, pack, unpack_bytes = redis.call, redis.error_reply, struct.pack, struct.unpack
local STATE_FORMAT, CONFIG_FORMAT, CONFIG_LENGTH, corrupt, malformed =
  records.STATE_FORMAT, records.CONFIG_FORMAT, records.CONFIG_LENGTH, records.corrupt, records.malformed
local CLOCK_FREEZE = 1000 -- ms that the clock may stand still after a step back

local retired = {}        -- generations whose time is over, PAST first: not read, unlinked when writing

local function server_time()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- One clock decides: Redis's. It never runs backwards, because no instant before the mark is ever
-- used; and after a step back it stands still for CLOCK_FREEZE at most, because a longer step is
-- taken into an offset, which goes when no hold's deadline depends on it any more.
local function read_clock()
  local time = server_time()
  if ctx.offset ~= 0 and time >= ctx.mark and call('HLEN', HOLDS) == 0 then
    ctx.offset = 0
  end
  ctx.now = time + ctx.offset
  if ctx.now < ctx.mark then
    if ctx.mark - ctx.now > CLOCK_FREEZE then ctx.offset = ctx.mark - time end
    ctx.now = ctx.mark
  end
end

-- Two generations of one retention each: a record is found for at least that long after its last
-- change, and goes with its whole generation, in O(1).
local function read_generations()
  local age = ctx.now - ctx.generation_start
  if age >= ctx.retention then
    ctx.generation, ctx.generation_start = 1 - ctx.generation, ctx.now
  end
  ctx.past, ctx.past_other = PAST_A, PAST_B
  if ctx.generation == 1 then ctx.past, ctx.past_other = PAST_B, PAST_A end
  if age >= ctx.retention then retired[1] = ctx.past end
  if age >= 2 * ctx.retention then retired[2] = ctx.past_other end
end

local function load_partition(expected_epoch)
  local meta = call('HMGET', META, 'config', 'state')
  if not meta[1] or not meta[2] then
    error(error_reply('SENTINELCLOSED no such partition'))
  end
  local _, partitions
  _, ctx.config_revision, ctx.retention, _, _, ctx.longest_life, ctx.quota_records, ctx.quota_skus, ctx.events_kept, partitions =
    unpack_bytes(CONFIG_FORMAT, meta[1])
  -- The namespace's quotas, divided among its partitions.
  ctx.quota_records, ctx.quota_skus = math.ceil(ctx.quota_records / partitions), math.ceil(ctx.quota_skus / partitions)
  ctx.epoch, ctx.sequence, ctx.mark, ctx.offset, ctx.generation_start, ctx.generation, ctx.next_due =
    unpack_bytes(STATE_FORMAT, meta[2])
  if ctx.epoch ~= expected_epoch then
    error(error_reply('SENTINELCLOSED another epoch'))
  end
  read_clock()
  read_generations()
end

local function state_bytes()
  return pack(STATE_FORMAT, ctx.epoch, ctx.sequence, ctx.now, ctx.offset, ctx.generation_start, ctx.generation, ctx.next_due)
end

-- Returns now, config and epoch of the partition, made from what is proposed if there is none.
local function open_partition(config, proposed_epoch)
  local meta = call('HMGET', META, 'config', 'state')
  if not meta[1] and not meta[2] then
    if call('EXISTS', STOCK, HOLDS, DEADLINES, PAST_A, PAST_B, EVENTS, BUYERS) > 0 then
      corrupt('records without meta')
    end
    if #config < CONFIG_LENGTH then malformed('config') end
    ctx.epoch, ctx.sequence, ctx.offset, ctx.generation, ctx.next_due = proposed_epoch, 0, 0, 0, 0
    ctx.now = server_time()
    ctx.generation_start = ctx.now
    meta = { config, state_bytes() }
    call('HSET', META, 'config', meta[1], 'state', meta[2])
  elseif not meta[1] or not meta[2] then
    corrupt('meta')
  end
  return { server_time(), meta[1], (unpack_bytes('>I6', meta[2])) }
end

-- Replaces the config if it has this revision; returns 1 or 0, and the config as it is now.
local function configure_partition(revision, config)
  local current = call('HGET', META, 'config')
  if not current then error(error_reply('SENTINELCLOSED no such partition')) end
  if #config < CONFIG_LENGTH then malformed('config') end
  if unpack_bytes('>I6', current, 2) ~= revision then return { 0, current } end
  call('HSET', META, 'config', config)
  return { 1, config }
end

partition = {
  retired = retired, state_bytes = state_bytes, load_partition = load_partition,
  open_partition = open_partition, configure_partition = configure_partition,
}
