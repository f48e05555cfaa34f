-- Version 1 of withdrawal-service, PostgreSQL. Version 2 will be another file.
-- `request` is the id of the idempotency record: an attempt that was lost after its commit finds its own row.

-- One row per merchant, taken as a lock by whatever changes its accounts.
CREATE TABLE withdrawal_merchants (
    merchant_id UUID PRIMARY KEY,
    changed_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE bank_accounts (
    id          UUID PRIMARY KEY,
    merchant_id UUID NOT NULL REFERENCES withdrawal_merchants (merchant_id),
    holder      TEXT NOT NULL,
    account     TEXT NOT NULL,
    currency    TEXT NOT NULL,
    is_default  BOOLEAN NOT NULL,
    request     TEXT NOT NULL UNIQUE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX bank_accounts_one_default ON bank_accounts (merchant_id) WHERE is_default;
CREATE INDEX bank_accounts_of_merchant ON bank_accounts (merchant_id, id);

-- What a merchant owns is available + frozen. Neither is ever negative.
CREATE TABLE balances (
    merchant_id UUID NOT NULL,
    currency    TEXT NOT NULL,
    available   BIGINT NOT NULL CHECK (available >= 0),
    frozen      BIGINT NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    PRIMARY KEY (merchant_id, currency)
);

-- What made a balance grow; a number is booked once.
CREATE TABLE balance_credits (
    merchant_id UUID NOT NULL,
    credit_no   TEXT NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0),
    currency    TEXT NOT NULL,
    request     TEXT NOT NULL UNIQUE,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (merchant_id, credit_no)
);

CREATE TABLE withdrawals (
    id                 UUID PRIMARY KEY,
    withdrawal_no      TEXT NOT NULL UNIQUE,
    merchant_id        UUID NOT NULL,
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
CREATE INDEX withdrawals_of_merchant ON withdrawals (merchant_id, id);

-- A person approves once.
CREATE TABLE withdrawal_approvals (
    withdrawal_id UUID NOT NULL REFERENCES withdrawals (id),
    person        TEXT NOT NULL,
    request       TEXT NOT NULL UNIQUE,
    approved_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (withdrawal_id, person)
);

-- The money of a withdrawal on its way: frozen, then released or spent, never both.
CREATE TABLE withdrawal_holds (
    withdrawal_id UUID PRIMARY KEY REFERENCES withdrawals (id),
    total         BIGINT NOT NULL CHECK (total > 0),
    state         TEXT NOT NULL CHECK (state IN ('frozen', 'released', 'spent')),
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
