-- The end of the calls 'open' and 'configure': replaces the config, and sets the reply. Runs before
-- write/state.lua, or after it if this call created the partition. If a loss was detected, the next
-- batch reports it as an event. Reads and writes META, and stores a request with an identity among
-- the records.

if newer_config then call('HSET', META, 'config', newer_config) end
saves = clock_changed or history and history.changed
-- With a command that was sent before the first write: it is not refused any more.
local config = call('HMGET', META, 'config')[1]

-- Replaces the config if it has this revision. Returns one of these codes.
local CONFIG_OVERTAKEN, CONFIG_REPLACED, CONFIG_REPLAYED, CONFIG_REUSED, CONFIG_OTHER_VERSION = 0, 1, 2, 3, 4
local function configure()
  local replaced, next_config = tonumber(ARGV[3]), ARGV[4] or ''
  local id, memo, version = ARGV[5] or '', MEMO_CONFIGURE_NAMESPACE .. (ARGV[6] or ''), ARGV[7] or ''
  if #next_config < CONFIG_LENGTH and (next_config ~= '' or id == '') then fail(MALFORMED, 'config') end
  if id ~= '' then
    if #id ~= 16 then fail(MALFORMED, 'id') end
    -- Before every refusal: a repeat changes nothing.
    local record = call('HMGET', ctx.current, id)[1] or call('HMGET', ctx.older, id)[1]
    if record then
      return byte(record, 1) == MEMO and sub(record, 8) == memo and CONFIG_REPLAYED or CONFIG_REUSED
    end
    if version ~= '' and tonumber(version) ~= config_revision then return CONFIG_OTHER_VERSION end
  end
  if config_revision ~= replaced then return CONFIG_OVERTAKEN end
  if next_config ~= '' then
    local first = byte(next_config, 1)
    local format = first >= CONFIG_VERSION_2 and byte(next_config, CONFIG_LENGTH + 1) or first
    if format > NEWEST_FORMAT or format < ctx.format then fail(MALFORMED, 'format') end
    call('HSET', META, 'config', next_config)
    config = next_config
  end
  if id ~= '' then
    call('HSET', ctx.current, id, STATE_MEMO .. ctx.now_bytes .. memo)
    if ctx.format >= FIRST_WITH_STATE_3 then admin_records, saves = admin_records + 1, true end
  end
  return CONFIG_REPLACED
end

if ARGV[1] == 'open' then
  reply = { ctx.now, config, state_epoch, pack(SHOWN_CLOCK_FORMAT, clock_offset, day_correction, doubt) }
else
  local code = configure()
  reply = { code, config }
end
