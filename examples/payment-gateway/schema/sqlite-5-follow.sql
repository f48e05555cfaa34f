-- The charge that the channel says it voided while the payment was open: it never counts again.
ALTER TABLE payments ADD COLUMN voided_charge TEXT;
-- When the saga was let go on that an applied webhook found stuck, or ended without that.
ALTER TABLE payment_callbacks ADD COLUMN followed_at TEXT;
UPDATE payment_callbacks SET followed_at = processed_at WHERE processed_at IS NOT NULL;
CREATE INDEX payment_callbacks_to_follow ON payment_callbacks (id) WHERE status = 'applied' AND followed_at IS NULL;

-- A refund knows the address itself: the sweep joins nothing and passes over those of payments without one.
ALTER TABLE refunds ADD COLUMN notify_url TEXT;
UPDATE refunds SET notify_url = (SELECT notify_url FROM payments WHERE payments.payment_no = refunds.payment_no);
DROP INDEX refunds_to_tell;
CREATE INDEX refunds_to_tell ON refunds (id) WHERE notify_url IS NOT NULL AND notify_status <> 'sent';
