-- What every step begins with: the clock, the epoch, and the cells (src/store/machine/cells.rs) as keys of Redis.
--
--   {namespace}:meta        v format, e epoch, b when it began in ms, w is there if somebody remembers another one, l last
--                           fence, x longest life of a record; never expires
--   {namespace}:r:FENCE     a run: v format, o owner, l lanes, f fingerprint, s scope, b body, g generations (those four
--                           are missing where it has none), d hold of a doubt in ms or "-" for retry, t state (f flight,
--                           q in doubt, d done, r resolved), a when the state began, u when it ends, n seen life still
--                           awaited in ms, or "-" or missing
--   {namespace}:b:FENCE     its answer
--   {namespace}:f|s|l:KEY   a place (fingerprint, scope, lane) that points to a run: "1:FENCE"
--   {namespace}:g:KEY       a generation: "1:FENCE"
--   {namespace}:o:LANE      the fences of the ended runs that were led under a lane
--   {namespace}:wf|wl:KEY   the replicas that wait at a fingerprint or a lane
--
-- A script that fails has changed nothing or has ended something whose time was over: whatever may fail (memory, a
-- primary that is none any more) fails at the first write, and Redis lets a script that has written go on.
--
-- KEYS[1] is {namespace}:meta, for the slot. ARGV[1] is empty, or the time in ms where a test makes it. ARGV[2] is the epoch
-- that is trusted, or empty, ARGV[3] the highest fence that the asker has seen.

local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
-- Keys live on for a minute after what they stand for: they end by the machine, and here only if nobody comes by.
local MARGIN = 60000
-- A store that is further behind than this is an old copy; less is what a failover may lose.
local OLD_COPY_US = 60000000
local WAITERS_LIFE = 5000
local GENERATION_LIFE_MIN = 3600000

local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local today = math.floor(clock / 1000)
local now = today
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
  clock = now * 1000
end

-- ".." would write a large number with an exponent.
local function digits(number)
  return string.format('%d', number)
end

local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'x')
if meta[1] and meta[1] ~= '1' then
  return { 0, { 'foreign' } }
end
local last = tonumber(meta[3] or '0')
local life_longest = tonumber(meta[4] or '0')
local seen_fence = tonumber(ARGV[3])
if ARGV[2] ~= '' then
  if meta[2] ~= ARGV[2] then
    return { 0, { 'forgot' } }
  end
  if last + OLD_COPY_US < seen_fence then
    -- The others are to see it too, whatever they have seen.
    local other = string.sub(redis.sha1hex(meta[2] .. digits(clock)), 1, 32)
    call('HSET', KEYS[1], 'e', other, 'b', digits(now), 'w', '1')
    return { 0, { 'forgot' } }
  end
end

local reply
local lost = 0
local nudges = {}
local answer, outcome
local waits_at

-- A write that changes nothing: it fails where this is no primary, and the writes after it do not fail for memory.
local function prove_primary()
  call('PEXPIRE', base .. 'none', 1)
end

-- "1:FENCE" at a key: the fence as text, nil if there is none, false if it cannot be read.
local pointers = {}
local function pointer(key)
  local known = pointers[key]
  if known == nil then
    local text = redis.pcall('GET', key)
    if text == false then
      known = 'none'
    elseif type(text) == 'string' then
      known = string.match(text, '^1:(%d+)$') or 'unreadable'
    else
      known = 'unreadable'
    end
    pointers[key] = known
  end
  if known == 'none' then
    return nil
  end
  return known ~= 'unreadable' and known
end

local function clear(key)
  call('DEL', key)
  pointers[key] = 'none'
end

-- A run: nil if there is none, false if it cannot be read.
local runs = {}
local function load(fence)
  local known = runs[fence]
  if known == nil then
    known = false
    local got = redis.pcall('HMGET', base .. 'r:' .. fence, 'v', 'o', 'l', 'f', 's', 'b', 'g', 'd', 't', 'a', 'u', 'n')
    if not got.err then
      if got[1] == '1' then
        known = {
          fence = fence, owner = got[2], lanes = got[3], fingerprint = got[4] or '', scope = got[5] or '',
          body = got[6] or '', generations = got[7] or '', hold = tonumber(got[8] or ''), state = got[9],
          since = tonumber(got[10] or ''), ends = tonumber(got[11] or ''), seen = tonumber(got[12] or ''),
        }
        if not (known.owner and known.lanes and got[8] and known.state and known.since and known.ends) then
          known = false
        end
      elseif not got[1] and call('EXISTS', base .. 'r:' .. fence) == 0 then
        known = 'none'
      end
    end
    runs[fence] = known
  end
  if known == 'none' then
    return nil
  end
  return known
end

-- What stands at a place: nil if it is free, false if it cannot be read (or points to a run that is missing), or a run.
local function look(key)
  local fence = pointer(key)
  if not fence then
    return fence
  end
  return load(fence) or false
end

local function each(keys, visit)
  for at = 1, #keys, 32 do
    visit(string.sub(keys, at, at + 31))
  end
end

local function is_live(run)
  return run.state == 'f' or run.state == 'q'
end

-- The places that a run has now.
local function places_of(run)
  local places = {}
  if run.fingerprint ~= '' then
    places[1] = base .. 'f:' .. run.fingerprint
  end
  if run.scope ~= '' and not is_live(run) then
    places[#places + 1] = base .. 's:' .. run.scope
  end
  if is_live(run) then
    each(run.lanes, function(lane) places[#places + 1] = base .. 'l:' .. lane end)
  end
  return places
end

-- When a run's keys are to end, and in how long.
local function end_of(run)
  local ends = run.ends
  if run.state == 'f' and run.hold then
    ends = ends + run.hold
  end
  local left = math.max(ends - now, 0) + MARGIN
  -- Two lengths would begin a millisecond apart.
  return digits(today + left), left
end

-- A run and all that points to it end together, or one of them would point to nothing.
local function keep_alive(run)
  local at, left = end_of(run)
  call('PEXPIREAT', base .. 'r:' .. run.fence, at)
  if run.state == 'd' then
    call('PEXPIREAT', base .. 'b:' .. run.fence, at)
  end
  for _, place in ipairs(places_of(run)) do
    if pointer(place) == run.fence then
      call('PEXPIREAT', place, at)
    end
  end
  if not is_live(run) then
    each(run.lanes, function(lane)
      local index = base .. 'o:' .. lane
      if call('PTTL', index) < left then
        call('PEXPIREAT', index, at)
      end
    end)
  end
end

local function note_life(run)
  if is_live(run) then
    return
  end
  local life = run.ends - run.since
  if run.state == 'd' and run.seen then
    life = life + run.seen
  end
  if life > life_longest then
    life_longest = life
    call('HSET', KEYS[1], 'x', digits(life))
  end
end

local function set_state(run, state, since, ends, seen)
  local was_seen = run.seen
  run.state, run.since, run.ends, run.seen = state, since, ends, seen
  keep_alive(run)
  local key = base .. 'r:' .. run.fence
  if seen or was_seen then
    call('HSET', key, 't', state, 'a', digits(since), 'u', digits(ends), 'n', seen and digits(seen) or '-')
  else
    call('HSET', key, 't', state, 'a', digits(since), 'u', digits(ends))
  end
  note_life(run)
end

-- What a run does not have is not written.
local OPTIONAL = { f = 'fingerprint', s = 'scope', b = 'body', g = 'generations' }
local function insert_run(run)
  local fields = {
    'HSET', base .. 'r:' .. run.fence, 'v', '1', 'o', run.owner, 'l', run.lanes, 'd', run.hold and digits(run.hold) or '-',
    't', run.state, 'a', digits(run.since), 'u', digits(run.ends),
  }
  for field, name in pairs(OPTIONAL) do
    if run[name] ~= '' then
      fields[#fields + 1] = field
      fields[#fields + 1] = run[name]
    end
  end
  if run.seen then
    fields[#fields + 1] = 'n'
    fields[#fields + 1] = digits(run.seen)
  end
  call(unpack(fields))
  runs[run.fence] = run
end

-- Until the end of the run, which is told where it is not yet to be read from it.
local function point(key, fence, at)
  if at then
    call('SET', key, '1:' .. fence, 'PXAT', at)
  else
    call('SET', key, '1:' .. fence)
  end
  pointers[key] = fence
end

local function set_last(fence)
  last = fence
  call('HSET', KEYS[1], 'v', '1', 'l', digits(fence))
end

-- Where Redis is full, the answer goes and what it says of the work stays.
local function put_record(fence, record, tombstone)
  local key = base .. 'b:' .. fence
  local put = redis.pcall('SET', key, record)
  if put.err then
    call('DEL', key)
    call('SET', key, tombstone)
  end
end

-- An operator's question finds the ended runs of a lane by this.
local function enlist(run)
  each(run.lanes, function(lane)
    local index = base .. 'o:' .. lane
    call('SADD', index, run.fence)
    if call('SCARD', index) > 128 then
      for _, fence in ipairs(call('SMEMBERS', index)) do
        if call('EXISTS', base .. 'r:' .. fence) == 0 then
          call('SREM', index, fence)
        end
      end
    end
  end)
end
