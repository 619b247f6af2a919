-- The two calls that are no batch: opening a partition, and configuring a namespace. Reads and writes
-- META, puts a weight into each generation, and touches nothing else but the names of the other keys.

-- The weight of a generation is the field that is no record: too long for the compact encoding that Redis gives
-- to hashes of up to hundreds of small fields, in which every look-up walks through all of them. A memo, which
-- those who list records pass over. write.lua puts one into a generation that begins.
local WEIGHT = 'M' .. rep('-', WEIGHT_LENGTH)

local function now()
  local time = call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

-- Returns now, config and epoch of the partition, made from what is proposed if there is none.
local function open_partition(config, proposed_epoch)
  local meta = call('HMGET', META, 'config', 'state')
  if not meta[1] and not meta[2] then
    if call('EXISTS', STOCK, RECORDS_A, RECORDS_B, DEADLINES, EVENTS, BUYERS) > 0 then
      corrupt('records without meta')
    end
    if #config < CONFIG_LENGTH then malformed('config') end
    ctx.epoch, ctx.sequence, ctx.offset, ctx.generation, ctx.next_due = proposed_epoch, 0, 0, 0, 0
    ctx.now = now()
    ctx.pending, ctx.older_pending, ctx.older_written = 0, 0, ctx.now
    meta = { config, state_bytes() }
    call('HSET', META, 'config', meta[1], 'state', meta[2])
    call('HSET', RECORDS_A, WEIGHT_FIELD, WEIGHT)
    call('HSET', RECORDS_B, WEIGHT_FIELD, WEIGHT)
  elseif not meta[1] or not meta[2] then
    corrupt('meta')
  end
  return { now(), meta[1], (unpack_bytes('>I6', meta[2])) }
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

if ARGV[1] == 'open' then return open_partition(ARGV[2], tonumber(ARGV[3])) end
return configure_partition(tonumber(ARGV[2]), ARGV[3])
