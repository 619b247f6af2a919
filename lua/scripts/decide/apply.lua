-- Applies the batch to the loaded tables: reports a loss, gives due holds back, then applies the
-- groups in their order. Reads the replication id of the store where something changed.

if history and history.lost then
  next_sequence(1)
  local lost = history.lost
  append_event(run_of(EVENT_HISTORY_LOST, NO_STATE, NO_DEADLINE, false,
    pack('>I6c40I6I6', lost[1], lost[2], lost[3], lost[4]), ''), NO_ORIGIN, 1)
  ctx.unreported = false
end

local i = 1
while i <= #due do
  local record, last = records_by_id[due[i]], i
  if plain_info[record] then
    last = resolve_run(due, nil, i, STATE_EXPIRED)
    expired = expired + last - i + 1
  elseif is_pending(record) then -- not twice, should two entries name it
    resolve_extended(due[i], STATE_EXPIRED)
    expired = expired + 1
  end
  i = last + 1
end

reply, reply_sequence = { '' }, ctx.sequence
for g = 1, #groups do
  local group = groups[g]
  reply[1 + g] = apply[group.kind](group)
end

-- The first change under another replication id begins a new term (decide/term.lua). The id is read
-- once a second, and where the caller cannot confirm that the process is still the same.
has_changes, replid = ctx.sequence > ctx.first_sequence, state_run
if has_changes and ctx.format > 1
  and (not is_same_run or ctx.now - ctx.now % 1000 ~= clock_mark - clock_mark % 1000) then
  local info = call('INFO', 'replication')
  local _, at = find(info, 'master_replid:', 1, true)
  if not at then fail(CORRUPT, 'the replication id of the store') end
  replid = sub(info, at + 1, at + 40)
end
