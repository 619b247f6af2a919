-- The end of the calls 'open' and 'configure'. Runs behind save.lua where the partition was made, or where a loss was noticed;
-- the next batch reports the loss as an event. Reads and writes META alone.

if known_config then call('HSET', META, 'config', known_config) end
-- With a command that was sent before the first write: it is not refused any more.
local config = call('HMGET', META, 'config')[1]
if ARGV[1] == 'open' then return { ctx.now, config, state_epoch } end

-- Replaces the config if it has this revision; returns 1 or 0, and the config as it is now.
local replaced, next_config = tonumber(ARGV[3]), ARGV[4] or ''
if #next_config < CONFIG_LENGTH then fail('SENTINELMALFORMED config') end
local version = byte(next_config, 1)
local format = version == CONFIG_VERSION and byte(next_config, CONFIG_LENGTH + 1) or version
if format > NEWEST_FORMAT or format < ctx.format then fail('SENTINELMALFORMED format') end
if config_revision ~= replaced then return { 0, config } end
call('HSET', META, 'config', next_config)
return { 1, next_config }
