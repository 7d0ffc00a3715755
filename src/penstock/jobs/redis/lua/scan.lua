-- ARGV[3]: the filter {states, tenant, kinds, classes, subject} ('' or {} for any; sets as {name: true}); ARGV[4]: below
-- which number ('' for all); ARGV[5]: how many jobs (0: only count them); ARGV[6]: how many to look at in this call.
-- Returns the count, the number to go on below ('' at the end), and the jobs.
local where, before, wanted, budget = cmsgpack.unpack(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local sources = {P .. 'all'}
if where.subject ~= '' then sources[#sources + 1] = P .. 'sub:' .. where.subject end
if where.tenant ~= '' then sources[#sources + 1] = P .. 't:' .. where.tenant end
local single, states = next(where.states), 0
for _ in pairs(where.states) do states = states + 1 end
if states == 1 then sources[#sources + 1] = P .. 's:' .. single end
local source, size = nil, nil
for _, each in ipairs(sources) do
    local card = call('ZCARD', each)
    if not size or card < size then source, size = each, card end
end

local plain = next(where.kinds) == nil and next(where.classes) == nil and #sources <= 2 and states <= 1
if wanted == 0 and plain and source == sources[#sources] then return {size, '', {}} end

local found, total, looked = {}, 0, 0
local top = before == '' and '+inf' or '(' .. before
while looked < budget do
    local chunk = call('ZREVRANGEBYSCORE', source, top, '-inf', 'WITHSCORES', 'LIMIT', 0, 200)
    if #chunk == 0 then return {total, '', found} end
    for f = 1, #chunk, 2 do
        local v = call('HMGET', P .. 'j:' .. chunk[f], 'state', 'tenant', 'kind', 'class', 'subject')
        looked = looked + 1
        top = '(' .. chunk[f + 1]
        if v[1] and (states == 0 or where.states[v[1]]) and (where.tenant == '' or where.tenant == v[2])
            and (next(where.kinds) == nil or where.kinds[v[3]]) and (next(where.classes) == nil or where.classes[v[4]])
            and (where.subject == '' or where.subject == v[5]) then
            total = total + 1
            if wanted > 0 then
                found[#found + 1] = call('HMGET', P .. 'j:' .. chunk[f], unpack(FIELDS))
                if total >= wanted then return {total, string.sub(top, 2), found} end
            end
        end
    end
end
return {total, string.sub(top, 2), found}
