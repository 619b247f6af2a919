-- The partition: its state, its one clock, its generations, and how it is opened.
-- Reads META and TIME, and on opening and configuring writes META. Sets: now, epoch, sequence, ...

local now, epoch, sequence, mark, offset, generation_start, generation, next_due
local config_revision, retention, longest_life, quota_records, quota_skus, events_kept
local PAST, PAST_OTHER    -- the generation that is written, and the one before it
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
  if offset ~= 0 and time >= mark and call('HLEN', HOLDS) == 0 then
    offset = 0
  end
  now = time + offset
  if now < mark then
    if mark - now > CLOCK_FREEZE then offset = mark - time end
    now = mark
  end
end

-- Two generations of one retention each: a record is found for at least that long after its last
-- change, and goes with its whole generation, in O(1).
local function read_generations()
  local age = now - generation_start
  if age >= retention then
    generation, generation_start = 1 - generation, now
  end
  PAST, PAST_OTHER = PAST_A, PAST_B
  if generation == 1 then PAST, PAST_OTHER = PAST_B, PAST_A end
  if age >= retention then retired[1] = PAST end
  if age >= 2 * retention then retired[2] = PAST_OTHER end
end

local function load_partition(expected_epoch)
  local meta = call('HMGET', META, 'config', 'state')
  if not meta[1] or not meta[2] then
    error(error_reply('SENTINELCLOSED no such partition'))
  end
  local _, partitions
  _, config_revision, retention, _, _, longest_life, quota_records, quota_skus, events_kept, partitions =
    unpack_bytes(CONFIG_FORMAT, meta[1])
  -- The namespace's quotas, divided among its partitions.
  quota_records, quota_skus = math.ceil(quota_records / partitions), math.ceil(quota_skus / partitions)
  epoch, sequence, mark, offset, generation_start, generation, next_due =
    unpack_bytes(STATE_FORMAT, meta[2])
  if epoch ~= expected_epoch then
    error(error_reply('SENTINELCLOSED another epoch'))
  end
  read_clock()
  read_generations()
end

local function state_bytes()
  return pack(STATE_FORMAT, epoch, sequence, now, offset, generation_start, generation, next_due)
end

-- Returns now, config and epoch of the partition, made from what is proposed if there is none.
local function open_partition(config, proposed_epoch)
  local meta = call('HMGET', META, 'config', 'state')
  if not meta[1] and not meta[2] then
    if call('EXISTS', STOCK, HOLDS, DEADLINES, PAST_A, PAST_B, EVENTS, BUYERS) > 0 then
      corrupt('records without meta')
    end
    if #config < CONFIG_LENGTH then malformed('config') end
    epoch, sequence, offset, generation, next_due = proposed_epoch, 0, 0, 0, 0
    now = server_time()
    generation_start = now
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
