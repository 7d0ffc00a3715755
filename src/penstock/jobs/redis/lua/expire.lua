-- One bounded round of tidying. Returns how many jobs were touched.
local changed, most = 0, 500

-- A lease that ends too late is lost too: the clock was set back.
for _, bounds in ipairs({{'-inf', number(NOW)}, {'(' .. number(NOW + 2 * S.lease_s), '+inf'}}) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', bounds[1], bounds[2], 'LIMIT', 0, most)) do
        local job = load(id)
        if job and job.state == 'running' then lose(job) else call('ZREM', P .. 'leases', id) end
        changed = changed + 1
    end
end

changed = changed + miss_deadlines()

for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'events_until', '-inf', number(NOW), 'LIMIT', 0, most)) do
    call('DEL', P .. 'e:' .. id)
    call('ZREM', P .. 'events_until', id)
    changed = changed + 1
end

for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'expiry', '-inf', number(NOW), 'LIMIT', 0, most)) do
    local v = call('HMGET', P .. 'j:' .. id, 'state', 'class', 'tenant', 'key', 'subject')
    call('DEL', P .. 'j:' .. id, P .. 'e:' .. id)
    call('ZREM', P .. 'expiry', id)
    call('ZREM', P .. 'all', id)
    if v[1] then
        call('ZREM', P .. 's:' .. v[1], id)
        call('ZREM', P .. 'dead:' .. v[2], id)
        call('ZREM', P .. 't:' .. v[3], id)
        if v[4] ~= '' then call('HDEL', P .. 'keys', v[3] .. '\n' .. v[4]) end
        if v[5] ~= '' then call('ZREM', P .. 'sub:' .. v[5], id) end
    end
    changed = changed + 1
end
flush()
return changed
