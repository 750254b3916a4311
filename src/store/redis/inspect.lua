-- machine::inspect
local lane = base .. 'l:' .. ARGV[4]
prove_primary()
lapse(look(lane))
local run = look(lane)
if run == nil then
  reply = { 'free' }
elseif run and run.state == 'f' then
  reply = { 'flight', run.fence, run.ends - now }
elseif run and run.state == 'q' then
  reply = { 'doubt', run.fence, math.max(now - run.since, 0), math.max(run.ends - now, 0) }
else
  reply = { 'unreadable' }
end
