-- Units of holds that are older than the last settlement. The sale of the same units may be among
-- the lost changes, so they leave the stock instead of returning to it. Runs in a partition that
-- was settled. No redis.call.

-- Whether the hold was made before the settlement. A pending record has the instant behind its
-- deadline.
function is_old(record)
  return is_pending(record) and unpack_bytes('>I6', record, 8) < ctx.settled_at
end

-- held -> gone, or held -> available for SKUs whose old holds return, for n reservations with a
-- change each. Returns the withdrawn lines as a line set, or nil.
function release_old(lines, amounts, n)
  local sequence, parts = next_sequence(n), {}
  for i = 1, lines.n do
    local units = n * amounts[i]
    if units > 0 then
      local stock = lines.stocks[i]
      if not stock then fail(CORRUPT, 'a reservation of an unknown SKU') end
      local withdraws = stock[FLAGS] >= WITHDRAWS
      local held, supplied = stock[HELD] - units, withdraws and stock[SUPPLIED] - units or stock[SUPPLIED]
      if held < 0 or supplied < 0 then fail(CORRUPT, 'a counter below zero') end
      stock[HELD], stock[SUPPLIED], stock[VERSION] = held, supplied, sequence
      if withdraws then
        stock.withdrawn = (stock.withdrawn or 0) + units
        parts[#parts + 1] = pack('>I4B', amounts[i], #lines.skus[i]) .. lines.skus[i]
      else
        stock[AVAILABLE] = stock[AVAILABLE] + units
      end
      changed_stock[lines.skus[i]] = true
    end
  end
  return parts[1] and NO_DEADLINE .. char(#parts) .. concat(parts) or nil
end
