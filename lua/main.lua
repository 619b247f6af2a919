-- The way of a batch: load, give back what is due, apply, write. Nothing but the order of things.

local APPLY = {
  R = reserve, r = reserve, C = commit, L = commit_late, B = roll_back,
  c = commit_lines, b = roll_back_lines, E = extend, G = read_reservations,
  S = set_stock, A = adjust_stock, F = configure_sku, D = delete_sku, T = read_stock,
}

if ARGV[1] == 'open' then
  return open_partition(ARGV[2], tonumber(ARGV[3]))
elseif ARGV[1] == 'configure' then
  return configure_partition(tonumber(ARGV[2]), ARGV[3])
end

load_partition(tonumber(ARGV[1]))
first_sequence = sequence
parse_groups()
load_records()
find_due()
load_stock()
load_counts()
expire_due()

local reply = { now, sequence, expired, 0, config_revision }
for g = 1, #groups do
  reply[5 + g] = APPLY[groups[g].kind](groups[g])
end
reply[4] = next_due
write()
return reply
