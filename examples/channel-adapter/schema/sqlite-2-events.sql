-- What the channel tells its merchants of its own accord, written in the transaction that makes it true.
CREATE TABLE channel_events (
  id           TEXT PRIMARY KEY,
  event_type   TEXT NOT NULL,
  data         TEXT NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0,
  -- Unix seconds by the database's clock.
  due_at       INTEGER NOT NULL DEFAULT 0,
  created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  delivered_at TEXT
);
CREATE INDEX channel_events_due ON channel_events (due_at) WHERE delivered_at IS NULL;
