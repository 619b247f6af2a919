-- The bytes of the records that change in place: the state of the partition, and stock. Pure functions; runs where one of
-- them may be written or answered. The formats are in records.lua.

function state_bytes()
  if ctx.format == 1 then
    return pack(STATE_FORMAT_1, ctx.epoch, ctx.sequence, ctx.now, ctx.offset, ctx.generation, ctx.next_due,
      ctx.pending, ctx.older_pending, ctx.older_written)
  end
  local flags = (ctx.gated and GATED or 0) + (ctx.emptied and EMPTIED or 0) + (ctx.unreported and UNREPORTED or 0)
  local is_other_run = ctx.run ~= ctx.term
  if is_other_run then flags = flags + OTHER_RUN end
  local bytes = pack(STATE_FORMAT, STATE_VERSION, ctx.epoch, ctx.term, ctx.sequence, ctx.now, ctx.offset, ctx.generation,
    ctx.next_due, ctx.pending, ctx.older_pending, ctx.older_written, ctx.term_first, flags, ctx.settled_at or 0)
  return is_other_run and bytes .. ctx.run or bytes
end

function stock_bytes(stock)
  local bytes = pack('>I6I6I6I6I6B', stock[1], stock[2], stock[3], stock[4], stock[5], stock[6])
  local rules = stock.rules
  if rules then
    bytes = bytes .. pack('>I6I4I6I4I6I6', rules[1], rules[2], rules[3], rules[4], rules[5], rules[6])
  end
  if stock.withdrawn then bytes = bytes .. pack('>I6', stock.withdrawn) end
  return bytes
end
