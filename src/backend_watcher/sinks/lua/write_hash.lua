-- Sets and deletes fields of hashes, and whole hashes, none of them over something newer.
--
-- KEYS[1]   the floor: the position of the newest truncate of this template
-- ARGV[1]   milliseconds an entry lives, '0' for ever
-- ARGV[2]   milliseconds the position of a deleted entry is remembered
-- ARGV[3]   '1' if positions are compared and kept, '0' if not
-- ARGV[4..] for each entry: its key, its position, what to do, how many values are set, how many are removed, then
--           name and value of each field to set, then the name of each field to remove. What to do is one of
--             whole  the fields are all there are
--             part   other fields exist and keep their values; where there is no hash they are unknown, so none is made
--             gone   delete the hash
--
-- Beside the hash at `key` its position stands at `@key`. Those keys are made here, so the script needs a server that
-- holds all keys: not a Redis Cluster.
--
-- Returns, for each entry the server refused (another type stands at its key), its number from 0, then the message.

local ttl, tombstone_ttl, guard = ARGV[1], ARGV[2], ARGV[3] == '1'
local floor = guard and redis.call('GET', KEYS[1])
local refused = {}

local function write(key, todo, sets, removes)
    if todo == 'gone' then
        redis.call('UNLINK', key)
        return nil
    end
    if todo == 'part' and redis.call('EXISTS', key) == 0 then
        return nil
    end
    if #removes > 0 then
        local answer = redis.pcall('HDEL', key, unpack(removes))
        if type(answer) == 'table' and answer.err then return answer.err end
    end
    if #sets > 0 then
        local answer = redis.pcall('HSET', key, unpack(sets))
        if type(answer) == 'table' and answer.err then return answer.err end
    end
    if ttl ~= '0' then
        redis.call('PEXPIRE', key, ttl)
    end
    return nil
end

local at, number = 4, 0
while at <= #ARGV do
    local key, position, todo = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local first_set = at + 5
    local first_remove = first_set + 2 * tonumber(ARGV[at + 3])
    local after = first_remove + tonumber(ARGV[at + 4])

    local newest = guard and redis.call('GET', '@' .. key)
    if not (newest and newest > position) and not (floor and floor > position) then
        local sets, removes = {}, {}
        for i = first_set, first_remove - 1 do sets[#sets + 1] = ARGV[i] end
        for i = first_remove, after - 1 do removes[#removes + 1] = ARGV[i] end
        local fault = write(key, todo, sets, removes)
        if fault then
            refused[#refused + 1] = number
            refused[#refused + 1] = fault
        elseif guard then
            if todo == 'gone' then
                redis.call('SET', '@' .. key, position, 'PX', tombstone_ttl)
            elseif ttl == '0' then
                redis.call('SET', '@' .. key, position)
            else
                redis.call('SET', '@' .. key, position, 'PX', ttl)
            end
        end
    end
    at = after
    number = number + 1
end
return refused
