-- The only file that writes a batch. After the first write no further write can fail, for any of
-- these reasons:
-- - A wrong type. This call has read every key that it writes to, and so has found a wrong type
--   before. The event stream, which it has not read, is written first.
-- - A permission. Redis checks those of a script's commands one by one, and those of its keys before
--   it starts. So each command is checked before the first is sent. XADD is not: it is the first, and
--   changes nothing if it is refused. (Only an ACL selector could permit a command on one of these
--   keys and not on another. The server's check of permissions refuses such a user.) A check costs
--   about 1,450 instructions of Redis, 2,250 for a user with few permissions: 0.3 percent of a lone
--   Reserve, which needs two of them.
-- - Memory. Redis checks its limit before the script starts, and never again while it runs.

-- Sends one variadic command, in as many calls as the limit on arguments requires.
local function call_with(command, key, arguments)
  local n = #arguments
  for first = 1, n, MAX_ARGUMENTS do
    call(command, key, unpack(arguments, first, min(first + MAX_ARGUMENTS - 1, n)))
  end
end

-- A record is written where it is stored, or to the current generation.
local records, older_records = new_records, {}
if next(in_older) ~= nil then
  records = {}
  for i = 1, #new_records, 2 do
    local id, record = new_records[i], new_records[i + 1]
    local before = in_older[id]
    local list = before and older_records or records
    list[#list + 1], list[#list + 2] = id, record
    if before then
      if is_pending(before) and not is_pending(record) then older_pending = older_pending - 1 end
      in_older[id], older_written = record, ctx.now
    end
  end
end
-- Whether the older generation is dropped, and the current one becomes the older.
local rotates = older_pending == 0 and ctx.now >= older_written + retention
  and ctx.record_count + admin_records > 0
if has_changes or consumed_entries[1] or new_records[1] or purged or clock_changed
  or history and history.changed or rotates and not groups[1] then
  -- A key that may not have been read: a wrong type is detected here.
  if next(new_deadlines) ~= nil then call('ZCARD', DEADLINES) end

  -- One entry: version (1, 2 or 3), now, in version 3 what is added for the time of day i8,
  -- sequence before it, since version 2 the sequence from which its numbers count, the term and its
  -- first sequence; number of runs, runs, number of SKUs, the stock of each after the batch. A
  -- deleted SKU has no record. Its id is the last sequence, by which a reader resumes. A run: its
  -- head (decide/ledger.lua), how many, their ids, their numbers as ranges (how many, and of each
  -- the first, counted from the first sequence, and how many), and their buyer fields where it
  -- names buyers.
  local event, count_values, gone_counts
  local stock_values, gone_skus = {}, {}
  if has_changes then
    local skus, parts = {},
      ctx.format == 1 and { pack('>BI6I6I2', 1, ctx.now, ctx.first_sequence, #run_list) }
      or ctx.format > 2 and day_correction ~= 0 and { pack('>BI6i8I6I6c40I6I2', 3, ctx.now, day_correction,
        base_sequence, ctx.first_sequence, state_term, term_first, #run_list) }
      or { pack('>BI6I6I6c40I6I2', 2, ctx.now, base_sequence, ctx.first_sequence, state_term, term_first,
        #run_list) }
    local n = 1
    for r = 1, #run_list do
      local run = run_list[r]
      parts[n + 1], parts[n + 2] = run.head, pack('>I2', run.n)
      n = n + 2
      for i = 1, #run do parts[n + i] = run[i] end
      n = n + #run + 1
      local ranges, buyers = run.ranges, run.buyers
      parts[n] = pack('>I2', #ranges)
      for i = 1, #ranges do parts[n + i] = pack('>I2I2', ranges[i][1], ranges[i][2]) end
      n = n + #ranges
      if buyers then
        for i = 1, #buyers do parts[n + i] = buyers[i] end
        n = n + #buyers
      end
    end
    for sku in pairs(changed_stock) do skus[#skus + 1] = sku end
    if skus[2] then table.sort(skus) end
    n = n + 1
    parts[n] = pack('>I2', #skus)
    for i = 1, #skus do
      local sku = skus[i]
      local stock, record = stocks[sku], ''
      if stock then
        -- No pending hold has an earlier deadline than the index, but for those that
        -- decide/doubt.lua may correct.
        if stock[EARLIEST] < ctx.next_due and doubt == 0 then stock[EARLIEST] = ctx.next_due end
        record = stock_bytes(stock)
      end
      if record ~= '' then
        stock_values[#stock_values + 1] = sku
        stock_values[#stock_values + 1] = record
      else
        gone_skus[#gone_skus + 1] = sku
      end
      parts[n + i] = char(#sku) .. sku .. char(#record) .. record
    end
    event = concat(parts)
    if changed_counts then
      count_values, gone_counts = {}, {}
      for i = 1, #changed_counts do
        local field = changed_counts[i]
        if counts[field] > 0 then
          count_values[#count_values + 1] = field
          count_values[#count_values + 1] = ctx.format >= FIRST_WITH_LIMIT_SINCE
            and pack(COUNT_FORMAT, since_of(field), counts[field]) or string.format('%.0f', counts[field])
        else
          gone_counts[#gone_counts + 1] = field
        end
      end
    end
  end

  local may_send = redis.acl_check_cmd
  local denied = not may_send('HSET', META) and 'HSET'
    or next(new_deadlines) ~= nil and not may_send('ZADD', DEADLINES) and 'ZADD'
    or consumed_entries[1] and not may_send('ZREM', DEADLINES) and 'ZREM'
    or (gone_skus[1] or gone_counts and gone_counts[1] or purged and purged[1])
      and not may_send('HDEL', STOCK) and 'HDEL'
    or rotates and not may_send('UNLINK', ctx.older) and 'UNLINK'
  if denied then fail(DENIED, denied) end

  if event then
    local oldest = string.format('%.0f', max(0, ctx.sequence - events_kept))
    call('XADD', EVENTS, 'MINID', '~', oldest, string.format('%.0f-0', ctx.sequence), 'b', event)
  end
  -- Before the new counts: their fields may have had one of an earlier limit.
  if purged then call_with('HDEL', BUYERS, purged) end
  if event then
    call_with('HSET', ctx.current, records)
    call_with('HSET', ctx.older, older_records)
    call_with('HSET', STOCK, stock_values)
    call_with('HDEL', STOCK, gone_skus)
    if changed_counts then
      call_with('HSET', BUYERS, count_values)
      call_with('HDEL', BUYERS, gone_counts)
    end
  elseif new_records[1] then
    -- Remembered requests that changed nothing: no event, and no number of the sequence.
    call_with('HSET', ctx.current, records)
  end
  -- Before the additions: a consumed entry may come again, byte for byte.
  call_with('ZREM', DEADLINES, consumed_entries)
  local deadlines, entries = {}, {}
  for deadline in pairs(new_deadlines) do deadlines[#deadlines + 1] = deadline end
  -- An entry that is added twice gets the later of its deadlines.
  if deadlines[2] then table.sort(deadlines) end
  for i = 1, #deadlines do
    local deadline = deadlines[i]
    local ids = new_deadlines[deadline]
    ids = ids[2] and concat(ids) or ids[1]
    for first = 1, #ids, 16 * ENTRY_IDS do
      entries[#entries + 1] = deadline
      entries[#entries + 1] = sub(ids, first, first + 16 * ENTRY_IDS - 1)
    end
  end
  call_with('ZADD', DEADLINES, entries)
  if rotates then
    call('UNLINK', ctx.older)
    call('HSET', ctx.older, PADDING_FIELD, STATE_MEMO .. rep('-', PADDING_LENGTH))
    generation = 1 - generation
    older_pending, older_written = ctx.pending, ctx.now
    admin_records = admin_records - older_admin_records
    older_admin_records = admin_records
  end
  saves = true
end
