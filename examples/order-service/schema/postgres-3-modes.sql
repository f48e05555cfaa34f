-- Numbers and orders are of one mode. What was here before belongs to callers that name no mode.
ALTER TABLE order_numbers
  ADD COLUMN mode TEXT NOT NULL DEFAULT 'production' CHECK (mode IN ('test', 'production')),
  DROP CONSTRAINT order_numbers_pkey,
  ADD PRIMARY KEY (merchant_id, mode, order_no);
ALTER TABLE orders
  ADD COLUMN mode TEXT NOT NULL DEFAULT 'production' CHECK (mode IN ('test', 'production')),
  DROP CONSTRAINT orders_merchant_id_order_no_key,
  ADD UNIQUE (merchant_id, mode, order_no);
ALTER TABLE order_numbers ALTER COLUMN mode DROP DEFAULT;
ALTER TABLE orders ALTER COLUMN mode DROP DEFAULT;
