-- The sale is final: the hold goes, and the units with it. KEYS: the hold. Returns 1, or 0 if there is none.
return redis.call('DEL', KEYS[1])
