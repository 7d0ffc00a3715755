-- ARGV[3]: [[id, attempt, how, result, failure, told, told of a retry, delay] …]; `how` is ok, cancelled, failed or
-- retry; a failure's text ends where its time belongs. Returns the ids whose lease is lost.
local lost = {}
for _, ending in ipairs(cmsgpack.unpack(ARGV[3])) do
    local job, how = load(ending[1]), ending[3]
    if not job or job.state ~= 'running' or job.attempt ~= ending[2] then
        lost[#lost + 1] = ending[1]
    else
        local failure = ending[5] ~= '' and failed(job, ending[5]) or nil
        if job.cancel or how == 'cancelled' then
            finalise(job, 'cancelled', '{"state":"cancelled"}')
        elseif how == 'ok' then
            finalise(job, 'succeeded', '{"state":"succeeded"}', ending[4])
        elseif how == 'retry' and left(job) > 0 then
            requeue(job, ending[7], ending[8], false)
        else
            finalise(job, 'failed', ending[6], nil, failure)
        end
    end
end
flush()
return lost
