-- Reads whole hashes. Writes nothing.
--
-- KEYS[1..] keys of entries
--
-- Returns, for each key, names and values in turn; nothing where no hash stands.

local found = {}
for at = 1, #KEYS do
    local fields = redis.pcall('HGETALL', KEYS[at])
    found[at] = fields.err and {} or fields
end
return found
