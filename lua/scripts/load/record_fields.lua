-- Decodes the fields of a record of a reservation (formats.lua). Pure functions; no redis.call.
-- Runs where the batch has or may find a record: not for Reserves that are refused before one is
-- loaded.

function is_pending(record)
  local state = byte(record, 1)
  return state == PENDING or state == EXTENDED_PENDING or state == DIGESTED_PENDING
    or state == CHANGED_PENDING
end

-- The state of a record as its letter, and whether the record is extended.
function state_of(record)
  local state = byte(record, 1)
  if state >= FIRST_EXTENDED then
    return char(state - (state > LAST_CHANGED and 160 or state >= FIRST_DIGESTED and 128 or 32)), true
  end
  return char(state), false
end

-- How many bytes at the end of an extended record are changes.
function changes_length(record)
  local letter = byte(record, 1)
  if letter < FIRST_DIGESTED or letter > LAST_CHANGED then return 0 end
  return 2 + CHANGE_LENGTH * byte(record, -1)
end

-- Of a pending record.
function deadline_of(record)
  return (unpack_bytes('>I6', record, 2))
end

-- The buyer field of a record, and its line set.
function buyer_and_line_set(record)
  local at = is_pending(record) and TAIL or RESOLVED_TAIL
  local length = byte(record, at)
  if not length then fail(CORRUPT, 'reservation') end
  local last = #record
  local letter = byte(record, 1)
  if letter >= FIRST_EXTENDED then
    local n = byte(record, at + length + 7)
    if not n then fail(CORRUPT, 'reservation') end
    last = last - (letter >= FIRST_DIGESTED and 52 or 20) - 8 * n - changes_length(record)
  end
  return sub(record, at, at + length), sub(record, at + length + 1, last)
end
