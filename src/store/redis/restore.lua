-- machine::restore
local fence, owner, lanes, fingerprint, scope = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local body, generations, hold = ARGV[9], ARGV[10], tonumber(ARGV[11])
local state, age, left, seen = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local record, tombstone = ARGV[16], ARGV[17]
local since, ends = math.max(now - age, 0), now + left

-- The store knows the run: of the two states the further one stays.
local function bring_on(run)
  local was = run.state
  if was == 'd' or was == 'r' then
    if not (was == 'd' and state == 'd') then return 'superseded' end
    if run.seen and not seen then set_state(run, 'd', run.since, ends, nil) end
    return 'in-time'
  end
  if state == 'd' or state == 'r' then
    keep(run, state, ends, seen, record, tombstone)
  elseif was == 'f' and state == 'q' then
    nudge(run, 'A')
    set_state(run, 'q', since, ends)
  elseif was == 'f' and run.ends < ends then
    set_state(run, 'f', now, ends)
  end
  return was == 'f' and 'in-time' or 'late'
end

-- What a claim of this owner left under another fence. An owner claims once, and always the same.
local function unheard()
  local run = look(base .. 'l:' .. string.sub(lanes, 1, 32))
  if run and run.owner == owner and run.lanes == lanes and run.fingerprint == fingerprint then
    return run
  end
end

-- Whether the run may be put in its places. A record of an older generation makes way, as it does for a claim, and so
-- does a claim of the same owner: it was carried out, its answer never arrived, and the owner went on without it.
local function make_way(run)
  local stale = unheard()
  if stale then free(stale) end
  if scope ~= '' and look(base .. 's:' .. scope) == false then return false end
  if is_live(run) then
    for at = 1, #lanes, 32 do
      if look(base .. 'l:' .. string.sub(lanes, at, at + 31)) ~= nil then return false end
    end
  end
  if fingerprint == '' then return true end
  local stands = look(base .. 'f:' .. fingerprint)
  if stands and not is_live(stands) and is_stale(generations, stands.fence) then
    free(stands)
    return true
  end
  return stands == nil
end

local function insert()
  local run = {
    fence = fence, owner = owner, lanes = lanes, fingerprint = fingerprint, scope = scope, body = body,
    generations = generations, hold = hold, state = state, since = since, ends = ends, seen = seen,
  }
  local useless = not is_live(run) and (fingerprint == '' or is_stale(generations, fence))
  if ends <= now or useless or not make_way(run) then return 'superseded' end
  if state == 'd' then put_record(fence, record, tombstone) end
  set_last(math.max(last, tonumber(fence)))
  insert_run(run)
  if fingerprint ~= '' then point(base .. 'f:' .. fingerprint, fence) end
  if is_live(run) then
    each(lanes, function(lane)
      point(base .. 'l:' .. lane, fence)
      if fingerprint ~= '' then nudges[#nudges + 1] = { 'S', lane, fingerprint } end
    end)
  else
    enlist(run)
    local newest = scope ~= '' and pointer(base .. 's:' .. scope)
    if newest == nil or (newest and tonumber(newest) < tonumber(fence)) then
      point(base .. 's:' .. scope, fence)
    end
  end
  keep_alive(run)
  note_life(run)
  return 'in-time'
end

local function restore()
  lapse(load(fence))
  if fingerprint ~= '' then lapse(look(base .. 'f:' .. fingerprint)) end
  if scope ~= '' then lapse(look(base .. 's:' .. scope)) end
  each(lanes, function(lane) lapse(look(base .. 'l:' .. lane)) end)
  local run = load(fence)
  if run == nil then return insert() end
  if run and run.owner == owner then return bring_on(run) end
  return 'superseded'
end

reply = { restore() }
prove_primary()
