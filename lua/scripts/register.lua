-- Adds a name to the list of namespaces, unless the list is full. A separate script, because the
-- list belongs to no partition.
--
-- KEYS: the list. ARGV: the name, and the most names. Reply: 1 the name is in the list, 0 the list
-- is full.

if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
return 1
