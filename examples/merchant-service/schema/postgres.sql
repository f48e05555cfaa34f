-- Version 1 of merchant-service, PostgreSQL. Version 2 will be another file.
CREATE TABLE merchants (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    email      TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'closed')),
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE api_keys (
    id            UUID PRIMARY KEY,
    merchant_id   UUID NOT NULL REFERENCES merchants (id),
    api_key       TEXT NOT NULL UNIQUE,
    mode          TEXT NOT NULL CHECK (mode IN ('test', 'production')),
    sealed_secret BYTEA NOT NULL,
    status        TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    created_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    rotated_at    TIMESTAMPTZ,
    revoked_at    TIMESTAMPTZ
);
CREATE INDEX api_keys_of_merchant ON api_keys (merchant_id, mode, status);

-- A nonce stays as long as a timestamp could still be accepted. Times are Unix seconds of this database.
CREATE TABLE used_nonces (
    api_key_id UUID NOT NULL,
    nonce      TEXT NOT NULL,
    used_at    BIGINT NOT NULL,
    PRIMARY KEY (api_key_id, nonce)
);
CREATE INDEX used_nonces_by_age ON used_nonces (used_at);

CREATE TABLE auth_failures (
    api_key        TEXT NOT NULL,
    address        TEXT NOT NULL,
    failures       BIGINT NOT NULL,
    window_started BIGINT NOT NULL,
    PRIMARY KEY (api_key, address)
);

-- A known text, sealed: tells at start whether the key of this process opens the secrets of this database.
CREATE TABLE sealing_check (
    id     BIGINT PRIMARY KEY CHECK (id = 1),
    sealed BYTEA NOT NULL
);
