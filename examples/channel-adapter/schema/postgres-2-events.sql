-- What the channel tells its merchants of its own accord, written in the transaction that makes it true.
CREATE TABLE channel_events (
  id           UUID PRIMARY KEY,
  event_type   TEXT NOT NULL,
  data         TEXT NOT NULL,
  attempts     BIGINT NOT NULL DEFAULT 0,
  -- Unix seconds by the database's clock.
  due_at       BIGINT NOT NULL DEFAULT 0,
  created_at   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  delivered_at TIMESTAMPTZ
);
CREATE INDEX channel_events_due ON channel_events (due_at) WHERE delivered_at IS NULL;
