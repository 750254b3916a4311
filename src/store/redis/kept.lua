-- machine::kept
local SHOWN_MAX = 64
local lane = ARGV[4]
prove_primary()
local fences = call('SMEMBERS', base .. 'o:' .. lane)
local live = pointer(base .. 'l:' .. lane)
if live then
  fences[#fences + 1] = live
end
table.sort(fences, function(one, other) return tonumber(one) > tonumber(other) end)
local told, count = {}, 0
local function tell(word)
  told[#told + 1] = word
end
for _, fence in ipairs(fences) do
  lapse(load(fence))
  local run = load(fence)
  local head = run and run.state == 'd' and call('GETRANGE', base .. 'b:' .. fence, 1, 2)
  if run and count < SHOWN_MAX and (run.state == 'r' or (head and #head == 2)) then
    count = count + 1
    tell(fence)
    if head then
      tell('answer')
      tell(digits(string.byte(head, 1) * 256 + string.byte(head, 2)))
      tell(run.seen and '0' or '1')
    else
      tell('resolved')
    end
    tell(digits(math.max(now - run.since, 0)))
    tell(digits(math.max(run.ends - now, 0)))
  end
end
reply = { 'kept', digits(count), unpack(told) }
