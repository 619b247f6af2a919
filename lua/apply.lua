-- Applies the batch to what was loaded: gives back what is due, and then does the groups in their order.

-- Resolved at the deadline, not at the moment that somebody noticed.
for i = 1, #due do
  local record = known[due[i]]
  if is_pending(record) then -- not twice, should two entries name it
    settle(due[i], 'E', nil, deadline_of(record))
    ctx.expired = ctx.expired + 1
  end
end

reply = { ctx.now, ctx.sequence, ctx.expired, 0, ctx.config_revision }
for g = 1, #groups do
  local group = groups[g]
  reply[5 + g] = apply[group.kind](group)
end
reply[4] = ctx.next_due
