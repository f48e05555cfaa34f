-- All that a service needs when somebody else makes the tables. Replace service by its role.
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_records TO service;
GRANT SELECT ON idempotency_schema TO service;
