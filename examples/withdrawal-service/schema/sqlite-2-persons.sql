-- Version 2: the operators who executed and rejected.
ALTER TABLE withdrawals ADD COLUMN executed_by TEXT;
ALTER TABLE withdrawals ADD COLUMN rejected_by TEXT;
