-- The moves that steps share (src/store/machine.rs and machine/read.rs), name by name.

local function is_stale(generations, fence)
  local stale = false
  each(generations, function(identity)
    local began = pointer(base .. 'g:' .. identity)
    if began and tonumber(began) >= tonumber(fence) then
      stale = true
    end
  end)
  return stale
end

-- A nudge is {kind, key, fence or fingerprint}: W all who wait at a fingerprint, N the next in a lane, A all in a lane,
-- S those in a lane with the same request.
local function nudge(run, of_lane)
  if run.fingerprint ~= '' then
    nudges[#nudges + 1] = { 'W', run.fingerprint, run.fence }
  end
  each(run.lanes, function(lane) nudges[#nudges + 1] = { of_lane, lane, '' } end)
end

-- Removes a run and whatever points to it.
local function free(run)
  call('DEL', base .. 'r:' .. run.fence, base .. 'b:' .. run.fence)
  if is_live(run) then
    nudge(run, 'N')
  else
    each(run.lanes, function(lane) call('SREM', base .. 'o:' .. lane, run.fence) end)
  end
  for _, place in ipairs(places_of(run)) do
    -- Something newer may stand there by now.
    if pointer(place) == run.fence then
      clear(place)
    end
  end
  runs[run.fence] = 'none'
end

local function doubt(run, since)
  if not run.hold then
    return free(run)
  end
  nudge(run, 'A')
  set_state(run, 'q', since, since + run.hold)
end

-- Keeps an ended run, or frees it where nobody could ask for it or it is of an older generation already.
local function keep(run, state, ends, seen, record, tombstone)
  if run.fingerprint == '' or is_stale(run.generations, run.fence) then
    return free(run)
  end
  if state == 'd' then
    put_record(run.fence, record, tombstone)
  end
  nudge(run, 'N')
  each(run.lanes, function(lane) clear(base .. 'l:' .. lane) end)
  enlist(run)
  local scope = run.scope ~= '' and base .. 's:' .. run.scope
  if scope then
    local newest = pointer(scope)
    -- A late answer does not take a scope from a newer one.
    if newest == nil or (newest and tonumber(newest) < tonumber(run.fence)) then
      point(scope, run.fence)
    end
  end
  set_state(run, state, now, ends, seen)
end

-- Lets a run end whose lease, hold or life is over. What cannot be read never runs out.
local function lapse(run)
  if not run or run.ends > now then
    return
  end
  if run.state == 'f' then
    lost = lost + 1
    doubt(run, run.ends)
    -- The hold may be over as well, when nobody came by for that long.
    lapse(load(run.fence))
  else
    free(run)
  end
end

-- What an owner still has: f a flight, q a doubt, or nothing.
local function standing(run, owner)
  if run and run.owner == owner and is_live(run) then
    return run.state
  end
  return nil
end

