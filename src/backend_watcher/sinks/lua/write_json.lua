-- Sets and deletes whole entries, none of them over something newer.
--
-- KEYS[1]   the floor: the position of the newest truncate of this template
-- KEYS[2..] where the position of each entry stands
-- ARGV[1]   milliseconds an entry lives, '0' for ever
-- ARGV[2]   milliseconds the position of a deleted entry is remembered
-- ARGV[3..] for each entry: its key, its value ('' deletes it), where its position stands, its position
--
-- This is the order that MSET takes, so that a batch with nothing to refuse goes there as it came. No key may come
-- twice in one call, and at most 1,000 may come: Lua's stack holds 8,000 values, and MSET takes four for each.
--
-- Returns how many entries were written or deleted; the others had something newer.

local ttl, tombstone_ttl = ARGV[1], ARGV[2]
local stored = redis.call('MGET', unpack(KEYS))
local floor = stored[1]

local plain = ttl == '0'
for number = 2, #KEYS do
    local at = 4 * number - 5
    local newest, position = stored[number], ARGV[at + 3]
    if (newest and newest > position) or (floor and floor > position) then
        stored[number] = 'newer'
        plain = false
    elseif ARGV[at + 1] == '' then
        plain = false
    end
end
if plain then
    redis.call('MSET', unpack(ARGV, 3))
    return #KEYS - 1
end

local pairs_to_set, written = {}, 0
for number = 2, #KEYS do
    if stored[number] ~= 'newer' then
        local at = 4 * number - 5
        local key, value, position_key, position = unpack(ARGV, at, at + 3)
        written = written + 1
        if value == '' then
            redis.call('UNLINK', key)
            redis.call('SET', position_key, position, 'PX', tombstone_ttl)
        elseif ttl == '0' then
            local last = #pairs_to_set
            pairs_to_set[last + 1] = key
            pairs_to_set[last + 2] = value
            pairs_to_set[last + 3] = position_key
            pairs_to_set[last + 4] = position
        else
            redis.call('SET', key, value, 'PX', ttl)
            redis.call('SET', position_key, position, 'PX', ttl)
        end
    end
end
if #pairs_to_set > 0 then
    redis.call('MSET', unpack(pairs_to_set))
end
return written
