-- The end of the script by an error, and the lines of a line set. No redis.call.

-- Ends the script with this error. Nothing was written before.
function fail(code, message)
  error(error_reply(code .. ' ' .. message))
end

-- Decodes a line set: skus[i], quantities[i], n. Refuses again what the server refuses.
function lines_from(line_set)
  if #line_set < 7 then fail(MALFORMED, 'shape') end
  local n, at = byte(line_set, 7), 8
  if n < 1 or n > MAX_LINES then fail(MALFORMED, 'lines') end
  local skus, quantities, index = {}, {}, {}
  for i = 1, n do
    if at + 4 > #line_set then fail(MALFORMED, 'line') end
    local quantity, length = unpack_bytes('>I4B', line_set, at)
    local sku = sub(line_set, at + 5, at + 4 + length)
    if quantity < 1 or quantity > MAX_QUANTITY then fail(MALFORMED, 'quantity') end
    if length == 0 or #sku ~= length or index[sku] then fail(MALFORMED, 'sku') end
    skus[i], quantities[i], index[sku] = sku, quantity, i
    at = at + 5 + length
  end
  if at ~= #line_set + 1 then fail(MALFORMED, 'shape') end
  return { n = n, skus = skus, quantities = quantities, index = index, stocks = {} }
end
