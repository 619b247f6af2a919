-- The way of a batch: load, give back what is due, apply, write. Nothing but the order of things.

if ARGV[1] == 'open' then
  return partition.open_partition(ARGV[2], tonumber(ARGV[3]))
elseif ARGV[1] == 'configure' then
  return partition.configure_partition(tonumber(ARGV[2]), ARGV[3])
end

-- Which file applies a kind of operation.
local FILE = {
  R = reserve, r = reserve, C = resolve, B = resolve, G = resolve,
  L = parts, c = parts, b = parts, E = parts,
  S = stock, A = stock, F = stock, D = stock, T = stock,
}

partition.load_partition(tonumber(ARGV[1]))
ctx.first_sequence = ctx.sequence
batch.parse_groups()
batch.load_records()
expiry.find_due()
batch.load_stock()
buyers.load_counts()
expiry.expire_due()

local groups = batch.groups
local reply = { ctx.now, ctx.sequence, ctx.expired, 0, ctx.config_revision }
for g = 1, #groups do
  local kind = groups[g].kind
  local file = FILE[kind]
  if not file.apply then file.load() end
  reply[5 + g] = file.apply[kind](groups[g])
end
reply[4] = ctx.next_due
write.batch()
return reply
