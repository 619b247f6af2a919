-- Closes the partition: the first step of its deletion (write/deletion.lua has the others). Runs where the batch is that step. The
-- end of the step is write/closed.lua, behind write/state.lua, so that the state that is put away is the newest. No write here.
--
-- A closed partition has neither a config nor a state, so that every batch is refused as of no partition. Both are put
-- away in META, and come back where the deletion is given up because another partition has holds.

function apply.close_partition(group)
  if #groups > 1 or #group.payload ~= 33 then fail(MALFORMED, 'closing') end
  if records_by_id[group.ids[1]] then return { ID_REUSED, '' } end
  if ctx.gated then return { FENCED, '' } end
  if ctx.pending > 0 then
    if ctx.backlog or ctx.is_doubtful then return { AGAIN, '' } end
    return { HAS_HOLDS, '', pack('>I6', ctx.pending) }
  end
  if byte(group.payload) == 0 then return { VALUE, '' } end
  if not redis.acl_check_cmd('HSET', META) then fail(DENIED, 'HSET') end
  if not redis.acl_check_cmd('HDEL', META) then fail(DENIED, 'HDEL') end
  ctx.closes = sub(group.payload, 2)
  return { VALUE, '' }
end
