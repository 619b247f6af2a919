-- The steps of the deletion of a partition behind its closing (decide/close.lua). Runs for the call
-- 'delete', and ends it. Reads and writes META, and unlinks the other keys, one a call, so no call
-- is long.
--
-- Each step names its deletion by a token. A call that continues the deletion of another call takes
-- it over first. Then late steps of the other call change nothing.
--
-- Reply: 0 no deletion is under way here, 1 done, 2 another call has taken it over; for 'take': the
-- record of the deletion.

local step, token = ARGV[2], ARGV[3] or ''
local meta = call('HMGET', META, 'deleting', 'closed_config', 'closed_state', 'deleted')
local deleting = meta[1]
reply = 0
if deleting then
  if byte(deleting, 1) > DELETION_VERSION then fail(NEWER, 'deletion') end
  local _, owner, request, is_final, epoch, term, sequence = unpack_bytes(DELETING_FORMAT, deleting)
  if #token ~= 16 then fail(MALFORMED, 'token') end
  for _, command in pairs({ 'HSET', 'HDEL', 'UNLINK' }) do
    if not redis.acl_check_cmd(command, META) then fail(DENIED, command) end
  end
  if step == 'take' then
    reply = pack(DELETING_FORMAT, DELETION_VERSION, token, request, is_final, epoch, term, sequence)
    call('HSET', META, 'deleting', reply)
  elseif owner ~= token then
    reply = 2
  elseif step == 'decide' then
    -- Decided: it is not given up any more. For the first partition, when all are closed.
    call('HSET', META, 'deleting',
      pack(DELETING_FORMAT, DELETION_VERSION, token, request, 1, epoch, term, sequence))
    reply = 1
  elseif step == 'reopen' and is_final == 0 then
    call('HSET', META, 'config', meta[2], 'state', meta[3])
    call('HDEL', META, 'deleting', 'closed_config', 'closed_state')
    reply = 1
  elseif step == 'unlink' and KEYS[tonumber(ARGV[4])] and tonumber(ARGV[4]) > 1 then
    call('UNLINK', KEYS[tonumber(ARGV[4])])
    reply = 1
  elseif step == 'bury' then
    if call('EXISTS', STOCK, RECORDS_A, RECORDS_B, DEADLINES, EVENTS, BUYERS) > 0 then
      fail(MALFORMED, 'step')
    end
    local before = meta[4] and sub(meta[4], 3) or ''
    before = sub(before, -(MAX_DELETED - 1) * DELETED_LENGTH) -- of the newest
    local record = pack('>I6c40I6c16', epoch, term, sequence, request)
    call('HSET', META, 'deleted', char(DELETION_VERSION, #before / DELETED_LENGTH + 1) .. before .. record)
    call('HDEL', META, 'deleting', 'closed_config', 'closed_state', 'terms', 'fence', 'doubted', 'purge')
    reply = 1
  else
    fail(MALFORMED, 'step')
  end
end
