-- Version 1 of withdrawal-service, PostgreSQL. Version 2 will be another file.
-- `request` is the id of the idempotency record: an attempt that was lost after its commit finds its own row.

-- The modes are two worlds: each row of a merchant belongs to one of them.
-- One row per merchant and mode, taken as a lock by whatever changes its accounts.
CREATE TABLE withdrawal_merchants (
    merchant_id UUID NOT NULL,
    mode        TEXT NOT NULL CHECK (mode IN ('test', 'production')),
    changed_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (merchant_id, mode)
);

CREATE TABLE bank_accounts (
    id          UUID PRIMARY KEY,
    merchant_id UUID NOT NULL,
    mode        TEXT NOT NULL,
    holder      TEXT NOT NULL,
    account     TEXT NOT NULL,
    currency    TEXT NOT NULL,
    is_default  BOOLEAN NOT NULL,
    asked_default BOOLEAN NOT NULL,
    request     TEXT NOT NULL UNIQUE,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (merchant_id, mode) REFERENCES withdrawal_merchants (merchant_id, mode)
);
CREATE UNIQUE INDEX bank_accounts_one_default ON bank_accounts (merchant_id, mode) WHERE is_default;
CREATE INDEX bank_accounts_of_merchant ON bank_accounts (merchant_id, mode, id);

-- What a merchant owns is available + frozen. Neither is ever negative.
CREATE TABLE balances (
    merchant_id UUID NOT NULL,
    mode        TEXT NOT NULL CHECK (mode IN ('test', 'production')),
    currency    TEXT NOT NULL,
    available   BIGINT NOT NULL DEFAULT 0 CHECK (available >= 0),
    frozen      BIGINT NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    PRIMARY KEY (merchant_id, mode, currency)
);

-- What changes a balance; a reference does it once. One that was cancelled before it came has no amount, and never gets one.
CREATE TABLE balance_entries (
    kind        TEXT NOT NULL CHECK (kind IN ('credit', 'debit', 'freeze', 'withdrawal')),
    reference   TEXT NOT NULL,
    merchant_id UUID,
    mode        TEXT,
    currency    TEXT,
    amount      BIGINT CHECK (amount > 0),
    status      TEXT NOT NULL CHECK (status IN ('frozen', 'booked', 'cancelled')),
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, reference),
    CHECK (status = 'cancelled'
        OR (merchant_id IS NOT NULL AND mode IS NOT NULL AND currency IS NOT NULL AND amount IS NOT NULL))
);

-- The ledger: one row per movement, by the status that its entry reached. A balance is the sum of its rows.
CREATE TABLE balance_movements (
    kind        TEXT NOT NULL,
    reference   TEXT NOT NULL,
    status      TEXT NOT NULL,
    merchant_id UUID NOT NULL,
    mode        TEXT NOT NULL,
    currency    TEXT NOT NULL,
    available   BIGINT NOT NULL,
    frozen      BIGINT NOT NULL,
    moved_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, reference, status),
    FOREIGN KEY (kind, reference) REFERENCES balance_entries (kind, reference),
    FOREIGN KEY (merchant_id, mode, currency) REFERENCES balances (merchant_id, mode, currency)
);

CREATE TABLE withdrawals (
    id                 UUID PRIMARY KEY,
    withdrawal_no      TEXT NOT NULL UNIQUE,
    merchant_id        UUID NOT NULL,
    mode               TEXT NOT NULL CHECK (mode IN ('test', 'production')),
    bank_account_id    UUID NOT NULL REFERENCES bank_accounts (id),
    amount             BIGINT NOT NULL CHECK (amount > 0),
    fee                BIGINT NOT NULL CHECK (fee >= 0),
    currency           TEXT NOT NULL,
    speed              TEXT NOT NULL CHECK (speed IN ('normal', 'urgent', 'scheduled')),
    status             TEXT NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending', 'approved', 'processing', 'completed', 'failed', 'rejected', 'cancelled')),
    approvals_required BIGINT NOT NULL CHECK (approvals_required BETWEEN 1 AND 3),
    approvals          BIGINT NOT NULL DEFAULT 0 CHECK (approvals BETWEEN 0 AND approvals_required),
    reason             TEXT,
    bank_reference     TEXT,
    request            TEXT NOT NULL UNIQUE,
    created_at         TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    updated_at         TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    CHECK (status NOT IN ('approved', 'processing', 'completed', 'failed') OR approvals = approvals_required)
);
CREATE INDEX withdrawals_of_merchant ON withdrawals (merchant_id, mode, id);

-- A person approves once.
CREATE TABLE withdrawal_approvals (
    withdrawal_id UUID NOT NULL REFERENCES withdrawals (id),
    person        TEXT NOT NULL,
    request       TEXT NOT NULL UNIQUE,
    approved_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (withdrawal_id, person)
);
