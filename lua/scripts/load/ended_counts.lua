-- Finds counts of buyers whose limit has ended: in a bounded number of fields of BUYERS, and once
-- per PURGE_PAUSE at most. Runs while the state has its flag and no loss gates the partition. Reads
-- META and BUYERS. load/stock.lua loads the stock of the SKUs behind it, then
-- load/purged_counts.lua decides. META keeps the position: version B (1), not before I6, cursor of
-- HSCAN.

local PURGE_COUNT = 128 -- fields of BUYERS that one call reads, more or less
local PURGE_PAUSE = 20 -- ms

local page
ctx.purge_at = ctx.now
local mark = call('HMGET', META, 'purge')[1] or ''
local cursor = '0'
if #mark > 7 then
  if byte(mark) > 1 then fail(NEWER, 'purge') end
  ctx.purge_at, cursor = unpack_bytes('>I6', mark, 2), sub(mark, 8)
end
if not redis.acl_check_cmd('HSCAN', BUYERS) then
  ctx.purge_at = nil -- the check of permissions reports it
elseif ctx.purge_at <= ctx.now then
  local answer = call('HSCAN', BUYERS, cursor, 'COUNT', PURGE_COUNT)
  page = answer[2]
  for i = 1, #page, 2 do
    local sku = sub(page[i], 1, (find(page[i], '\0', 1, true) or 1) - 1)
    stocks[sku] = stocks[sku] or false
  end
  ctx.purging = answer[1] ~= '0' or nil
  ctx.purge_at = ctx.now + PURGE_PAUSE
  ctx.purge = ctx.purging and '\1' .. pack('>I6', ctx.purge_at) .. answer[1] or ''
end
