-- The secret of the installation's fingerprints: the first one that is offered is everybody's.
call('SET', base .. 'secret', ARGV[4], 'NX')
reply = { call('GET', base .. 'secret') }
