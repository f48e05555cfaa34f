-- The table of tokens of probity-txn, version 1.
CREATE TABLE IF NOT EXISTS probity_txn_tokens (
    token TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    result TEXT NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
