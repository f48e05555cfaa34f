CREATE TABLE payments (
  id                 TEXT PRIMARY KEY,
  payment_no         TEXT NOT NULL UNIQUE,
  merchant_id        TEXT NOT NULL,
  order_no           TEXT NOT NULL,
  amount             INTEGER NOT NULL CHECK (amount > 0),
  currency           TEXT NOT NULL,
  channel            TEXT NOT NULL,
  payment_method     TEXT NOT NULL,
  mode               TEXT NOT NULL,
  description        TEXT,
  status             TEXT NOT NULL
                     CHECK (status IN ('pending', 'processing', 'success', 'failed', 'cancelled', 'expired')),
  failure_reason     TEXT,
  channel_order_no   TEXT,
  notify_status      TEXT NOT NULL DEFAULT 'none' CHECK (notify_status IN ('none', 'pending', 'sent', 'failed')),
  -- The idempotency record this payment was made under: after a crash the retry finds it by this, and two
  -- attempts of one request can never insert two payments.
  idempotency_record TEXT NOT NULL UNIQUE,
  created_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  CHECK (status <> 'success' OR channel_order_no IS NOT NULL),
  CHECK (status <> 'failed' OR failure_reason IS NOT NULL),
  UNIQUE (merchant_id, mode, order_no)
);
CREATE INDEX payments_unfinished ON payments (id) WHERE status IN ('pending', 'processing');
