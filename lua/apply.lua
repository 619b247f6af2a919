-- Applies the batch to what was loaded: gives back what is due, and then does the groups in their order.

local i = 1
while i <= #due do
  local record, last = known[due[i]], i
  if alike[record] then
    last = settle_stretch(due, nil, i, 'E')
    ctx.expired = ctx.expired + last - i + 1
  elseif is_pending(record) then -- not twice, should two entries name it
    settle_extended(due[i], 'E')
    ctx.expired = ctx.expired + 1
  end
  i = last + 1
end

reply = { ctx.now, ctx.sequence, ctx.expired, 0, ctx.config_revision }
for g = 1, #groups do
  local group = groups[g]
  reply[5 + g] = apply[group.kind](group)
end
reply[4] = ctx.next_due
