-- Deletes entries that are not newer than a truncate, and raises the floor, below which nothing is written any more.
--
-- KEYS[1]   the floor of this template
-- ARGV[1]   the position of the truncate
-- ARGV[2..] keys of entries
--
-- The floor remembers for every key what a tombstone remembers for one, so the positions are deleted too. A call
-- without keys raises the floor only.
--
-- Returns how many entries were deleted.

local position = ARGV[1]
local floor = redis.call('GET', KEYS[1])
if not (floor and floor > position) then
    redis.call('SET', KEYS[1], position)
end

local deleted = 0
for at = 2, #ARGV do
    local newest = redis.call('GET', '@' .. ARGV[at])
    if newest and not (newest > position) then
        deleted = deleted + redis.call('UNLINK', ARGV[at])
        redis.call('UNLINK', '@' .. ARGV[at])
    end
end
return deleted
