-- What a service needs that starts and drives sagas. Replace `payments` by its role; if you chose a schema or a table
-- prefix, use those names. The last line is for people and their tools.

GRANT USAGE ON SCHEMA public TO payments;
GRANT SELECT ON saga_schema TO payments;
GRANT SELECT, INSERT, UPDATE, DELETE ON saga_heads TO payments;
GRANT SELECT, INSERT, UPDATE, DELETE ON saga_step_rows TO payments;
GRANT SELECT, INSERT, UPDATE, DELETE ON saga_workers TO payments;
GRANT SELECT, INSERT, UPDATE ON saga_definitions TO payments;
GRANT INSERT ON saga_audit TO payments;

-- GRANT SELECT ON saga_instances, saga_steps, saga_audit TO support;
