-- A library inside each service: takes units if there are enough, and records the hold with a time
-- to live. KEYS: stock of the SKU, the hold. ARGV: quantity, ttl in seconds. Returns 1, or 0 if there are
-- too few.
local quantity = tonumber(ARGV[1])
local available = tonumber(redis.call('GET', KEYS[1]) or '0')
if available < quantity then
  return 0
end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('SET', KEYS[2], quantity, 'EX', ARGV[2])
return 1
