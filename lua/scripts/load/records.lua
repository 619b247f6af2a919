-- Loads the records that the batch names, except those that decide/refusal.lua may not need. Reads
-- both generations; writes nothing.

-- Notes the lines of a record whose units may move; their stock is loaded later.
function load_lines_of_record(record)
  if plain_info[record] ~= nil then return end
  local buyer, line_set = buyer_and_line_set(record)
  local lines = lines_of(line_set)
  plain_info[record] = byte(record, 1) == PENDING
    and { lines = lines, line_set = line_set, buyer = buyer, is_named = buyer ~= NO_BUYER,
      is_old = ctx.settled_at and is_old(record) }
end

-- Notes the records that this generation has under these ids, and the lines of those whose units
-- may move. Returns the ids without a record.
local function load_from(generation, ids)
  local records, n, found, before = load_fields(generation, ids), #ids, 0, nil
  for i = 1, n do
    local record = records[i]
    if record then
      found = found + 1
      records_by_id[ids[i]] = record
      -- Reservations that were created together have the same record.
      if record ~= before then
        local letter = byte(record, 1) or 0
        if letter ~= PENDING and not find(LATER_LETTERS, sub(record, 1, 1), 1, true) or letter == 0 then
          fail(NEWER, 'record')
        end
        if letter >= FIRST_EXTENDED then ctx.any_extended = true end
        if letter == PENDING or letter == EXTENDED_PENDING or letter == DIGESTED_PENDING
          or letter == CHANGED_PENDING then
          if ctx.moves_records then load_lines_of_record(record) end
        elseif kinds.commit_late and letter ~= MEMO then
          load_lines_of_record(record)
        end
        before = record
      end
    end
  end
  if found == 0 then return ids end
  local missing = {}
  if found < n then
    for i = 1, n do
      if not records[i] then missing[#missing + 1] = ids[i] end
    end
  end
  return missing
end

function load_records(ids)
  local missing = load_from(ctx.current, ids)
  if older_count > 0 and missing[1] then
    load_from(ctx.older, missing)
    for i = 1, #missing do
      in_older[missing[i]] = records_by_id[missing[i]]
    end
  end
end

-- Loads the record of every id that the batch names and that is not loaded yet: of the operations,
-- of their targets, and of the repurchases of commit_late. If `first_attempts_wait`, groups of kind
-- reserve_first are skipped; once loaded they become reserve.
function load_named_records(first_attempts_wait)
  local named, total = {}, 0
  for g = 1, #groups do
    local group = groups[g]
    if group.kind == 'reserve_first' and not first_attempts_wait then group.kind = 'reserve' end
    if group.kind ~= 'reserve_first' and not group.ids then
      local n, ids = group.n, nil
      if n == 1 then
        ids = { group.packed }
      else
        ids = { unpack_bytes(rep('c16', n), group.packed) }
        ids[n + 1] = nil -- the position that unpack returns
      end
      group.ids = ids
      if #groups == 1 and not group.target and group.kind ~= 'commit_late' then
        named, total = ids, n
      else
        for i = 1, n do named[total + i] = ids[i] end
        total = total + n
      end
      if group.target then
        total = total + 1
        named[total] = group.target
      end
      if group.kind == 'commit_late' then
        for i = 1, #group.extra, 16 do
          total = total + 1
          named[total] = sub(group.extra, i, i + 15)
        end
      end
    end
  end
  if total > 0 then load_records(named) end
end

-- First attempts wait for a fast rejection (decide/refusal.lua). They do not where it is
-- impossible: beside other operations, and while something is due, which is given back first.
load_named_records(ctx.only_reserves and (ctx.next_due == 0 or ctx.next_due > ctx.now))
