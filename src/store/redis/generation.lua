-- machine::begin_generation, and machine::restore_generation where ARGV[5] says which fences are older
local identity, began = ARGV[4], tonumber(ARGV[5])
local life = math.max(life_longest, GENERATION_LIFE_MIN)
if began then
  local known = pointer(base .. 'g:' .. identity)
  if known == nil or (known and tonumber(known) < began) then
    set_last(math.max(last, began))
    call('SET', base .. 'g:' .. identity, '1:' .. digits(began), 'PX', digits(life))
  else
    prove_primary()
  end
else
  call('SET', base .. 'g:' .. identity, '1:' .. digits(math.max(last, seen_fence)), 'PX', digits(life))
end
reply = { 'done' }
