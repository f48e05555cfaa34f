-- A number is of one mode, and its charges, refunds and transfers with it. What was here before belongs to callers that
-- name no mode.
ALTER TABLE channel_payments ADD COLUMN mode TEXT NOT NULL DEFAULT 'production' CHECK (mode IN ('test', 'production'));
ALTER TABLE channel_transfer_orders ADD COLUMN mode TEXT NOT NULL DEFAULT 'production' CHECK (mode IN ('test', 'production'));
