-- Applies the batch to what was loaded: gives back what is due, and then does the groups in their order.

for i = 1, #due do
  local record = known[due[i]]
  if is_pending(record) then -- not twice, should two entries name it
    settle(due[i], 'E')
    ctx.expired = ctx.expired + 1
  end
end

advance(0)
reply = { ctx.now, ctx.sequence, ctx.expired, 0, ctx.config_revision }
for g = 1, #groups do
  local group = groups[g]
  reply[5 + g] = apply[group.kind](group)
  advance(0)
end
reply[4] = ctx.next_due
