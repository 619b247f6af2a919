-- The end of decide/close.lua: puts config and state away. Runs behind write/state.lua. Reads and
-- writes META.

local meta = call('HMGET', META, 'config', 'state')
-- The deletion is the change behind the last one. A store that comes back with the partition has
-- lost it.
local deleting = pack(DELETING_FORMAT, DELETION_VERSION, sub(ctx.closes, 1, 16), sub(ctx.closes, 17), 0,
  state_epoch, state_term, ctx.sequence + 1)
call('HSET', META, 'deleting', deleting, 'closed_config', meta[1], 'closed_state', meta[2])
call('HDEL', META, 'config', 'state')
