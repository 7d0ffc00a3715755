-- Returns of each class: ready, live, delayed, dead, the oldest ready job's age, jobs drained, and the counts by name.
local all = {}
for i, class in ipairs(CLASSES) do
    local oldest = call('ZRANGE', P .. 'ready:' .. class, 0, 0, 'WITHSCORES')
    local drained, sums, flat = 0, {}, {}
    local drain_from = math.floor((NOW - S.drain_s) / S.slot_s)
    for slot = math.floor((NOW - S.keep_s) / S.slot_s) + 1, math.floor(NOW / S.slot_s) do
        local fields = call('HGETALL', P .. 'h:' .. class .. ':' .. slot)
        for f = 1, #fields, 2 do
            local more = tonumber(fields[f + 1])
            sums[fields[f]] = (sums[fields[f]] or 0) + more
            if slot > drain_from and string.sub(fields[f], 1, 4) == 'run:' then drained = drained + more end
        end
    end
    for field, sum in pairs(sums) do
        flat[#flat + 1] = field
        flat[#flat + 1] = sum
    end
    all[i] = {call('ZCARD', P .. 'ready:' .. class), tonumber(call('HGET', P .. 'jobs:' .. class, '') or 0),
        call('ZCARD', P .. 'due:' .. class), call('ZCARD', P .. 'dead:' .. class),
        oldest[2] and stamp(math.max(0, NOW - tonumber(oldest[2]))) or '0', drained, flat}
end
return all
