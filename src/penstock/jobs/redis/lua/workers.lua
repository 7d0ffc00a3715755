-- ARGV[3]: seconds. Returns [what a worker says of itself, when it was seen] of those seen since.
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'seen', '(' .. number(NOW - tonumber(ARGV[3])), '+inf')) do
    found[#found + 1] = {call('HGET', P .. 'workers', id), call('ZSCORE', P .. 'seen', id)}
end
return found
