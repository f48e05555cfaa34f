-- One row per number that anybody ever spoke of: the lock that create and cancel take, and the barrier that
-- a cancel leaves behind when the order was never seen, so that a create which arrives late is refused.
CREATE TABLE order_numbers (
  merchant_id  UUID NOT NULL,
  order_no     TEXT NOT NULL,
  cancelled_at TIMESTAMPTZ,
  PRIMARY KEY (merchant_id, order_no)
);

CREATE TABLE orders (
  id           UUID PRIMARY KEY,
  merchant_id  UUID NOT NULL,
  order_no     TEXT NOT NULL,
  payment_no   TEXT,
  amount       BIGINT NOT NULL CHECK (amount > 0),
  currency     TEXT NOT NULL,
  status       TEXT NOT NULL CHECK (status IN ('pending', 'paid', 'completed', 'refunded', 'cancelled', 'expired')),
  pay_status   TEXT NOT NULL CHECK (pay_status IN ('unpaid', 'paid', 'refunded')),
  created_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  updated_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  paid_at      TIMESTAMPTZ,
  cancelled_at TIMESTAMPTZ,
  UNIQUE (merchant_id, order_no)
);

CREATE TABLE order_items (
  order_id   UUID NOT NULL REFERENCES orders (id),
  line       BIGINT NOT NULL,
  name       TEXT NOT NULL,
  quantity   BIGINT NOT NULL CHECK (quantity > 0),
  unit_price BIGINT NOT NULL CHECK (unit_price >= 0),
  PRIMARY KEY (order_id, line)
);

-- One row per change of an order, written in the transaction that makes the change.
CREATE TABLE order_logs (
  id          UUID PRIMARY KEY,
  order_id    UUID NOT NULL REFERENCES orders (id),
  from_status TEXT,
  to_status   TEXT NOT NULL,
  reason      TEXT NOT NULL,
  created_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX order_logs_by_order ON order_logs (order_id);
