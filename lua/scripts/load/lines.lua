-- The bytes of every record, big-endian; the same formats are in src/records.rs.
-- Pure functions; no redis.call. Formats as struct.pack reads them, lengths in bytes:
--   state   version B (3), epoch I6, term 40, sequence I6, clock mark I6, clock offset i8, number of the
--           generation B, next due I6 (0: none), pending I6, older pending I6, older written I6
--           (load/partition.lua), first sequence of the term I6, flags B, settled at I6, remembered requests of
--           administrators I6, of them in the older generation I6                             = 117
--           and where flag 8 is set: the replication id under which the term began, or ''
--           flags: 1 gated, 2 emptied, 4 a loss has no event yet, 8 see above, 32 counts of buyers are being dropped (load/ended_counts.lua)
--           In format 2: version B (2) and the same up to the time of the settlement            = 105
--           In format 1: epoch I6, sequence I6, mark I6, offset i8, generation B, next due I6, pending I6,
--           older pending I6, older written I6                                                = 51
--   terms   version B (1), number B, and for each: term 40, first sequence I6; then the epochs of which lost changes
--           were settled: number B, and for each: epoch I6, the last sequence that is settled I6
--   fence   version B (1), noticed at I6, key of the settlement 16, the lost changes that were not settled: number B,
--           and for each: epoch I6, term 40, sequence I6, kept sequence I6
--   deleting  version B (1), token 16, digest of the request 16, final B (0, 1), epoch I6, term 40, sequence of the deletion I6.
--           Beside it `closed_config` and `closed_state`: what the partition had when it was closed (decide/close.lua)
--   deleted version B (1), number B, and for each deletion, the newest last: epoch I6, term 40, sequence I6, digest of the
--           request 16. It stays when the partition is made again
--   config  version B (1, 2 or 3), revision I6, retention I6, default ttl I6, longest ttl I6, longest life I6,
--           records I6, SKUs I6, events I6, partitions I2, since version 2 format B, since version 3 flags B (1: paused,
--           2: ids are sealed), secret                                                = 51 (+ 1 or 2) + 32
--   stock   available I6, held I6, sold I6, supplied I6, version I6, flags B                  = 31
--           and where flag 2 is set: rules revision I6, rules                            = 31 + 32
--           and where flag 64 is set, in format 5: the instant on the partition's clock since which the limit per buyer counts I6
--           and where flag 4 is set: withdrawn I6; flag 8: units of old holds are withdrawn
--           flag 32, in format 5: the sale is paused
--           and where flag 16 is set, in format 4 and while units are held: earliest deadline I6, a lower bound of the
--           deadlines of its pending holds. Without it the bound is not known
--   rules   most units I4, longest ttl I6, buyer's limit I4, opens I6, closes I6 (0: none each), and
--           before them in the args of 'F': flags B
--   shape   ttl I6, lines B, then for each: quantity I4, SKU length B, SKU
--           The ttl in the record of a reservation that was made in format 3 or later is the one in force then: named, the
--           default, or a SKU's shorter limit. In an older format: as it was asked for, 0 where it was unset
--   buyer   length B, buyer
--   record  of a pending reservation: P, deadline I6, created I6, buyer, shape; of a resolved one: its
--           state, resolved I6, and behind that the record that it had
--   extended record: its states in lower case, and behind it: lines that count for the buyer I4 (a
--           bit each), origin 16 (zeros: none), and for each line: sold I4, released I4. In format 3 and later 128
--           is added to the letters, and behind the origin stand: digest of the request 16 (decide/extended_records.lua), and of an
--           expired reservation the purchase that came of it 16 (zeros: none). In format 5 and later a reservation that
--           was extended, or committed or rolled back in part, has its letters in upper case with 128 added, and at the
--           end its changes: their number B, for each half a digest of its identity 8 and half a digest of what it is 8,
--           and their number B once more
--   count   of a buyer: in format 5 the instant since which the limit counts I6, units I6; in an older format, and so of a limit
--           that was set in one, the units in decimal digits. A count of another instant than its SKU's is none
--   memo    'M', at I6, kind, args: a remembered request that is no reservation; one of each generation is
--           its weight (write/open.lua)
-- The state of a reservation is a letter: P pending, C committed, R rolled back, E expired. A record is
-- extended only where it has something to say (decide/extended_records.lua): a plain sale costs no byte for the rules
-- of others.
--
-- The version of each kind: state, terms, fence, config and events (write/batch.lua) begin with it; a stock record
-- has it in its flags, where bits 128 and above belong to newer versions; a reservation or remembered request has it in its
-- letter, of which a newer version takes others; an entry of the deadline index has a length that is a multiple of 16. A script that meets a newer
-- version refuses before it writes.

-- Ends the script with this error. Nothing was written before.
function fail(code, message)
  error(error_reply(code .. ' ' .. message))
end

-- The lines of a shape: skus[i], quantities[i], n. Refuses what the server should have refused.
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
