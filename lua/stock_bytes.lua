-- The bytes of a stock record. A pure function; runs where stock may be written or answered. The format is in records.lua.

function stock_bytes(stock)
  local bytes = pack('>I6I6I6I6I6B', stock[1], stock[2], stock[3], stock[4], stock[5], stock[6])
  local rules = stock.rules
  if rules then
    bytes = bytes .. pack('>I6I4I6I4I6I6', rules[1], rules[2], rules[3], rules[4], rules[5], rules[6])
  end
  if stock.withdrawn then bytes = bytes .. pack('>I6', stock.withdrawn) end
  return bytes
end
