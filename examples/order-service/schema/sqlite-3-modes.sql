-- Numbers and orders are of one mode. What was here before belongs to callers that name no mode.
CREATE TABLE order_numbers_before AS SELECT * FROM order_numbers;
DROP TABLE order_numbers;
CREATE TABLE order_numbers (
  merchant_id  TEXT NOT NULL,
  mode         TEXT NOT NULL CHECK (mode IN ('test', 'production')),
  order_no     TEXT NOT NULL,
  cancelled_at TEXT,
  PRIMARY KEY (merchant_id, mode, order_no)
);
INSERT INTO order_numbers SELECT merchant_id, 'production', order_no, cancelled_at FROM order_numbers_before;
DROP TABLE order_numbers_before;

-- The references of items and logs are checked at the end of the transaction.
PRAGMA defer_foreign_keys = ON;
CREATE TABLE orders_before AS SELECT * FROM orders;
DROP TABLE orders;
CREATE TABLE orders (
  id           TEXT PRIMARY KEY,
  merchant_id  TEXT NOT NULL,
  mode         TEXT NOT NULL CHECK (mode IN ('test', 'production')),
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
  UNIQUE (merchant_id, mode, order_no)
);
INSERT INTO orders SELECT id, merchant_id, 'production', order_no, payment_no, amount, currency, status, pay_status,
                          created_at, updated_at, paid_at, cancelled_at FROM orders_before;
DROP TABLE orders_before;
CREATE INDEX orders_to_expire ON orders (created_at) WHERE status = 'pending' AND payment_no IS NULL;
