-- machine::abandon
local fence, owner = ARGV[4], ARGV[5]
prove_primary()
lapse(load(fence))
local run = load(fence)
if standing(run, owner) then
  free(run)
end
reply = { 'done' }
