-- The orders that the sweep of every second looks at: it reads no others.
CREATE INDEX orders_to_expire ON orders (created_at) WHERE status = 'pending' AND payment_no IS NULL;
