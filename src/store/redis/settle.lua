-- machine::settle
local fence, owner, ending = ARGV[4], ARGV[5], ARGV[6]
local record, tombstone, unseen, seen = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
lapse(load(fence))
local run = load(fence)
local was = standing(run, owner)
if was then
  if ending ~= 'doubt' and record ~= '' then
    -- With the life that a replay of it will have, for those who followed.
    answer, outcome = record, (ending == 'failed' and 'F' or 'D') .. digits(unseen) .. ':'
  end
  if ending == 'done' then
    keep(run, 'd', now + unseen, seen, record, tombstone)
  elseif ending ~= 'doubt' then
    free(run)
  elseif was == 'f' then
    doubt(run, now)
  end
  -- A doubt that is confirmed does not begin anew: the hold would never end under a sender that repeats.
end
prove_primary()
reply = { was == 'f' and 'in-time' or was == 'q' and 'late' or 'superseded' }
