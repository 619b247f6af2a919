-- The calls 'open' and 'configure' for a partition that is there, behind what is known of its history. Reads and writes
-- META alone. A loss that it notices is written, and the next batch reports it as an event.

if history and history.changed then call('HSET', META, 'state', state_bytes(), unpack(history_fields())) end

local config = call('HGET', META, 'config')
if ARGV[1] == 'open' then return { ctx.now, config, ctx.epoch } end

-- Replaces the config if it has this revision; returns 1 or 0, and the config as it is now.
local replaced, next_config = tonumber(ARGV[3]), ARGV[4] or ''
if #next_config < CONFIG_LENGTH then fail('SENTINELMALFORMED config') end
local version = byte(next_config, 1)
local format = version == CONFIG_VERSION and byte(next_config, CONFIG_LENGTH + 1) or version
if format > NEWEST_FORMAT or format < ctx.format then fail('SENTINELMALFORMED format') end
if ctx.config_revision ~= replaced then return { 0, config } end
call('HSET', META, 'config', next_config)
return { 1, next_config }
