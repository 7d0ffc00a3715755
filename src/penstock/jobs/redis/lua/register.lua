-- ARGV[3]: worker; ARGV[4]: what it says of itself ('' to take it out); ARGV[5]: seconds a silent worker is kept.
if ARGV[4] == '' then
    call('HDEL', P .. 'workers', ARGV[3])
    call('ZREM', P .. 'seen', ARGV[3])
else
    call('HSET', P .. 'workers', ARGV[3], ARGV[4])
    call('ZADD', P .. 'seen', number(NOW), ARGV[3])
end
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'seen', '-inf', number(NOW - tonumber(ARGV[5])))) do
    call('HDEL', P .. 'workers', id)
    call('ZREM', P .. 'seen', id)
end
return 1
