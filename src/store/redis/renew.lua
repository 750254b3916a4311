-- machine::renew
local fence, owner, lease = ARGV[4], ARGV[5], tonumber(ARGV[6])
lapse(load(fence))
local run = load(fence)
prove_primary()
if standing(run, owner) == 'f' then
  set_state(run, 'f', now, now + lease)
  reply = { 'held' }
else
  reply = { 'lost' }
end
