-- The way of a batch: load, give back what is due, apply, write. Nothing but the order of things.

local load_partition, open_partition, configure_partition =
  partition.load_partition, partition.open_partition, partition.configure_partition
local groups, parse_groups, load_records, load_stock =
  batch.groups, batch.parse_groups, batch.load_records, batch.load_stock
local load_counts = buyers.load_counts
local find_due, expire_due = expiry.find_due, expiry.expire_due
local reserve_group = reserve.group
local commit, roll_back, commit_late, commit_lines, roll_back_lines, extend, read_reservations =
  resolve.commit, resolve.roll_back, resolve.commit_late, resolve.commit_lines, resolve.roll_back_lines,
  resolve.extend, resolve.read_reservations
local set_stock, adjust_stock, configure_sku, delete_sku, read_stock =
  stock.set_stock, stock.adjust_stock, stock.configure_sku, stock.delete_sku, stock.read_stock


local APPLY = {
  R = reserve_group, r = reserve_group, C = commit, L = commit_late, B = roll_back,
  c = commit_lines, b = roll_back_lines, E = extend, G = read_reservations,
  S = set_stock, A = adjust_stock, F = configure_sku, D = delete_sku, T = read_stock,
}

if ARGV[1] == 'open' then
  return open_partition(ARGV[2], tonumber(ARGV[3]))
elseif ARGV[1] == 'configure' then
  return configure_partition(tonumber(ARGV[2]), ARGV[3])
end

load_partition(tonumber(ARGV[1]))
ctx.first_sequence = ctx.sequence
parse_groups()
load_records()
find_due()
load_stock()
load_counts()
expire_due()

local reply = { ctx.now, ctx.sequence, ctx.expired, 0, ctx.config_revision }
for g = 1, #groups do
  reply[5 + g] = APPLY[groups[g].kind](groups[g])
end
reply[4] = ctx.next_due
write.batch()
return reply
