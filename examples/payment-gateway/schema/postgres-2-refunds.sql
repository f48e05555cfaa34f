-- The sum that the channel has given back, counted up by the local step of each refund's saga.
ALTER TABLE payments ADD COLUMN refunded_amount BIGINT NOT NULL DEFAULT 0
  CHECK (refunded_amount >= 0 AND refunded_amount <= amount);

CREATE TABLE refunds (
  id                 UUID PRIMARY KEY,
  refund_no          TEXT NOT NULL UNIQUE,
  merchant_id        UUID NOT NULL,
  mode               TEXT NOT NULL,
  payment_no         TEXT NOT NULL REFERENCES payments (payment_no),
  amount             BIGINT NOT NULL CHECK (amount > 0),
  currency           TEXT NOT NULL,
  reason             TEXT,
  status             TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'success', 'failed')),
  failure_reason     TEXT,
  -- The idempotency record this refund was made under, as in payments.
  idempotency_record TEXT NOT NULL UNIQUE,
  created_at         TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  updated_at         TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  CHECK (status <> 'failed' OR failure_reason IS NOT NULL)
);
CREATE INDEX refunds_by_payment ON refunds (payment_no);
CREATE INDEX refunds_by_merchant ON refunds (merchant_id, mode, id);
CREATE INDEX refunds_unfinished ON refunds (id) WHERE status IN ('pending', 'processing');
