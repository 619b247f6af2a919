-- Whether a repeat of a Reserve is the same request. Runs if a Reserve of the batch can find a
-- record of its identity. Works on loaded tables; no redis.call.

-- Whether the same request created this record: the same lines in any order, the same buyer, the
-- same replaced reservation, and a ttl that is unset or was in force then. `line_set` is that of a
-- new record.
function is_same(record, buyer, line_set, group)
  local letter, target = byte(record, 1), group.target
  if letter == MEMO then return false end
  local is_plain = letter < FIRST_EXTENDED
  if is_plain and sub(record, letter == PENDING and TAIL or RESOLVED_TAIL) == buyer .. line_set then
    return not target
  end
  local its_buyer, its_line_set = buyer_and_line_set(record)
  local requested, in_force = unpack_bytes('>I6', group.extra), unpack_bytes('>I6', its_line_set)
  if requested > 0 and in_force == 0 then
    local deadline, created = unpack_bytes('>I6I6', record, is_pending(record) and 2 or 9)
    in_force = deadline - created
  end
  if requested > 0 and requested ~= in_force then return false end
  local its_lines, lines = lines_from(its_line_set), group.lines
  if not is_plain then
    local extension = extension_of(record, its_lines)
    local digest = extension.digest or digest_of(its_buyer, its_line_set, extension.origin)
    return digest == digest_of(buyer, line_set, target or NO_ORIGIN)
  end
  if target or its_buyer ~= buyer or its_lines.n ~= lines.n then return false end
  for i = 1, lines.n do
    local at = its_lines.index[lines.skus[i]]
    if not at or its_lines.quantities[at] ~= lines.quantities[i] then return false end
  end
  return true
end
