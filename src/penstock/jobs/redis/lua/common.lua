-- Stands before every script. KEYS[1] is the prefix of all keys (with the hash tag, so that one node has them all);
-- ARGV[1] the time if a test gives it; ARGV[2] the settings. User's JSON is never decoded here, only carried.
--
--   j:<id>              hash: a job                          q:<class>:<kind>[:a]  sorted set by rank: ready jobs
--   e:<id>              list: its newest events              ready:<class>         sorted set by time: the same jobs
--   all, s:<state>, t:<tenant>, sub:<subject>                due:<class>           sorted set by time: delayed jobs
--                       sorted sets by number of arrival     leases, deadlines     sorted sets by time
--   dead:<class>        failed jobs                          expiry, events_until  sorted sets by time
--   jobs:<class>, bytes:<class>, rank:<class>   hashes by tenant ('' the class): what is live, the last rank
--   keys                hash: tenant \n idempotency key → id  alone                hash: worker → its job that runs alone
--   h:<class>:<slot>    hash: histogram counts               workers, seen         the registry
local P = KEYS[1]
local S = cmsgpack.unpack(ARGV[2])
local call = redis.call
local CLASSES = {'interactive', 'normal', 'bulk'}
local FIELDS = {'n', 'spec', 'state', 'attempt', 'worker', 'cancel', 'created_at', 'run_at', 'deadline', 'started_at',
    'finished_at', 'progress', 'result', 'error', 'failures', 'excused'}

local NOW
if ARGV[1] ~= '' then
    NOW = tonumber(ARGV[1])
else
    local time = call('TIME')
    NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function stamp(time) return string.format('%.6f', time) end
local function number(value) return string.format('%.17g', value) end

local told, wakes, lanes, counts = {}, {}, {}, {}

local function load(id)
    local v = call('HMGET', P .. 'j:' .. id, 'state', 'attempt', 'excused', 'max', 'cancel', 'class', 'kind', 'tenant',
        'bytes', 'rank', 'run_at', 'started_at', 'ttl', 'seq', 'n', 'alone', 'worker', 'failures', 'deadline')
    if not v[1] then return nil end
    return {id = id, key = P .. 'j:' .. id, state = v[1], attempt = tonumber(v[2]), excused = tonumber(v[3]),
        max = tonumber(v[4]), cancel = v[5] == '1', class = v[6], kind = v[7], tenant = v[8], bytes = tonumber(v[9]),
        rank = v[10], run_at = tonumber(v[11]), started_at = v[12] and tonumber(v[12]), ttl = tonumber(v[13]),
        seq = tonumber(v[14]), n = v[15], alone = v[16] == '1', worker = v[17], failures = v[18],
        deadline = v[19] and v[19] ~= '' and tonumber(v[19]) or nil}
end

local function left(job) return job.max - (job.attempt - job.excused) end

local function queue(job) return P .. 'q:' .. job.class .. ':' .. job.kind .. (job.alone and ':a' or '') end

local function tell(job, kind, data)
    job.seq = job.seq + 1
    local event = cmsgpack.pack({job.id, job.seq, job.attempt, kind, data, NOW})
    local length = call('RPUSH', P .. 'e:' .. job.id, event)
    if length > S.max_events then call('LTRIM', P .. 'e:' .. job.id, -S.max_events, -1) end
    told[#told + 1] = event
end

local function live(job, more)
    for _, tenant in ipairs({job.tenant, ''}) do
        local name = job.class .. '\n' .. tenant
        local lane = lanes[name] or {class = job.class, tenant = tenant, jobs = 0, bytes = 0}
        lane.jobs = lane.jobs + more
        lane.bytes = lane.bytes + more * job.bytes
        lanes[name] = lane
    end
end

local function bucket(seconds)
    if seconds <= 0.001 then return 0 end
    return math.min(120, math.ceil(math.log(seconds / 0.001) / math.log(2) * 4))
end

local function count(job, name, seconds)
    local key = P .. 'h:' .. job.class .. ':' .. math.floor(NOW / S.slot_s)
    local field = name .. ':' .. bucket(seconds)
    counts[key] = counts[key] or {}
    counts[key][field] = (counts[key][field] or 0) + 1
end

local function move(job, state)
    call('ZREM', P .. 's:' .. job.state, job.id)
    call('ZADD', P .. 's:' .. state, job.n, job.id)
    if job.state == 'failed' then call('ZREM', P .. 'dead:' .. job.class, job.id) end
    if state == 'failed' then call('ZADD', P .. 'dead:' .. job.class, job.n, job.id) end
    job.state = state
end

local function push(job, due)
    if due then
        call('ZADD', P .. 'due:' .. job.class, number(due), job.id)
        wakes[#wakes + 1] = 'd' .. stamp(due - NOW)
    else
        call('ZADD', queue(job), job.rank, job.id)
        call('ZADD', P .. 'ready:' .. job.class, number(job.run_at), job.id)
        wakes.ready = true
    end
    if job.deadline then call('ZADD', P .. 'deadlines', number(job.deadline), job.id) end
end

local function pull(job)
    if call('ZREM', queue(job), job.id) == 1 then
        call('ZREM', P .. 'ready:' .. job.class, job.id)
    else
        call('ZREM', P .. 'due:' .. job.class, job.id)
    end
    if job.deadline then call('ZREM', P .. 'deadlines', job.id) end
end

local function release(job)
    call('ZREM', P .. 'leases', job.id)
    if job.alone and call('HGET', P .. 'alone', job.worker) == job.id then
        call('HDEL', P .. 'alone', job.worker)
        wakes.ready = true -- this worker may take the next one now
    end
end

-- A failure's text ends where its time belongs.
local function failed(job, text)
    local failure = text .. stamp(NOW) .. '}'
    local kept = {}
    for line in string.gmatch(job.failures, '[^\n]+') do kept[#kept + 1] = line end
    kept[#kept + 1] = failure
    while #kept > S.keep_failures do table.remove(kept, 1) end
    job.failures = table.concat(kept, '\n')
    return failure
end

local function finalise(job, state, data, result, failure)
    if job.state == 'running' then
        release(job)
        count(job, 'wait', job.started_at - job.run_at)
        count(job, 'run', NOW - job.started_at)
    else
        pull(job)
    end
    move(job, state)
    tell(job, 'state', data)
    call('HSET', job.key, 'state', state, 'seq', job.seq, 'result', result or '', 'error', failure or '',
        'failures', job.failures, 'worker', '', 'finished_at', stamp(NOW), 'alone', '0')
    call('ZADD', P .. 'expiry', number(NOW + job.ttl), job.id)
    call('ZADD', P .. 'events_until', number(NOW + math.min(job.ttl, S.events_ttl_s)), job.id)
    live(job, -1)
end

local function requeue(job, data, delay, alone)
    if job.state == 'running' then
        release(job)
    else
        call('ZREM', P .. 'expiry', job.id)
        call('ZREM', P .. 'events_until', job.id)
        live(job, 1)
    end
    move(job, 'queued')
    tell(job, 'state', data)
    job.alone = alone
    job.run_at = NOW + delay
    call('HSET', job.key, 'state', 'queued', 'seq', job.seq, 'result', '', 'error', '', 'failures', job.failures,
        'worker', '', 'finished_at', '', 'alone', alone and '1' or '0', 'run_at', stamp(job.run_at),
        'excused', job.excused, 'cancel', '0', 'deadline', job.deadline and number(job.deadline) or '')
    push(job, delay > 0 and job.run_at or nil)
end

local function lose(job)
    if job.cancel then return finalise(job, 'cancelled', '{"state":"cancelled"}') end
    local failure = failed(job, S.died .. job.attempt .. ',"at":')
    if left(job) > 0 then
        requeue(job, S.died_retry, 0, left(job) == 1)
    else
        finalise(job, 'failed', S.died_final, nil, failure)
    end
end

-- Fail queued jobs that are past their deadline; returns how many.
local function miss_deadlines()
    local missed = 0
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', number(NOW), 'LIMIT', 0, 500)) do
        local job = load(id)
        if job and job.state == 'queued' then
            local failure = failed(job, S.expired .. job.attempt .. ',"at":')
            finalise(job, 'failed', S.expired_final, nil, failure)
            missed = missed + 1
        else
            call('ZREM', P .. 'deadlines', id)
        end
    end
    return missed
end

-- Write what was gathered; every script that changes something ends with it.
local function flush()
    for _, lane in pairs(lanes) do
        local jobs = call('HINCRBY', P .. 'jobs:' .. lane.class, lane.tenant, lane.jobs)
        call('HINCRBY', P .. 'bytes:' .. lane.class, lane.tenant, lane.bytes)
        if jobs == 0 and lane.tenant ~= '' then
            call('HDEL', P .. 'jobs:' .. lane.class, lane.tenant)
            call('HDEL', P .. 'bytes:' .. lane.class, lane.tenant)
            local ranks = call('HMGET', P .. 'rank:' .. lane.class, lane.tenant, '')
            if tonumber(ranks[1] or 0) <= tonumber(ranks[2] or 0) then call('HDEL', P .. 'rank:' .. lane.class, lane.tenant) end
        end
    end
    for key, fields in pairs(counts) do
        for field, more in pairs(fields) do call('HINCRBY', key, field, more) end
        call('EXPIRE', key, S.keep_s * 2)
    end
    if #told > 0 then call('PUBLISH', P .. 'events', struct.pack('>BI4', 0xdd, #told) .. table.concat(told)) end
    if wakes.ready then call('PUBLISH', P .. 'wake', 'r') end
    for _, wake in ipairs(wakes) do call('PUBLISH', P .. 'wake', wake) end
end
