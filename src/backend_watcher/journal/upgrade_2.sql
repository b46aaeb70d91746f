-- Format 2: changes of keys that failed, and what people did about them. Times are seconds since 1970.
BEGIN IMMEDIATE;

-- A key that failed (or several that an update of a primary key tied together). With `due_at` NULL it is parked.
CREATE TABLE held_key (
    subscription TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    table_name   TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    -- What later changes of it are recognised by: JSON, [[table, key in hexadecimal, newest LSN, ordinal], …].
    keys         TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    first_at     REAL    NOT NULL,
    last_at      REAL    NOT NULL,
    due_at       REAL,
    error        TEXT    NOT NULL,
    remedy       TEXT    NOT NULL,
    PRIMARY KEY (subscription, number)
) WITHOUT ROWID;

-- Their changes, each by itself (events/packed.py); `crc` covers the payload.
CREATE TABLE held_change (
    subscription TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    key_number   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    crc          INTEGER NOT NULL,
    payload      BLOB    NOT NULL,
    PRIMARY KEY (subscription, number)
);
CREATE INDEX held_change_by_key ON held_change (subscription, key_number, number);

-- Append only.
CREATE TABLE audit (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      REAL NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append only'); END;

PRAGMA user_version = 2;
COMMIT;
