-- ARGV[3]: worker; ARGV[4]: '1' if it died. Returns how many jobs were put back.
local changed = 0
for _, id in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
    local job = load(id)
    if job and job.worker == ARGV[3] then
        changed = changed + 1
        if ARGV[4] == '1' then
            lose(job)
        elseif job.cancel then
            finalise(job, 'cancelled', '{"state":"cancelled"}')
        else
            job.excused = job.excused + 1
            requeue(job, '{"state":"queued"}', 0, false)
        end
    end
end
flush()
return changed
