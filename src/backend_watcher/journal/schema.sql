-- The journal's file, format 1. `application_id` is "BWJ1", `user_version` the format.
-- Times are seconds since 1970, sizes are bytes of payload. LSNs are far below 2^63, so INTEGER holds them.
BEGIN IMMEDIATE;

-- Captured changes, in order. `crc` covers every other column but `number` (journal/block.py).
CREATE TABLE block (
    number         INTEGER PRIMARY KEY,
    first_lsn      INTEGER NOT NULL,
    first_ordinal  INTEGER NOT NULL,
    last_lsn       INTEGER NOT NULL,
    last_ordinal   INTEGER NOT NULL,
    commit_end_lsn INTEGER NOT NULL,
    changes        INTEGER NOT NULL,
    size_bytes     INTEGER NOT NULL,
    captured_at    REAL    NOT NULL,
    versions       BLOB    NOT NULL,
    crc            INTEGER NOT NULL,
    -- Last, so that the columns above can be read without the pages of the payload.
    payload        BLOB    NOT NULL
);
CREATE UNIQUE INDEX block_by_position ON block (last_lsn, last_ordinal);

-- The shapes of tables that blocks need to be decoded, by Table.version; kept for ever.
CREATE TABLE shape (
    version INTEGER PRIMARY KEY,
    dump    BLOB NOT NULL
);

CREATE TABLE cursor (
    subscription TEXT PRIMARY KEY,
    lsn          INTEGER NOT NULL,
    ordinal      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE note (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL
) WITHOUT ROWID;

-- One row: where the journal stands, and the stream it was written from.
CREATE TABLE standing (
    one               INTEGER PRIMARY KEY CHECK (one = 1),
    durable_lsn       INTEGER NOT NULL DEFAULT 0,
    last_lsn          INTEGER NOT NULL DEFAULT 0,
    last_ordinal      INTEGER NOT NULL DEFAULT -1,
    blocks            INTEGER NOT NULL DEFAULT 0,
    size_bytes        INTEGER NOT NULL DEFAULT 0,
    is_full           INTEGER NOT NULL DEFAULT 0,
    system_identifier TEXT,
    timeline          INTEGER,
    slot              TEXT,
    publication       TEXT
);
INSERT INTO standing (one) VALUES (1);

PRAGMA application_id = 1112033841;
PRAGMA user_version = 1;
COMMIT;
