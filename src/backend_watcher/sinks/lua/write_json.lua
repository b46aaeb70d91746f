-- Sets and deletes whole entries, none of them over something newer.
--
-- KEYS[1]   the floor: the position of the newest truncate of this template
-- ARGV[1]   milliseconds an entry lives, '0' for ever
-- ARGV[2]   milliseconds the position of a deleted entry is remembered
-- ARGV[3..] for each entry: its key, its position, its value ('' deletes it)
--
-- No key may come twice in one call, and at most 1,000 may come: Lua's stack holds 8,000 values, and MSET takes four
-- for each. Beside the entry at `key` its position stands at `@key`. Those keys are made here, so the script needs a
-- server that holds all keys: not a Redis Cluster.
--
-- Returns how many entries were written or deleted; the others had something newer.

local ttl, tombstone_ttl = ARGV[1], ARGV[2]

local position_keys = {KEYS[1]}
for at = 3, #ARGV, 3 do
    position_keys[#position_keys + 1] = '@' .. ARGV[at]
end
local stored = redis.call('MGET', unpack(position_keys))
local floor = stored[1]

local pairs_to_set, written, number = {}, 0, 1
for at = 3, #ARGV, 3 do
    number = number + 1
    local position, newest = ARGV[at + 1], stored[number]
    if not (newest and newest > position) and not (floor and floor > position) then
        written = written + 1
        local key, value = ARGV[at], ARGV[at + 2]
        if value == '' then
            redis.call('UNLINK', key)
            redis.call('SET', position_keys[number], position, 'PX', tombstone_ttl)
        elseif ttl == '0' then
            local last = #pairs_to_set
            pairs_to_set[last + 1] = key
            pairs_to_set[last + 2] = value
            pairs_to_set[last + 3] = position_keys[number]
            pairs_to_set[last + 4] = position
        else
            redis.call('SET', key, value, 'PX', ttl)
            redis.call('SET', position_keys[number], position, 'PX', ttl)
        end
    end
end
if #pairs_to_set > 0 then
    redis.call('MSET', unpack(pairs_to_set))
end
return written
