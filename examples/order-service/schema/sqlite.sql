-- One row per number that anybody ever spoke of: the lock that create and cancel take, and the barrier that
-- a cancel leaves behind when the order was never seen, so that a create which arrives late is refused.
CREATE TABLE order_numbers (
  merchant_id  TEXT NOT NULL,
  order_no     TEXT NOT NULL,
  cancelled_at TEXT,
  PRIMARY KEY (merchant_id, order_no)
);

CREATE TABLE orders (
  id           TEXT PRIMARY KEY,
  merchant_id  TEXT NOT NULL,
  order_no     TEXT NOT NULL,
  payment_no   TEXT,
  amount       INTEGER NOT NULL CHECK (amount > 0),
  currency     TEXT NOT NULL,
  status       TEXT NOT NULL CHECK (status IN ('pending', 'paid', 'completed', 'refunded', 'cancelled', 'expired')),
  pay_status   TEXT NOT NULL CHECK (pay_status IN ('unpaid', 'paid', 'refunded')),
  created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  paid_at      TEXT,
  cancelled_at TEXT,
  UNIQUE (merchant_id, order_no)
);

CREATE TABLE order_items (
  order_id   TEXT NOT NULL REFERENCES orders (id),
  line       INTEGER NOT NULL,
  name       TEXT NOT NULL,
  quantity   INTEGER NOT NULL CHECK (quantity > 0),
  unit_price INTEGER NOT NULL CHECK (unit_price >= 0),
  PRIMARY KEY (order_id, line)
);

-- One row per change of an order, written in the transaction that makes the change.
CREATE TABLE order_logs (
  id          TEXT PRIMARY KEY,
  order_id    TEXT NOT NULL REFERENCES orders (id),
  from_status TEXT,
  to_status   TEXT NOT NULL,
  reason      TEXT NOT NULL,
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX order_logs_by_order ON order_logs (order_id);
