-- Decides whether the caller's claims are part of the partition's history. A change that is not was
-- lost: the store came back older or empty. Runs behind load/terms.lua where the usual comparison
-- (load/partition.lua) does not decide, and while the partition is fenced. Works on loaded tables;
-- no redis.call.
--
-- The history consists of terms. A term is named by the replication id of the store that wrote it,
-- which changes with every restart and every promotion. The next term begins at the next sequence.
-- A claim names a sequence and the term that wrote it. So it is part of the history exactly if the
-- table has that sequence in that term.

local MAX_CLAIMS = 64 -- lost changes that are kept, a term each
local knowledge, terms, claims = ARGV[2], history.terms, history.claims

-- Adds a lost change, or replaces an earlier one of the same term. Returns whether it is new. If
-- there is no room the change is not stored; the next caller that claims it reports it again.
local function note_lost(lost)
  for i = 1, #claims do
    if claims[i][1] == lost[1] and claims[i][2] == lost[2] then
      if claims[i][3] >= lost[3] then return false end
      claims[i] = lost
      return true
    end
  end
  if #claims >= MAX_CLAIMS then return false end
  claims[#claims + 1] = lost
  return true
end

-- The verdict (contract.lua), and the last sequence of that term that is still here.
local function verdict_of(epoch, term, sequence)
  local verdict, kept = VERDICT_LOST, 0
  if epoch == state_epoch then
    local is_known = false
    for i = 1, #terms do
      if terms[i][1] == term then
        is_known = true
        kept = terms[i + 1] and terms[i + 1][2] - 1 or ctx.sequence
        if sequence >= terms[i][2] and sequence <= kept then return VERDICT_PART, kept end
      end
    end
    -- Terms that are older than the table may have had any sequence below it. But while the state
    -- is still that of format 1, no change was made in a term.
    local oldest = terms[1] and terms[1][2] or ctx.sequence + 1
    if not is_known and sequence < oldest and (ctx.has_terms or term == NO_TERM) then
      verdict = VERDICT_UNPROVEN
    end
  end
  for i = 1, verdict == VERDICT_LOST and #history.settled or 0 do
    if history.settled[i][1] == epoch and history.settled[i][2] >= sequence then verdict = VERDICT_SETTLED end
  end
  return verdict, kept
end

local gates, verdicts, has_doubt = string.lower(sub(knowledge, 1, 1)) == GATES, {}, false
for at = 2, #knowledge - CLAIM_LENGTH + 1, CLAIM_LENGTH do
  local epoch, term, sequence = unpack_bytes('>I6c40I6', knowledge, at)
  local verdict, kept = verdict_of(epoch, term, sequence)
  verdicts[#verdicts + 1] = verdict
  has_doubt = has_doubt or verdict ~= VERDICT_PART
  if verdict == VERDICT_LOST then
    local lost = { epoch, term, sequence, kept }
    if not gates and not ctx.gated then
      -- A store that continues in `fast` takes the loss as settled.
      settle_up_to(epoch, sequence)
      history.lost, history.changed, ctx.unreported = lost, true, true
    else
      if note_lost(lost) then
        -- The figures of a settlement that has begun do not include it.
        history.settling, history.changed = NO_ORIGIN, true
      end
      if not ctx.gated then
        ctx.gated, history.fenced_at, history.changed, ctx.unreported = true, ctx.now, true, true
        history.lost = lost
      end
    end
    -- The same process continues: its next changes are another term.
    if history.changed and epoch == state_epoch and term == state_term then state_run = '' end
  end
end
if has_doubt then ctx.verdicts = concat(verdicts) end
if ctx.gated or ctx.emptied then
  ctx.missing = FENCED
  local most, names = { 0, NO_TERM, 0, 0 }, {}
  for i = 1, #claims do
    if claims[i][3] >= most[3] then most = claims[i] end
    names[i] = pack('>I6c40I6', claims[i][1], claims[i][2], claims[i][3])
  end
  -- The id changes as soon as another loss is known.
  local id = names[1] and sub(redis.sha1hex(pack('>I6', history.fenced_at) .. concat(names)), 1, 16)
    or NO_FENCE
  ctx.fence = pack('>BI6I6c40I6I6c16', (ctx.gated and GATED or 0) + (ctx.emptied and EMPTIED or 0),
    history.fenced_at, most[1], most[2], most[3], most[4], id)
end
-- A loss that the opening of a partition noticed, where no batch could report it.
if ctx.unreported and not history.lost then
  history.lost, history.changed = claims[#claims] or { state_epoch, NO_TERM, 0, 0 }, true
end
