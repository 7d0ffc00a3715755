-- ARGV[3]: id; ARGV[4]: after which number; ARGV[5]: how many. The list ends with the job's newest event.
local list = P .. 'e:' .. ARGV[3]
local seq = tonumber(call('HGET', P .. 'j:' .. ARGV[3], 'seq') or 0)
local first = math.max(0, tonumber(ARGV[4]) - (seq - call('LLEN', list)))
return call('LRANGE', list, first, first + tonumber(ARGV[5]) - 1)
