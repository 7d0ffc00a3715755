-- ARGV[3]: id.
return call('HMGET', P .. 'j:' .. ARGV[3], unpack(FIELDS))
