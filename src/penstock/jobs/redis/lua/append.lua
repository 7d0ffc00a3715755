-- ARGV[3]: [[id, attempt, progress or '', [[type, data] …]] …]. Returns the ids whose lease is lost.
local lost = {}
for _, entry in ipairs(cmsgpack.unpack(ARGV[3])) do
    local key = P .. 'j:' .. entry[1]
    local v = call('HMGET', key, 'state', 'attempt', 'seq')
    if v[1] == 'running' and tonumber(v[2]) == entry[2] then
        local job = {id = entry[1], attempt = entry[2], seq = tonumber(v[3])}
        for _, event in ipairs(entry[4]) do tell(job, event[1], event[2]) end
        call('HSET', key, 'seq', job.seq)
        if entry[3] ~= '' then call('HSET', key, 'progress', entry[3]) end
    else
        lost[#lost + 1] = entry[1]
    end
end
flush()
return lost
