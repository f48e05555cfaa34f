-- Money in. One row per payment number: the lock that charge and cancel take, and the barrier that a
-- cancel leaves behind, so that a charge which arrives late is refused.
CREATE TABLE channel_payments (
  payment_no  TEXT PRIMARY KEY,
  status      TEXT NOT NULL CHECK (status IN ('open', 'cancelled')),
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

-- The ledger. One row per idempotency key, as at a real provider: a caller that sends the same payment
-- under two keys is charged twice, and `COUNT(*) ... WHERE status = 'charged'` shows it.
CREATE TABLE channel_charges (
  idempotency_key  TEXT PRIMARY KEY,
  payment_no       TEXT NOT NULL REFERENCES channel_payments (payment_no),
  method           TEXT NOT NULL,
  amount           INTEGER NOT NULL CHECK (amount > 0),
  currency         TEXT NOT NULL,
  status           TEXT NOT NULL CHECK (status IN ('charged', 'cancelled', 'refused')),
  reason           TEXT,
  channel_order_no TEXT NOT NULL UNIQUE,
  attempts         INTEGER NOT NULL DEFAULT 1,
  created_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX channel_charges_by_payment ON channel_charges (payment_no);

-- Money out, by the same rules.
CREATE TABLE channel_transfer_orders (
  transfer_no TEXT PRIMARY KEY,
  status      TEXT NOT NULL CHECK (status IN ('open', 'cancelled')),
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE TABLE channel_transfers (
  idempotency_key  TEXT PRIMARY KEY,
  transfer_no      TEXT NOT NULL REFERENCES channel_transfer_orders (transfer_no),
  method           TEXT NOT NULL,
  amount           INTEGER NOT NULL CHECK (amount > 0),
  currency         TEXT NOT NULL,
  status           TEXT NOT NULL CHECK (status IN ('sent', 'refused')),
  reason           TEXT,
  channel_order_no TEXT NOT NULL UNIQUE,
  attempts         INTEGER NOT NULL DEFAULT 1,
  created_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX channel_transfers_by_transfer ON channel_transfers (transfer_no);

CREATE TABLE channel_refunds (
  idempotency_key  TEXT PRIMARY KEY,
  refund_no        TEXT NOT NULL,
  payment_no       TEXT NOT NULL,
  amount           INTEGER NOT NULL CHECK (amount > 0),
  currency         TEXT NOT NULL,
  status           TEXT NOT NULL CHECK (status IN ('refunded', 'refused')),
  reason           TEXT,
  attempts         INTEGER NOT NULL DEFAULT 1,
  created_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX channel_refunds_by_refund ON channel_refunds (refund_no);
CREATE INDEX channel_refunds_by_payment ON channel_refunds (payment_no);
