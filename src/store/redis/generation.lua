-- machine::begin_generation
local identity = ARGV[4]
local life = math.max(life_longest, GENERATION_LIFE_MIN)
call('SET', base .. 'g:' .. identity, '1:' .. digits(math.max(last, seen_fence)), 'PX', digits(life))
reply = { 'done' }
