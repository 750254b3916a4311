-- Which memory this is, for how long, and whether somebody remembers another one. A store without one has just begun, or
-- has forgotten: it gets the one that is offered. ARGV[5] is the one that the asker trusts, if any.
if not meta[2] then
  call('HSET', KEYS[1], 'v', '1', 'e', ARGV[4], 'b', digits(now))
  meta[2] = ARGV[4]
end
prove_primary()
if ARGV[5] ~= '' and ARGV[5] ~= meta[2] then
  call('HSET', KEYS[1], 'w', '1')
  call('HSETNX', KEYS[1], 'b', digits(now))
end
local born = call('HMGET', KEYS[1], 'b', 'w')
-- A memory of an earlier version does not know since when it is.
local age = born[1] and math.max(now - tonumber(born[1]), 0) or now
reply = { meta[2], digits(age), born[2] and 'forgotten' or 'unknown' }
