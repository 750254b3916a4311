-- What every step ends with: those who are to look again are told, then the asker is put among those who wait, so that
-- nobody is woken by his own step.
local ANSWER_BYTES_MAX = 65536

for _, one in ipairs(nudges) do
  local kind, key = one[1], one[2]
  local waiters = base .. (kind == 'W' and 'wf:' or 'wl:') .. key
  local replicas = call('SMEMBERS', waiters)
  if #replicas > 0 then
    local message = kind .. key .. one[3]
    if kind == 'W' and answer and #answer <= ANSWER_BYTES_MAX then
      message = message .. ':' .. outcome .. answer
    end
    for _, replica in ipairs(replicas) do
      call('PUBLISH', base .. 'wake:' .. replica, message)
    end
    -- The others in a lane still wait; those who do not are gone with their set.
    if kind == 'W' or kind == 'A' then
      call('DEL', waiters)
    end
  end
end
if waits_at and (reply[1] == 'follow' or reply[1] == 'queue') then
  call('SADD', waits_at, ARGV[13])
  call('PEXPIRE', waits_at, WAITERS_LIFE)
end
if ARGV[1] ~= '' then
  return { lost, reply, nudges }
end
return { lost, reply }
