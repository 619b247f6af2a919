-- Completes the reply with its head, which contract.lua describes. No redis.call.

local verdicts = ctx.verdicts or ''
reply[1] = pack('>I6I6I4I6I6I6c40B', ctx.now, reply_sequence, expired, ctx.next_due, config_revision, ctx.sequence, state_term,
  #verdicts) .. verdicts .. (ctx.fence or '')
return reply
