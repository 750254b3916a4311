-- machine::resolve
local lane, resolution, life = base .. 'l:' .. ARGV[4], ARGV[5], tonumber(ARGV[6])
prove_primary()
lapse(look(lane))
local run = look(lane)
if run == nil then
  reply = { 'nothing' }
elseif run == false or run.state ~= 'q' then
  reply = { 'running' }
else
  if resolution == 'done' then
    keep(run, 'r', now + life, nil)
  else
    free(run)
  end
  reply = { 'changed' }
end
