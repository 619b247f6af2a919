-- The partition: loads its state and its config, compares the caller's knowledge of its history,
-- and finds the generations. Reads META and the size of both generations. Sets the fields of ctx
-- about the partition.

local meta = call('HMGET', META, 'config', 'state')
local config, state = newer_config or meta[1], meta[2]
if not config or not state then fail(CLOSED, 'no such partition') end
if #config < CONFIG_LENGTH then fail(CORRUPT, 'config') end
local version = byte(config, 1)
ctx.format = version >= CONFIG_VERSION_2 and byte(config, CONFIG_LENGTH + 1) or version
if version > CONFIG_VERSION or ctx.format > NEWEST_FORMAT then fail(NEWER, 'config') end
local _, records, skus, partitions, flags, settled_at
_, config_revision, retention, _, _, ctx.longest_life, records, skus, events_kept, partitions =
  unpack_bytes(CONFIG_FORMAT, config)
ctx.paused = version == CONFIG_VERSION and byte(config, CONFIG_LENGTH + 2) % 2 == PAUSED_NAMESPACE
-- The namespace's quotas, divided among its partitions.
ctx.quota_records, ctx.quota_skus = math.ceil(records / partitions), math.ceil(skus / partitions)
-- In a namespace whose format was just raised the next change writes the state in the new format.
if #state == STATE_LENGTH_1 then
  state_epoch, ctx.sequence, clock_mark, clock_offset, generation, ctx.next_due, ctx.pending,
    older_pending, older_written = unpack_bytes(STATE_FORMAT_1, state)
  term_first, day_correction = ctx.sequence + 1, -clock_offset
else
  version = byte(state, 1) or 0
  if version > STATE_VERSION then fail(NEWER, 'state') end
  local length = STATE_LENGTH
  if version == STATE_VERSION and #state >= STATE_LENGTH then
    _, state_epoch, state_term, ctx.sequence, clock_mark, clock_offset, generation, ctx.next_due, ctx.pending,
      older_pending, older_written, term_first, flags, settled_at, admin_records, older_admin_records =
      unpack_bytes(STATE_FORMAT, state)
  elseif version == STATE_VERSION_2 and #state >= STATE_LENGTH_2 then
    length = STATE_LENGTH_2
    _, state_epoch, state_term, ctx.sequence, clock_mark, clock_offset, generation, ctx.next_due, ctx.pending,
      older_pending, older_written, term_first, flags, settled_at = unpack_bytes(STATE_FORMAT_2, state)
    -- In the older formats the time of day is TIME. It stays so in a namespace that was just
    -- raised.
    day_correction = -clock_offset
  else
    fail(CORRUPT, 'state')
  end
  state_run = state_term
  if settled_at > 0 then ctx.settled_at = settled_at end
  ctx.has_terms = true
  if flags > 0 then
    ctx.gated = bit.band(flags, GATED) > 0
    ctx.emptied = bit.band(flags, EMPTIED) > 0
    ctx.unreported = bit.band(flags, UNREPORTED) > 0
    ctx.purging = bit.band(flags, PURGING) > 0
    if bit.band(flags, STEPPED) > 0 then
      is_stepped, day_correction, day_since, doubt, doubt_since =
        true, unpack_bytes(CLOCK_FORMAT, state, length + 1)
      length = length + CLOCK_LENGTH
    end
    if bit.band(flags, OTHER_RUN) > 0 then state_run = sub(state, length + 1) end
    is_unproven = ctx.gated or ctx.emptied or ctx.unreported
  end
end
ctx.first_sequence, base_sequence = ctx.sequence, ctx.sequence
is_batch = ARGV[1] ~= 'open' and ARGV[1] ~= 'configure'
if is_batch and state_epoch ~= tonumber(ARGV[1]) then fail(CLOSED, 'another epoch') end

-- Usually the caller claims one change of the current term. Epoch and term are adjacent in the
-- state and in a claim.
local knowledge = ARGV[2]
local length = knowledge and (#knowledge - 1) % CLAIM_LENGTH
if length ~= 0 and length ~= EXPECTATION_LENGTH then fail(MALFORMED, 'knowledge') end
local has_claims = #knowledge > CLAIM_LENGTH
-- Claims are made in format 2 and later. This namespace of format 1 has lost its config; the caller
-- sends it when it opens the namespace again.
if has_claims and ctx.format == 1 and is_batch then fail(CLOSED, 'an older config') end
if #knowledge == 1 + CLAIM_LENGTH + EXPECTATION_LENGTH and ctx.format > 1
  and sub(knowledge, 2, 47) == sub(state, 2, 47) then
  local sequence
  sequence, expected = unpack_bytes('>I6I6', knowledge, 48)
  if sequence <= ctx.sequence then
    is_same_run = byte(knowledge, 1) < FIRST_SMALL and state_run == state_term
  else
    is_unproven = true
  end
else
  -- The clock of a partition that this one has replaced does not count.
  local has_clock = length > 0 and (is_batch or has_claims
    and unpack_bytes('>I6', knowledge, #knowledge - CLAIM_LENGTH - EXPECTATION_LENGTH + 1) == state_epoch)
  if has_clock then expected = unpack_bytes('>I6', knowledge, #knowledge - 5) end
  if has_claims and ctx.format > 1 then is_unproven = true end
end
if expected == 0 then expected = nil end

-- Two generations. A record stays in the one in which it was created. A generation is dropped as a
-- whole, in O(1), when no reservation in it is pending and its last change is as long ago as the
-- retention (write/batch.lua). The state has the number of pending reservations in both and in the
-- older one, and when the older one was last written.
if generation == 1 then
  ctx.current, ctx.older = RECORDS_B, RECORDS_A
else
  ctx.current, ctx.older = RECORDS_A, RECORDS_B
end
-- Both are read, so a wrong type is detected here. The padding field is not a record.
older_count = call('HLEN', ctx.older) - 1
ctx.record_count = call('HLEN', ctx.current) - 1 + older_count - admin_records
