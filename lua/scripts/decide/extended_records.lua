-- The ledger of extended records: reservations that count for a limit per buyer, that were resolved
-- in part, or that come from another one. Runs if a batch has or creates one. No redis.call.

-- Encodes lines as a line set without a ttl; leaves out a line of no unit.
function line_set_of(lines, amounts)
  local parts = {}
  for i = 1, lines.n do
    if amounts[i] > 0 then
      parts[#parts + 1] = pack('>I4B', amounts[i], #lines.skus[i]) .. lines.skus[i]
    end
  end
  return '\0\0\0\0\0\0' .. char(#parts) .. concat(parts)
end

-- A digest of a Reserve in its canonical form: the buyer, the replaced reservation, and the lines
-- in the order of their bytes, without the ttl. `<` would compare texts by the locale of Redis.
function digest_of(buyer, line_set, origin)
  local lines, at = {}, 8
  while at <= #line_set do
    local length = 5 + byte(line_set, at + 4)
    lines[#lines + 1] = sub(line_set, at, at + length - 1)
    at = at + length
  end
  if lines[2] then
    table.sort(lines, function(a, b)
      for i = 1, min(#a, #b) do
        local left, right = byte(a, i), byte(b, i)
        if left ~= right then return left < right end
      end
      return #a < #b
    end)
  end
  return sub(redis.sha1hex(buyer .. origin .. concat(lines)), 1, 16)
end

-- Decodes the extension of a record, or the one that a plain record implies: which lines count for
-- the buyer, the origin, in format 3 the digest of the request and the repurchase, and for each
-- line the units sold and released. For an expired reservation these are the units before the
-- deadline: the rest can be repurchased.
function extension_of(record, lines)
  local state, is_extended = state_of(record)
  local n, sold, released = lines.n, {}, {}
  if is_extended then
    local changed = changes_length(record)
    local at, digest, purchase = #record - changed - 8 * n - 19, nil, nil
    for i = 1, n do sold[i], released[i] = unpack_bytes('>I4I4', record, at + 12 + 8 * i) end
    if byte(record, 1) >= FIRST_DIGESTED then
      digest, purchase, at = sub(record, at - 12, at + 3), sub(record, at + 4, at + 19), at - 32
    end
    local counted, origin = unpack_bytes('>I4', record, at), sub(record, at + 4, at + 19)
    local changes = changed > 0 and sub(record, 1 - changed, -2) or nil
    return { counted = counted, origin = origin, digest = digest, purchase = purchase, sold = sold,
      released = released, changes = changes }
  end
  for i = 1, n do
    sold[i] = state == STATE_COMMITTED and lines.quantities[i] or 0
    released[i] = state == STATE_ROLLED_BACK and lines.quantities[i] or 0
  end
  return { counted = 0, origin = NO_ORIGIN, sold = sold, released = released }
end

-- Encodes an extended record in the namespace's format. Later changes of the record do not change
-- its digest, which is that of the request.
local function extended(state, resolved_at, deadline_and_created, buyer, line_set, extension)
  local is_digested = ctx.format > 2
  local changes = extension.changes
  local above = changes and 128 or is_digested and 160 or 32
  local parts = { char(PENDING + above), deadline_and_created, buyer, line_set,
    pack('>I4', extension.counted), extension.origin }
  if state ~= STATE_PENDING then parts[1] = char(byte(state) + above) .. resolved_at .. parts[1] end
  if is_digested then
    parts[7] = extension.digest or digest_of(buyer, line_set, extension.origin)
    parts[8] = extension.purchase or NO_ORIGIN
  end
  for i = 1, #extension.sold do
    parts[#parts + 1] = pack('>I4I4', extension.sold[i], extension.released[i])
  end
  if changes then
    local number = char(#changes / CHANGE_LENGTH)
    parts[#parts + 1] = number .. changes .. number
  end
  return concat(parts)
end

-- The units that a pending reservation holds, or that an expired one held at its deadline, for each
-- line, and their sum.
function held_amounts(lines, extension)
  local amounts, total = {}, 0
  for i = 1, lines.n do
    amounts[i] = lines.quantities[i] - extension.sold[i] - extension.released[i]
    total = total + amounts[i]
  end
  return amounts, total
end

-- The extension of a new reservation, whose units are all held, or all sold if `sold`. Counts them
-- for the buyer.
local function new_extension(lines, buyer, origin, sold)
  local extension = { counted = 0, origin = origin, sold = {}, released = {} }
  for i = 1, lines.n do
    extension.sold[i], extension.released[i] = sold and lines.quantities[i] or 0, 0
  end
  if lines.limited then
    extension.counted = limited_lines(lines)
    count(lines, extension.counted, buyer, lines.quantities, 1)
  end
  return extension
end

-- available -> held, for a reservation that counts for a limit or replaces another. `head` is its
-- deadline and its creation; `earliest` is the `deadline` of `transfer`.
function hold_extended(id, head, buyer, line_set, origin, earliest)
  local lines = lines_of(line_set)
  transfer(lines, lines.quantities, 1, AVAILABLE, HELD, earliest)
  ctx.pending = ctx.pending + 1
  store_record(id, extended(STATE_PENDING, nil, head, buyer, line_set, new_extension(lines, buyer, origin)))
  append_event(run_of(EVENT_HELD, STATE_PENDING, sub(head, 1, 6), buyer ~= NO_BUYER, line_set, ''),
    id, 1, buyer)
end

-- available -> sold: the units that an expired reservation held. The expired record names the
-- repurchase.
function repurchase(id, origin, buyer, line_set, lines)
  -- The repurchase is found by its origin, so the origin must be kept as long.
  if in_older[origin] then older_written = ctx.now end
  transfer(lines, lines.quantities, 1, AVAILABLE, SOLD)
  local at = ctx.now_bytes
  store_record(id, extended(STATE_COMMITTED, at, at .. at, buyer, line_set,
    new_extension(lines, buyer, origin, true)))
  if ctx.format > 2 then
    local expired = records_by_id[origin]
    local _, its_line_set = buyer_and_line_set(expired)
    local extension = extension_of(expired, lines_of(its_line_set))
    extension.purchase = id
    store_record(origin, extended(STATE_EXPIRED, sub(expired, 2, 7), sub(expired, 9, RESOLVED_TAIL - 1),
      buyer, its_line_set, extension))
  end
  append_event(run_of(EVENT_REPURCHASED, STATE_COMMITTED, NO_DEADLINE, buyer ~= NO_BUYER, line_set, ''),
    id, 1, buyer)
end

-- Resolves a reservation that is not plain: some of its units, or one with an extension. The
-- reservation remembers `change`, if given.
function resolve_extended(id, to, amounts, change)
  local record = records_by_id[id]
  local buyer, line_set = buyer_and_line_set(record)
  local lines = lines_of(line_set)
  local extension = extension_of(record, lines)
  if change then extension.changes = (extension.changes or '') .. change end
  amounts = amounts or held_amounts(lines, extension)
  local withdrawn
  if to ~= STATE_COMMITTED and ctx.settled_at and is_old(record) then
    withdrawn = release_old(lines, amounts, 1)
  else
    transfer(lines, amounts, 1, HELD, to == STATE_COMMITTED and SOLD or AVAILABLE)
  end
  local sold = 0
  for i = 1, lines.n do
    local share = to == STATE_COMMITTED and extension.sold or extension.released
    share[i] = share[i] + amounts[i]
    sold = sold + extension.sold[i]
  end
  if to ~= STATE_COMMITTED and extension.counted ~= 0 then
    count(lines, still_counted(lines, extension.counted, unpack_bytes('>I6', record, 8)), buyer, amounts, -1)
  end
  local rest, total = held_amounts(lines, extension)
  local after = total > 0 and STATE_PENDING or sold > 0 and STATE_COMMITTED or to
  if after ~= STATE_PENDING then ctx.pending = ctx.pending - 1 end
  if after == STATE_EXPIRED then
    for i = 1, lines.n do extension.released[i] = extension.released[i] - amounts[i] end
  end
  local at = to == STATE_EXPIRED and sub(record, 2, 7) or ctx.now_bytes
  store_record(id, extended(after, at, sub(record, 2, TAIL - 1), buyer, line_set, extension))
  append_event(run_of(to, after, after == STATE_PENDING and sub(record, 2, 7) or NO_DEADLINE,
    buyer ~= NO_BUYER, line_set_of(lines, amounts), after == STATE_PENDING and line_set_of(lines, rest) or '',
    withdrawn), id, 1, buyer)
end

-- Moves the deadline; no unit moves. The reservation remembers `change`, if given.
function extend_deadline(id, deadline, change)
  local record = records_by_id[id]
  local buyer, line_set = buyer_and_line_set(record)
  local lines, held = lines_from(line_set), line_set
  if byte(record, 1) >= FIRST_EXTENDED then
    held = line_set_of(lines, (held_amounts(lines, extension_of(record, lines))))
  end
  next_sequence(1)
  local bytes = pack('>I6', deadline)
  if change then
    local extension = extension_of(record, lines)
    extension.changes = (extension.changes or '') .. change
    store_record(id, extended(STATE_PENDING, nil, bytes .. sub(record, 8, 13), buyer, line_set, extension))
  else
    store_record(id, sub(record, 1, 1) .. bytes .. sub(record, 8))
  end
  watch_deadline(deadline, id)
  append_event(run_of(EVENT_EXTENDED, STATE_PENDING, bytes, buyer ~= NO_BUYER, held, ''), id, 1, buyer)
end
