-- Creates a partition that does not exist. Runs after load/terms.lua for the call 'open', before the
-- partition is loaded, and before write/state.lua. Reads and writes META, adds the padding to each
-- generation, and reads only the existence of the other keys.
--
-- A caller with knowledge of the partition creates it again: epoch, config and secret are those of
-- the caller, and the sequence continues from the last claim. The contents are lost, so the
-- partition is gated, or, if a loss does not gate it, marked as emptied.

-- Each generation hash has one oversized padding field, so Redis uses a hash table instead of a
-- listpack, whose lookups are linear. The padding is a memo, which lists skip. write/batch.lua adds
-- it to a generation that begins.
local PADDING = STATE_MEMO .. rep('-', PADDING_LENGTH)
local ANY_SEQUENCE = 281474976710655

local knowledge, config = ARGV[2] or '', ARGV[3] or ''
-- Without the instant that the caller expects.
knowledge = sub(knowledge, 1, #knowledge - (#knowledge - 1) % CLAIM_LENGTH)
local meta = call('HMGET', META, 'config', 'state', 'deleting', 'deleted')
if meta[3] then fail(CLOSED, 'the namespace is being deleted') end
local deleted = {} -- epochs of earlier partitions of this place
if meta[4] then
  if byte(meta[4], 1) > DELETION_VERSION then fail(NEWER, 'deletion') end
  for at = 3, #meta[4], DELETED_LENGTH do deleted[(unpack_bytes('>I6', meta[4], at))] = true end
end
for at = 2, #knowledge, CLAIM_LENGTH do
  -- The partition was deleted and not lost, so it must not be created again with its old epoch.
  if deleted[(unpack_bytes('>I6', knowledge, at))] then fail(CLOSED, 'the partition was deleted') end
end
if not meta[1] and not meta[2] then
  if call('EXISTS', STOCK, RECORDS_A, RECORDS_B, DEADLINES, EVENTS, BUYERS) > 0 then
    fail(CORRUPT, 'records without meta')
  end
  if #config < CONFIG_LENGTH then fail(MALFORMED, 'config') end
  local time = call('TIME')
  ctx.now = time[1] * 1000 + floor(time[2] / 1000)
  ctx.format = byte(config, 1) >= CONFIG_VERSION_2 and byte(config, CONFIG_LENGTH + 1) or byte(config, 1)
  if ctx.format > NEWEST_FORMAT then fail(NEWER, 'config') end
  if ctx.format == 1 and #knowledge > 1 then
    fail(CORRUPT, 'a partition of a namespace of format 1 is gone: raise the format to settle it')
  end
  state_epoch, older_written = tonumber(ARGV[4]), ctx.now
  if #knowledge > 1 then
    history.fenced_at = ctx.now
    for at = 2, #knowledge, CLAIM_LENGTH do
      local epoch, term, sequence = unpack_bytes('>I6c40I6', knowledge, at)
      state_epoch, ctx.sequence = epoch, max(ctx.sequence, sequence)
      history.claims[#history.claims + 1] = { epoch, term, sequence, 0 }
    end
    ctx.gated = string.lower(sub(knowledge, 1, 1)) == GATES
    ctx.emptied, ctx.unreported, history.changed = not ctx.gated, true, true
  end
  -- Other servers' claims of a deleted partition are settled.
  for epoch in pairs(deleted) do
    history.settled[#history.settled + 1] = { epoch, ANY_SEQUENCE }
    history.changed = ctx.format > 1
  end
  state_run, term_first, saves = '', ctx.sequence + 1, true
  call('HSET', META, 'config', config)
  call('HSET', RECORDS_A, PADDING_FIELD, PADDING)
  call('HSET', RECORDS_B, PADDING_FIELD, PADDING)
  -- The request that creates the namespace.
  local id, memo = ARGV[5] or '', ARGV[6] or ''
  if #id == 16 then
    call('HSET', RECORDS_A, id, STATE_MEMO .. pack('>I6', ctx.now) .. MEMO_CONFIGURE_NAMESPACE .. memo)
    if ctx.format >= FIRST_WITH_STATE_3 then admin_records = 1 end
  end
elseif not meta[1] or not meta[2] then
  fail(CORRUPT, 'meta')
elseif #knowledge > 1 and #config >= CONFIG_LENGTH then
  -- The caller has a later config of this partition: that one was lost.
  local epoch = unpack_bytes('>I6', meta[2], #meta[2] == STATE_LENGTH_1 and 1 or 2)
  local is_known = unpack_bytes('>I6', knowledge, #knowledge - CLAIM_LENGTH + 1) == epoch
  if is_known and unpack_bytes('>I6', config, 2) > unpack_bytes('>I6', meta[1], 2) then
    newer_config = config
  end
end
