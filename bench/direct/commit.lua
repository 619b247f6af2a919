-- The sale is final: removes the hold and its units. KEYS: the hold. Returns 1, or 0 if there is none.
return redis.call('DEL', KEYS[1])
