-- machine::claim
local owner, lanes, fingerprint, scope = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local body, generations, may, lease, hold = ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])

local named = {}
if fingerprint ~= '' then named[1] = base .. 'f:' .. fingerprint end
if scope ~= '' then named[#named + 1] = base .. 's:' .. scope end
each(lanes, function(lane) named[#named + 1] = base .. 'l:' .. lane end)

local function is_readable()
  for _, place in ipairs(named) do
    if look(place) == false then return false end
  end
  local readable = true
  each(generations, function(identity)
    if pointer(base .. 'g:' .. identity) == false then readable = false end
  end)
  return readable
end

local function led_already()
  local run = look(base .. 'l:' .. string.sub(lanes, 1, 32))
  if run and run.state == 'f' and run.owner == owner and run.lanes == lanes and run.fingerprint == fingerprint then
    return run
  end
end

local function replay(run)
  local record = call('GET', base .. 'b:' .. run.fence)
  if not record then return { 'busy' } end
  return { 'replay', run.ends - now, record }
end

local function in_doubt(since, ends)
  return { 'doubt', math.max(now - since, 0), math.max(ends - now, 0) }
end

local function fingerprint_says()
  if fingerprint == '' then return end
  local run = look(base .. 'f:' .. fingerprint)
  if run == nil then return end
  if run == false then return { 'busy' } end
  local other_body = run.body ~= '' and body ~= '' and run.body ~= body
  if run.state == 'f' then
    if other_body then return { 'mismatch' } end
    waits_at = base .. 'wf:' .. fingerprint
    if may == 'any' or (may ~= 'none' and tonumber(may) < tonumber(run.fence)) then
      return { 'follow', run.fence }
    end
    return { 'queue', 'f', fingerprint, run.fence }
  end
  if run.state == 'q' then return in_doubt(run.since, run.ends) end
  if is_stale(generations, run.fence) then return end
  if run.state == 'r' then return { 'resolved', run.ends, run.ends - now } end
  if other_body then return { 'mismatch' } end
  return replay(run)
end

-- A scope points to ended runs only; that a flight of the same order runs is the lane's business.
local function scope_says()
  if scope == '' then return end
  local run = look(base .. 's:' .. scope)
  if run == nil then return end
  if run == false then return { 'busy' } end
  if is_stale(generations, run.fence) then return end
  if run.state == 'd' then return replay(run) end
  if run.state == 'r' then return { 'resolved', run.ends, run.ends - now } end
end

-- A flight comes before a doubt: it ends sooner, and the doubt is told when its turn has come.
local function lanes_say()
  local longest
  for at = 1, #lanes, 32 do
    local lane = string.sub(lanes, at, at + 31)
    local run = look(base .. 'l:' .. lane)
    if run == false then return { 'busy' } end
    if run then
      if run.state == 'f' then
        waits_at = base .. 'wl:' .. lane
        return { 'queue', 'l', lane, run.fence }
      end
      if run.state ~= 'q' then return { 'busy' } end
      if not longest or longest.ends < run.ends then longest = run end
    end
  end
  return longest and in_doubt(longest.since, longest.ends)
end

local function lead()
  -- The first write: it fails where there is no memory left.
  set_last(math.max(last + 1, seen_fence + 1, clock))
  local fence = digits(last)
  if fingerprint ~= '' then
    -- What still stands at the fingerprint is a record of an older generation.
    local stale = look(base .. 'f:' .. fingerprint)
    if stale then free(stale) end
  end
  local run = {
    fence = fence, owner = owner, lanes = lanes, fingerprint = fingerprint, scope = scope, body = body,
    generations = generations, hold = hold, state = 'f', since = now, ends = now + lease,
  }
  insert_run(run)
  local at = end_of(run)
  call('PEXPIREAT', base .. 'r:' .. fence, at)
  each(lanes, function(lane)
    point(base .. 'l:' .. lane, fence, at)
    if fingerprint ~= '' then nudges[#nudges + 1] = { 'S', lane, fingerprint } end
  end)
  if fingerprint ~= '' then point(base .. 'f:' .. fingerprint, fence, at) end
  return { 'lead', fence }
end

-- Whoever was woken for a lane and does not take it passes the turn on.
local function pass_on()
  each(lanes, function(lane)
    if look(base .. 'l:' .. lane) == nil then nudges[#nudges + 1] = { 'N', lane, '' } end
  end)
end

local function claim()
  if not is_readable() then return { 'busy' } end
  for _, place in ipairs(named) do
    lapse(look(place))
  end
  local led = led_already()
  if led then
    set_state(led, 'f', now, now + lease)
    return { 'lead', led.fence }
  end
  local obstacle = fingerprint_says() or scope_says() or lanes_say()
  if not obstacle then return lead() end
  pass_on()
  prove_primary()
  return obstacle
end

reply = claim()
