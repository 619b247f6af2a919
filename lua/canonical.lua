-- The canonical form of a request, by which a repeat is told from another request under the same identity: the same
-- lines in any order, the same buyer, the same replaced reservation; and the ttl, which is unset, or what was in force
-- when the reservation was made. Runs where a batch can meet a repeat. Pure functions; no redis.call.

-- The lines of a shape in the order of their bytes. `<` would compare texts by the locale of Redis.
function canonical(shape)
  local lines, at = {}, 8
  while at <= #shape do
    local length = 5 + byte(shape, at + 4)
    lines[#lines + 1] = sub(shape, at, at + length - 1)
    at = at + length
  end
  table.sort(lines, function(a, b)
    for i = 1, min(#a, #b) do
      local left, right = byte(a, i), byte(b, i)
      if left ~= right then return left < right end
    end
    return #a < #b
  end)
  return concat(lines)
end

-- Of the request for a reservation, without its ttl.
function digest_of(buyer, shape, origin)
  return sub(redis.sha1hex(buyer .. origin .. canonical(shape)), 1, 16)
end

-- Whether this record is what the same request made. `shape` is what the record of a new reservation has.
function is_same(record, buyer, shape, group)
  local letter, origin = byte(record, 1), group.target or NO_ORIGIN
  if letter == MEMO then return false end
  if letter < FIRST_EXTENDED and origin == NO_ORIGIN
    and sub(record, letter == PENDING and TAIL or RESOLVED_TAIL) == buyer .. shape then
    return true
  end
  local its_buyer, its_shape = buyer_and_shape(record)
  local asked, in_force = unpack_bytes('>I6', group.args), unpack_bytes('>I6', its_shape)
  if asked > 0 and in_force == 0 then
    local deadline, created = unpack_bytes('>I6I6', record, is_pending(record) and 2 or 9)
    in_force = deadline - created
  end
  if asked > 0 and asked ~= in_force then return false end
  local its_origin, digest = NO_ORIGIN, nil
  if letter >= FIRST_EXTENDED then
    local extension = extension_of(record, lines_from(its_shape))
    its_origin, digest = extension.origin, extension.digest
  end
  return (digest or digest_of(its_buyer, its_shape, its_origin)) == digest_of(buyer, shape, origin)
end
