-- Version 1 of withdrawal-service, SQLite. Version 2 will be another file.
-- `request` is the id of the idempotency record: an attempt that was lost after its commit finds its own row.

-- One row per merchant, taken as a lock by whatever changes its accounts.
CREATE TABLE withdrawal_merchants (
    merchant_id TEXT PRIMARY KEY,
    changed_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;

CREATE TABLE bank_accounts (
    id          TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL REFERENCES withdrawal_merchants (merchant_id),
    holder      TEXT NOT NULL,
    account     TEXT NOT NULL,
    currency    TEXT NOT NULL,
    is_default  INTEGER NOT NULL CHECK (is_default IN (FALSE, TRUE)),
    request     TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;
CREATE UNIQUE INDEX bank_accounts_one_default ON bank_accounts (merchant_id) WHERE is_default;
CREATE INDEX bank_accounts_of_merchant ON bank_accounts (merchant_id, id);

-- What a merchant owns is available + frozen. Neither is ever negative.
CREATE TABLE balances (
    merchant_id TEXT NOT NULL,
    currency    TEXT NOT NULL,
    available   INTEGER NOT NULL CHECK (available >= 0),
    frozen      INTEGER NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    PRIMARY KEY (merchant_id, currency)
) STRICT;

-- What made a balance grow; a number is booked once.
CREATE TABLE balance_credits (
    merchant_id TEXT NOT NULL,
    credit_no   TEXT NOT NULL,
    amount      INTEGER NOT NULL CHECK (amount > 0),
    currency    TEXT NOT NULL,
    request     TEXT NOT NULL UNIQUE,
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (merchant_id, credit_no)
) STRICT;

CREATE TABLE withdrawals (
    id                 TEXT PRIMARY KEY,
    withdrawal_no      TEXT NOT NULL UNIQUE,
    merchant_id        TEXT NOT NULL,
    bank_account_id    TEXT NOT NULL REFERENCES bank_accounts (id),
    amount             INTEGER NOT NULL CHECK (amount > 0),
    fee                INTEGER NOT NULL CHECK (fee >= 0),
    currency           TEXT NOT NULL,
    speed              TEXT NOT NULL CHECK (speed IN ('normal', 'urgent', 'scheduled')),
    status             TEXT NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending', 'approved', 'processing', 'completed', 'failed', 'rejected', 'cancelled')),
    approvals_required INTEGER NOT NULL CHECK (approvals_required BETWEEN 1 AND 3),
    approvals          INTEGER NOT NULL DEFAULT 0 CHECK (approvals BETWEEN 0 AND approvals_required),
    reason             TEXT,
    bank_reference     TEXT,
    request            TEXT NOT NULL UNIQUE,
    created_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    CHECK (status NOT IN ('approved', 'processing', 'completed', 'failed') OR approvals = approvals_required)
) STRICT;
CREATE INDEX withdrawals_of_merchant ON withdrawals (merchant_id, id);

-- A person approves once.
CREATE TABLE withdrawal_approvals (
    withdrawal_id TEXT NOT NULL REFERENCES withdrawals (id),
    person        TEXT NOT NULL,
    request       TEXT NOT NULL UNIQUE,
    approved_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (withdrawal_id, person)
) STRICT;

-- The money of a withdrawal on its way: frozen, then released or spent, never both.
CREATE TABLE withdrawal_holds (
    withdrawal_id TEXT PRIMARY KEY REFERENCES withdrawals (id),
    total         INTEGER NOT NULL CHECK (total > 0),
    state         TEXT NOT NULL CHECK (state IN ('frozen', 'released', 'spent')),
    updated_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;
