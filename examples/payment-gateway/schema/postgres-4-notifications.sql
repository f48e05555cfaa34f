-- The address that its merchant wants to be told at, and how far that has come.
ALTER TABLE payments ADD COLUMN notify_url TEXT;
ALTER TABLE refunds ADD COLUMN notify_status TEXT NOT NULL DEFAULT 'none'
  CHECK (notify_status IN ('none', 'pending', 'sent', 'failed'));
CREATE INDEX payments_to_tell ON payments (id) WHERE notify_url IS NOT NULL AND notify_status <> 'sent';
CREATE INDEX refunds_to_tell ON refunds (id) WHERE notify_status <> 'sent';
