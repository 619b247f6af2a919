-- Decides whether what the caller knows is part of the partition's history. What is not was lost: the store came
-- back older or empty. Runs behind terms.lua where the usual comparison (partition.lua) does not settle it, and
-- while the partition is fenced. Works on loaded tables; no redis.call.
--
-- The history consists of terms. A term is named by the replication id of the store that wrote it, which is
-- another one after every restart and every promotion; the next term begins at the next sequence. A claim names
-- a sequence and the term that wrote it, so it is part of the history exactly if the table has that sequence
-- in that term.

local MAX_CLAIMS = 64 -- lost changes that are kept, a term each
local knowledge, terms, settled, claims = ARGV[2], history.terms, history.settled, history.claims

-- The place of this term in a list of lost changes.
local function place_in(list, epoch, term)
  for i = 1, #list do
    if list[i][1] == epoch and list[i][2] == term then return i end
  end
end

-- Adds a lost change to a list, or raises the one of the same term. Returns whether the list is another now. A change
-- that finds no room is lost all the same, and is noticed again by the next caller who knows it.
local function note_lost(list, lost)
  local i = place_in(list, lost[1], lost[2])
  if i and list[i][3] >= lost[3] then return false end
  if not i and #list >= MAX_CLAIMS then return false end
  list[i or #list + 1] = lost
  return true
end

-- 'k', 's', 'u' or 'l' (contract.lua), and the last sequence of that term that is still here.
local function verdict_of(epoch, term, sequence)
  local verdict, kept = 'l', 0
  if epoch == state_epoch then
    local is_known = false
    for i = 1, #terms do
      if terms[i][1] == term then
        is_known = true
        kept = terms[i + 1] and terms[i + 1][2] - 1 or ctx.sequence
        if sequence >= terms[i][2] and sequence <= kept then return 'k', kept end
      end
    end
    -- Terms that are older than the table may have had any sequence below it.
    local oldest = terms[1] and terms[1][2] or ctx.sequence + 1
    if not is_known and sequence < oldest then verdict = 'u' end
  end
  local i = verdict == 'l' and place_in(settled, epoch, term)
  if i and settled[i][3] >= sequence then verdict = 's' end
  return verdict, kept
end

local gates, verdicts, has_doubt = string.lower(sub(knowledge, 1, 1)) == 'g', {}, false
for at = 2, #knowledge, CLAIM_LENGTH do
  local epoch, term, sequence = unpack_bytes('>I6c40I6', knowledge, at)
  local verdict, kept = verdict_of(epoch, term, sequence)
  verdicts[#verdicts + 1] = verdict
  has_doubt = has_doubt or verdict ~= 'k'
  local lost = { epoch, term, sequence, kept }
  if verdict == 'l' then
    -- A store that goes on in `fast` takes the loss as settled.
    local list = (gates or ctx.gated) and claims or settled
    if note_lost(list, lost) then
      history.changed = true
      if not ctx.gated then history.lost, ctx.unreported = lost, true end
    end
    if (gates or ctx.gated) and not ctx.gated then
      ctx.gated, history.fenced_at, history.changed, ctx.unreported = true, ctx.now, true, true
      history.lost = history.lost or lost
    end
    -- The same process wrote on: what it writes from now on is another term.
    if history.changed and epoch == state_epoch and term == state_term then state_run = '' end
  end
end
if has_doubt then ctx.verdicts = concat(verdicts) end
if ctx.gated or ctx.emptied then
  ctx.missing = 'g'
  local most = { 0, NO_TERM, 0, 0 }
  for i = 1, #claims do
    if claims[i][3] >= most[3] then most = claims[i] end
  end
  ctx.fence = pack('>BI6I6c40I6I6', (ctx.gated and GATED or 0) + (ctx.emptied and EMPTIED or 0), history.fenced_at, most[1],
    most[2], most[3], most[4])
end
-- A loss that the opening of a partition noticed, where there was no batch to report it.
if ctx.unreported and not history.lost then
  history.lost, history.changed = claims[#claims] or { state_epoch, NO_TERM, 0, 0 }, true
end
