-- Which memory this is. A store without one has just begun, or has forgotten: it gets the one that is offered.
if not meta[2] then
  call('HSET', KEYS[1], 'v', '1', 'e', ARGV[4])
  meta[2] = ARGV[4]
end
prove_primary()
reply = { meta[2], digits(last) }
