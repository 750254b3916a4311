-- machine::forget
local lane = ARGV[4]
prove_primary()
local fences = call('SMEMBERS', base .. 'o:' .. lane)
local live = pointer(base .. 'l:' .. lane)
if live then
  fences[#fences + 1] = live
end
local dropped = 0
for _, fence in ipairs(fences) do
  lapse(load(fence))
  local run = load(fence)
  if run and not is_live(run) then
    free(run)
    dropped = dropped + 1
  end
end
reply = { "dropped", dropped }
