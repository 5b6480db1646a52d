-- Tables of corecast for MySQL 8.0 or MariaDB 10.6. `corecast migrate` applies this file;
-- the embedded SQLite store keeps the same tables (backends/src/store/sqlite/schema.rs).
--
-- Text that decides equality (ids, keys, unique names) is VARBINARY: bytes are compared,
-- no collation has a say. Caseless uniqueness is one more such column that holds the NFC,
-- Unicode-lower-cased form made by logic. Text that people read is utf8mb4, any Unicode,
-- NUL included; its collation is never used to compare.
-- Lengths are bytes for VARBINARY and characters for VARCHAR; they leave room above the
-- limits that logic checks. Times are milliseconds since 1970 UTC, by the database's clock
-- where it matters that they never run backwards.
--
-- The server must run with innodb_flush_log_at_trx_commit = 1, and sync_binlog = 1 where
-- the binary log is on: an acknowledged message is on the disk. Sessions use READ COMMITTED
-- (no gap locks between rooms), innodb_lock_wait_timeout = 3, wait_timeout = 10.

-- Accounts.
CREATE TABLE IF NOT EXISTS user_infos (
    user_id          VARBINARY(64)   NOT NULL,             -- UUID as text
    username         VARCHAR(64)     NOT NULL,             -- as typed, NFC, 1-32 characters
    username_folded  VARBINARY(512)  NOT NULL,             -- NFC, lower case: unique
    email            VARCHAR(254)    NOT NULL,             -- as typed
    email_folded     VARBINARY(1024) NOT NULL,             -- NFC, lower case: unique
    password_hash    VARCHAR(255)    NOT NULL,             -- argon2id, PHC string with parameters and salt
    salt             VARCHAR(64)     NOT NULL,             -- the same salt once more, for tools that read it
    create_time      BIGINT          NOT NULL,             -- ms
    PRIMARY KEY (user_id),
    UNIQUE KEY user_infos_by_username (username_folded),
    UNIQUE KEY user_infos_by_email (email_folded)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- Sessions: the truth; the hot set only caches them, so losing it logs nobody out.
CREATE TABLE IF NOT EXISTS sessions (
    hash             BINARY(32)      NOT NULL,             -- SHA-256 of the session id: a leaked table signs nobody in
    user_id          VARBINARY(64)   NOT NULL,
    expires_ms       BIGINT          NOT NULL,             -- ms; live while now < expires_ms
    PRIMARY KEY (hash),
    KEY sessions_by_expiry (expires_ms)                    -- expired ones are deleted in small bites
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- Rooms and their number lines. The row of a room is what a commit locks.
CREATE TABLE IF NOT EXISTS rooms (
    ordinal          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, -- order of creation
    id               VARBINARY(128)  NOT NULL,             -- `global` is reserved: it numbers room creations
    name             VARBINARY(512)  NOT NULL,             -- UTF-8, 1-64 characters, unique exactly; '' for `global`
    creator_id       VARBINARY(64)   NOT NULL,             -- '' for the rooms of the configuration
    creator_username VARCHAR(64)     NOT NULL,             -- name at the time
    kind             TINYINT         NOT NULL,             -- 0 default, 1 public, 2 private
    create_time      BIGINT          NOT NULL,             -- ms
    update_time      BIGINT          NOT NULL,             -- ms: the last message, or the creation
    epoch            BIGINT          NOT NULL,             -- generation of the line, below 2^53; ms of its beginning
    last_seq         BIGINT          NOT NULL,             -- number of the last message; 0: none yet
    last_ms          BIGINT          NOT NULL,             -- its timestamp: the next one is never below
    global_seq       BIGINT          NULL,                 -- number of its creation on `global`; NULL: it has none
    create_key       VARBINARY(128)  NULL,                 -- the same creator and key create one room only
    PRIMARY KEY (ordinal),
    UNIQUE KEY rooms_by_id (id),
    UNIQUE KEY rooms_by_name (name),
    UNIQUE KEY rooms_by_global_seq (global_seq),           -- catching up on creations
    UNIQUE KEY rooms_by_key (creator_id, create_key),      -- rows without a key do not meet: NULLs differ
    KEY rooms_by_kind (kind, ordinal)                      -- the default rooms, by creation
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- The line of room creations. Its name is one nobody can give; its epoch begins now, so that
-- a database made anew outranks one that was lost.
INSERT IGNORE INTO rooms
    (id, name, creator_id, creator_username, kind, create_time, update_time, epoch, last_seq, last_ms)
SELECT 'global', '', '', '', 0, clock.ms, clock.ms, clock.ms, 0, 0
FROM (SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) AS ms) AS clock;

-- Messages. Clustered by (room, number): a page of history is one range. No foreign keys:
-- they would lock the rows of users and rooms for each message, and nothing is deleted there.
CREATE TABLE IF NOT EXISTS messages (
    room_id          VARBINARY(128)  NOT NULL,
    seq              BIGINT          NOT NULL,             -- 1, 2, 3 ... without gaps, given by the committing transaction
    id               VARBINARY(48)   NOT NULL,             -- '<ms>-<seq>': timestamp and number
    user_id          VARBINARY(64)   NOT NULL,
    username         VARCHAR(64)     NOT NULL,             -- the author's name at the time stays with the message
    content          MEDIUMTEXT      NOT NULL,             -- as it was sent, at most 4 KiB by default
    message_key      VARBINARY(128)  NOT NULL,             -- 'c:...' the client's, 'g:...' the gateway's; kept as long as the message
    PRIMARY KEY (room_id, seq),
    UNIQUE KEY messages_by_key (room_id, user_id, message_key) -- what is sent again is found again
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- What the log has not taken over yet. A row is written by the transaction of its messages
-- and holds one frame; rows are deleted by exact id. InnoDB keeps the counter in its redo
-- log (MySQL 8.0, MariaDB 10.2.4 and later), so an id is never used again. No foreign keys.
CREATE TABLE IF NOT EXISTS outbox (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    owner            VARBINARY(128)  NOT NULL,             -- the logic.id whose relay appends it to the log
    room_id          VARBINARY(128)  NOT NULL,             -- key of the record
    value            MEDIUMBLOB      NOT NULL,             -- ChatRoom.Job.PushMsg; 64 KiB unless one client frame is larger
    create_time      BIGINT          NOT NULL,             -- ms: how long nobody took it over
    PRIMARY KEY (id),
    KEY outbox_by_owner (owner, id)                        -- the relay reads its rows in order; claims take the oldest
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- Records that nobody can read, put aside by an embedded log; for the operator to look at.
CREATE TABLE IF NOT EXISTS dead_letters (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    room_id          VARBINARY(128)  NOT NULL,
    value            MEDIUMBLOB      NOT NULL,
    reason           TEXT            NOT NULL,
    create_time      BIGINT          NOT NULL,             -- ms
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- One row that is written for its commit alone: a server without a binary log shows a
-- transaction before it is on the disk, and the answer to a later commit says that it is.
CREATE TABLE IF NOT EXISTS barriers (
    id               TINYINT UNSIGNED NOT NULL,
    passed           BIGINT UNSIGNED NOT NULL,             -- how often
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

-- Which version of these tables this is. Written last: a change that was cut short is made
-- again, and each statement of this file may be run again. A node refuses a version that it
-- does not know.
CREATE TABLE IF NOT EXISTS schema_versions (
    version          BIGINT UNSIGNED NOT NULL,
    applied_ms       BIGINT          NOT NULL,             -- ms
    PRIMARY KEY (version)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4;

INSERT IGNORE INTO schema_versions (version, applied_ms) VALUES (2, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED));
