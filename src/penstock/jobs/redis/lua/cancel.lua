-- ARGV[3]: [id …]. Returns how many were cancelled or marked.
local changed = 0
for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do
    local job = load(id)
    if job and job.state == 'queued' then
        finalise(job, 'cancelled', '{"state":"cancelled"}')
        changed = changed + 1
    elseif job and job.state == 'running' and not job.cancel then
        call('HSET', job.key, 'cancel', '1')
        wakes[#wakes + 1] = 'c' .. id
        changed = changed + 1
    end
end
flush()
return changed
