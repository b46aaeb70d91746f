-- Format 3: where the journal stands and how far its readers are is sealed. A flipped bit there would skip changes
-- without a word; one in a block is found by the block's own checksum. NULL is what an older format left.
BEGIN IMMEDIATE;
ALTER TABLE standing ADD COLUMN crc INTEGER;
ALTER TABLE cursor ADD COLUMN crc INTEGER;
PRAGMA user_version = 3;
COMMIT;
