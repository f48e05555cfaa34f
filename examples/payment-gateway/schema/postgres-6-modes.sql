-- The mode that the payment's saga tells its neighbours. Those of before told none, and their refunds tell none either.
ALTER TABLE payments ADD COLUMN peer_mode TEXT;
