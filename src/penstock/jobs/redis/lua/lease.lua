-- ARGV[3]: worker; ARGV[4..6]: n, background, phase; ARGV[7…]: kinds. Returns the seconds until the next delayed job is
-- due ('' for none) and the jobs.
local worker, n, background, phase = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local next_due = ''
miss_deadlines()
for _, class in ipairs(CLASSES) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'due:' .. class, '-inf', number(NOW), 'LIMIT', 0, 500)) do
        local job = load(id)
        call('ZREM', P .. 'due:' .. class, id)
        if job then push(job) end
    end
    local first = call('ZRANGE', P .. 'due:' .. class, 0, 0, 'WITHSCORES')
    if first[1] and (next_due == '' or tonumber(first[2]) - NOW < next_due) then next_due = tonumber(first[2]) - NOW end
end

-- Of each class the first jobs of all its queues, merged by rank; fetched when first needed.
local alone_free = call('HEXISTS', P .. 'alone', worker) == 0
local function fetch(class, room)
    local found = {}
    for i = 7, #ARGV do
        local name = P .. 'q:' .. class .. ':' .. ARGV[i]
        local ready = call('ZRANGE', name, 0, room - 1, 'WITHSCORES')
        for f = 1, #ready, 2 do found[#found + 1] = {ready[f], tonumber(ready[f + 1])} end
        ready = alone_free and call('ZRANGE', name .. ':a', 0, 0, 'WITHSCORES') or {}
        if ready[1] then found[#found + 1] = {ready[1], tonumber(ready[2])} end
    end
    table.sort(found, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
    return found
end

local queues = {}
local function head(place)
    if place > 1 and background <= 0 then return nil end
    local mine = queues[place]
    if not mine then
        mine = {at = 1, jobs = fetch(CLASSES[place], place == 1 and n or math.min(n, background))}
        queues[place] = mine
    end
    while mine.jobs[mine.at] do
        if not mine.job then mine.job = load(mine.jobs[mine.at][1]) end
        local job = mine.job
        if job and not (job.deadline and job.deadline <= NOW) and not (job.alone and not alone_free) then return job end
        mine.at, mine.job = mine.at + 1, nil
    end
    return nil
end

local function take(job)
    pull(job)
    move(job, 'running')
    job.attempt = job.attempt + 1
    tell(job, 'state', '{"state":"running"}')
    call('HSET', job.key, 'state', 'running', 'attempt', job.attempt, 'worker', worker, 'started_at', stamp(NOW),
        'seq', job.seq)
    call('ZADD', P .. 'leases', number(NOW + S.lease_s), job.id)
    if job.alone then
        call('HSET', P .. 'alone', worker, job.id)
        alone_free = false
    end
end

local taken, ranks = {}, {}
while #taken < n do
    local turn, aged
    for place = 1, 3 do
        local job = head(place)
        if job and not turn then
            turn = place
            if (#taken + phase) % S.aged_every ~= 0 then break end
        elseif job and NOW - job.run_at >= S.aged_after_s and (not aged or job.run_at < head(aged).run_at) then
            aged = place
        end
    end
    turn = aged or turn
    if not turn then break end
    local job = head(turn)
    take(job)
    queues[turn].at, queues[turn].job = queues[turn].at + 1, nil
    if turn > 1 then background = background - 1 end
    ranks[job.class] = math.max(ranks[job.class] or 0, tonumber(job.rank))
    taken[#taken + 1] = call('HMGET', job.key, unpack(FIELDS))
end
for class, rank in pairs(ranks) do
    if rank > tonumber(call('HGET', P .. 'rank:' .. class, '') or 0) then
        call('HSET', P .. 'rank:' .. class, '', number(rank))
    end
end
flush()
return {next_due == '' and '' or stamp(next_due), taken}
