-- Version 1 of merchant-service, SQLite. Version 2 will be another file.
CREATE TABLE merchants (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    email      TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'closed')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;

CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY,
    merchant_id   TEXT NOT NULL REFERENCES merchants (id),
    api_key       TEXT NOT NULL UNIQUE,
    mode          TEXT NOT NULL CHECK (mode IN ('test', 'production')),
    sealed_secret BLOB NOT NULL,
    status        TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    rotated_at    TEXT,
    revoked_at    TEXT
) STRICT;
CREATE INDEX api_keys_of_merchant ON api_keys (merchant_id, mode, status);

-- A nonce stays as long as a timestamp could still be accepted. Times are Unix seconds of this database.
CREATE TABLE used_nonces (
    api_key_id TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    used_at    INTEGER NOT NULL,
    PRIMARY KEY (api_key_id, nonce)
) STRICT;
CREATE INDEX used_nonces_by_age ON used_nonces (used_at);

CREATE TABLE auth_failures (
    api_key        TEXT NOT NULL,
    address        TEXT NOT NULL,
    failures       INTEGER NOT NULL,
    window_started INTEGER NOT NULL,
    PRIMARY KEY (api_key, address)
) STRICT;

-- A known text, sealed: tells at start whether the key of this process opens the secrets of this database.
CREATE TABLE sealing_check (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BLOB NOT NULL
) STRICT;
