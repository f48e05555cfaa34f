-- Fences rise above those of deleted records: a clock can stand still, or step back.
--
-- One row: no record that was ever deleted had a higher fence. A trigger keeps it, so it is also true of records that an
-- operator deletes, or a program of version 1.
CREATE TABLE idempotency_fences (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    highest INTEGER NOT NULL
);
INSERT INTO idempotency_fences (id, highest)
    SELECT 1, CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000;
CREATE TRIGGER idempotency_records_deleted AFTER DELETE ON idempotency_records
    WHEN OLD.fence > (SELECT highest FROM idempotency_fences)
BEGIN
    UPDATE idempotency_fences SET highest = OLD.fence;
END;
INSERT INTO idempotency_schema (version) VALUES (2);
