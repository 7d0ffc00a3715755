-- ARGV[3]: worker; ARGV[4]: [[id, attempt] …]. Returns the ids that are lost and those whose cancel was asked for.
local lost, cancelled = {}, {}
for _, lease in ipairs(cmsgpack.unpack(ARGV[4])) do
    local v = call('HMGET', P .. 'j:' .. lease[1], 'state', 'attempt', 'worker', 'cancel')
    if v[1] == 'running' and tonumber(v[2]) == lease[2] and v[3] == ARGV[3] then
        call('ZADD', P .. 'leases', 'XX', number(NOW + S.lease_s), lease[1])
        if v[4] == '1' then cancelled[#cancelled + 1] = lease[1] end
    else
        lost[#lost + 1] = lease[1]
    end
end
return {lost, cancelled}
