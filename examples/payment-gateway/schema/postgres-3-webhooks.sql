-- Every webhook whose signature was a channel's, as it came, once per event.
CREATE TABLE payment_callbacks (
  id           UUID PRIMARY KEY,
  channel      TEXT NOT NULL,
  event_id     TEXT NOT NULL,
  event_type   TEXT NOT NULL,
  -- The payment or refund that it speaks of, if it names one.
  subject      TEXT,
  raw          BYTEA NOT NULL,
  status       TEXT NOT NULL CHECK (status IN
               ('parked', 'applied', 'unchanged', 'ignored', 'mismatch', 'contradicts', 'unreadable')),
  detail       TEXT,
  deliveries   BIGINT NOT NULL DEFAULT 1,
  created_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  processed_at TIMESTAMPTZ,
  UNIQUE (channel, event_id)
);
CREATE INDEX payment_callbacks_parked ON payment_callbacks (subject) WHERE status = 'parked';
CREATE INDEX payment_callbacks_by_subject ON payment_callbacks (subject);
