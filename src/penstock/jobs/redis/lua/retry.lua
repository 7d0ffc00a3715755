-- ARGV[3]: [id …]. Returns how many were put back in the queue.
local changed = 0
for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do
    local job = load(id)
    if job and (job.state == 'failed' or job.state == 'cancelled') then
        job.excused, job.deadline = job.attempt, nil
        requeue(job, '{"state":"queued"}', 0, false)
        changed = changed + 1
    end
end
flush()
return changed
