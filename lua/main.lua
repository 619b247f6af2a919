-- The way of a batch: load, give back what is due, apply, write. Nothing but the order of things.

local APPLY = {
  R = reserve, C = commit, B = roll_back, G = read_reservations,
  S = set_stock, A = adjust_stock, F = configure_sku, T = read_stock,
}

if ARGV[1] == 'open' then
  return open_partition(ARGV[2], tonumber(ARGV[3]))
end

load_partition(tonumber(ARGV[1]))
first_sequence = sequence
parse_groups()
load_records()
find_due()
load_stock()
expire_due()

local reply = { now, sequence, expired, 0 }
for g = 1, #groups do
  reply[4 + g] = APPLY[groups[g].kind](groups[g])
end
reply[4] = next_due
write()
return reply
