-- ARGV[3]: [[id, kind, tenant, class, spec, bytes, digest, key, subject, run_at, deadline, max, ttl, weight] …], '' for
-- none; ARGV[4]: [limits, tenant limits], each {class: [jobs, bytes]}.
local drafts, limits = cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local known, answers, fresh, more = {}, {}, {}, {}

local function find(draft)
    local id, tenant, key = draft[1], draft[3], draft[8]
    local named = key ~= '' and (tenant .. '\n' .. key) or nil
    if known[id] then return known[id] end
    if named and known[named] then return known[named] end
    if call('EXISTS', P .. 'j:' .. id) == 0 then id = named and call('HGET', P .. 'keys', named) end
    if not id then return nil end
    local v = call('HMGET', P .. 'j:' .. id, 'tenant', 'digest')
    return v[1] and {id, v[1], v[2]} or nil
end

for i, draft in ipairs(drafts) do
    local earlier = find(draft)
    if not earlier then
        earlier = {draft[1], draft[3], draft[7]}
        fresh[#fresh + 1] = draft
        known[draft[1]] = earlier
        if draft[8] ~= '' then known[draft[3] .. '\n' .. draft[8]] = earlier end
        answers[i] = {draft[1], 1}
    elseif earlier[2] ~= draft[3] or earlier[3] ~= draft[7] then
        return {'conflict', i - 1}
    else
        answers[i] = {earlier[1], 0}
    end
end

for _, draft in ipairs(fresh) do
    for _, tenant in ipairs({draft[3], ''}) do
        local name = draft[4] .. '\n' .. tenant
        local sum = more[name] or {draft[4], tenant, 0, 0}
        sum[3] = sum[3] + 1
        sum[4] = sum[4] + draft[6]
        more[name] = sum
    end
end
for _, sum in pairs(more) do
    local class, tenant = sum[1], sum[2]
    local limit = limits[tenant == '' and 1 or 2][class]
    local jobs = tonumber(call('HGET', P .. 'jobs:' .. class, tenant) or 0) + sum[3]
    local bytes = tonumber(call('HGET', P .. 'bytes:' .. class, tenant) or 0) + sum[4]
    if limit and (jobs > limit[1] or bytes > limit[2]) then
        local drained = 0
        for slot = math.floor((NOW - S.drain_s) / S.slot_s) + 1, math.floor(NOW / S.slot_s) do
            local fields = call('HGETALL', P .. 'h:' .. class .. ':' .. slot)
            for f = 1, #fields, 2 do
                if string.sub(fields[f], 1, 4) == 'run:' then drained = drained + tonumber(fields[f + 1]) end
            end
        end
        return {'overloaded', class, tenant == '' and 1 or 0, jobs, bytes, drained}
    end
end

local ranks, active = {}, {}
local function rank_of(class, tenant)
    local name = class .. '\n' .. tenant
    ranks[name] = ranks[name] or tonumber(call('HGET', P .. 'rank:' .. class, tenant) or 0)
    return ranks[name]
end

local function position(class, rank, weight)
    local ahead = 0
    for _, each in ipairs(CLASSES) do
        local jobs = tonumber(call('HGET', P .. 'jobs:' .. each, '') or 0)
        if each == class then
            active[class] = active[class] or math.max(1, call('HLEN', P .. 'jobs:' .. class) - 1)
            return ahead + math.min(jobs, math.floor((rank - rank_of(class, '')) * weight * active[class] + 0.5))
        end
        ahead = ahead + jobs
    end
end

local places = {}
for _, draft in ipairs(fresh) do
    local id, kind, tenant, class, weight = draft[1], draft[2], draft[3], draft[4], draft[14]
    local rank = math.max(rank_of(class, ''), rank_of(class, tenant))
    ranks[class .. '\n' .. tenant] = rank + 1 / weight
    call('HSET', P .. 'rank:' .. class, tenant, number(rank + 1 / weight))
    places[id] = position(class, rank, weight)
    local run_at = draft[10] ~= '' and draft[10] or NOW
    local n = call('INCR', P .. 'n')
    call('HSET', P .. 'j:' .. id, 'n', n, 'spec', draft[5], 'kind', kind, 'tenant', tenant, 'class', class,
        'bytes', draft[6], 'digest', draft[7], 'key', draft[8], 'subject', draft[9], 'max', draft[12],
        'ttl', number(draft[13]), 'rank', number(rank), 'state', 'queued', 'attempt', 0, 'excused', 0, 'alone', 0,
        'cancel', 0, 'seq', 0, 'failures', '', 'created_at', stamp(NOW), 'run_at', stamp(run_at),
        'deadline', draft[11] ~= '' and number(draft[11]) or '')
    call('ZADD', P .. 'all', n, id)
    call('ZADD', P .. 's:queued', n, id)
    call('ZADD', P .. 't:' .. tenant, n, id)
    if draft[8] ~= '' then call('HSET', P .. 'keys', tenant .. '\n' .. draft[8], id) end
    if draft[9] ~= '' then call('ZADD', P .. 'sub:' .. draft[9], n, id) end
    local job = {id = id, kind = kind, tenant = tenant, class = class, bytes = draft[6], rank = number(rank), run_at = run_at,
        deadline = draft[11] ~= '' and draft[11] or nil}
    push(job, run_at > NOW and run_at or nil)
    live(job, 1)
end
flush()
for _, answer in ipairs(answers) do
    answer[3] = places[answer[1]] or 0
    if answer[2] == 0 then answer[4] = call('HMGET', P .. 'j:' .. answer[1], unpack(FIELDS)) end
end
return {'ok', stamp(NOW), answers}
