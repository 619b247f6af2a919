-- Closes the partition: the first step of its deletion (write/deletion.lua has the others). The
-- batch contains nothing else. write/closed.lua ends the step, behind write/state.lua, and so puts
-- the newest state away. No write here.
--
-- A closed partition has neither a config nor a state, so every batch is refused as for no
-- partition. META keeps both. They come back if another partition has holds and the deletion is
-- given up.

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
