INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000001', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'broken', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'paused', -- status
    '2', -- current_step
    '1', -- unresolved
    '2', -- row_version
    '2', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    'in_progress', -- resume_status
    'Charge: no credentials' -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000002', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'declined', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'compensated', -- status
    '2', -- current_step
    '0', -- unresolved
    '3', -- row_version
    '3', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    NULL, -- resume_status
    'Charge: card declined' -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000003', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'done', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'completed', -- status
    '3', -- current_step
    '0', -- unresolved
    '3', -- row_version
    '3', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    NULL, -- resume_status
    NULL -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000004', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'doubt', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'stuck', -- status
    '2', -- current_step
    '1', -- unresolved
    '2', -- row_version
    '2', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    'in_progress', -- resume_status
    'Charge: connection reset' -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000005', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'hanging', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    'cancel by ann: fraud', -- cancel_reason
    'in_progress', -- status
    '0', -- current_step
    '0', -- unresolved
    '2', -- row_version
    '0', -- write_no
    clock_timestamp(), -- updated_at
    '00000000-0000-7000-8000-000000000006', -- owner_id
    NULL, -- resume_status
    NULL -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000007', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'sealed', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '@k1:payment/00000000-0000-7000-8000-000000000007/input|{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'completed', -- status
    '3', -- current_step
    '0', -- unresolved
    '3', -- row_version
    '3', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    NULL, -- resume_status
    NULL -- error_message
);
INSERT INTO saga_heads (id, created_at, run_at, lease_epoch, stalled_claims, pause_requested, business_id, business_type, definition, input, input_hash, metadata, cancel_reason, status, current_step, unresolved, row_version, write_no, updated_at, owner_id, resume_status, error_message)
VALUES (
    '00000000-0000-7000-8000-000000000008', -- id
    clock_timestamp(), -- created_at
    clock_timestamp(), -- run_at
    '1', -- lease_epoch
    '0', -- stalled_claims
    'false', -- pause_requested
    'waiting', -- business_id
    'payment', -- business_type
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- definition
    '{"amount":100,"note":null}', -- input
    '583a276fa2954ad41507171a009e630c', -- input_hash
    NULL, -- metadata
    NULL, -- cancel_reason
    'in_progress', -- status
    '2', -- current_step
    '0', -- unresolved
    '2', -- row_version
    '2', -- write_no
    clock_timestamp(), -- updated_at
    NULL, -- owner_id
    NULL, -- resume_status
    NULL -- error_message
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000001', -- saga_id
    '1', -- step_order
    '1', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'succeeded', -- status
    '{"key":"00000000-0000-7000-8000-000000000001:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000001', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    NULL, -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'unknown', -- status
    NULL, -- result
    'no credentials', -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000002', -- saga_id
    '1', -- step_order
    '3', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'compensated', -- status
    '{"key":"00000000-0000-7000-8000-000000000002:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    clock_timestamp(), -- compensated_at
    'released by 00000000-0000-7000-8000-000000000002:Reserve:undo', -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000002', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    NULL, -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'failed', -- status
    NULL, -- result
    'card declined', -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000003', -- saga_id
    '1', -- step_order
    '1', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'succeeded', -- status
    '{"key":"00000000-0000-7000-8000-000000000003:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000003', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'succeeded', -- status
    '"charged [100, 0] of 00000000-0000-7000-8000-000000000003:Reserve:do"', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000003', -- saga_id
    '3', -- step_order
    '3', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Tell', -- step_name
    'succeeded', -- status
    'null', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000004', -- saga_id
    '1', -- step_order
    '1', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'succeeded', -- status
    '{"key":"00000000-0000-7000-8000-000000000004:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000004', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    NULL, -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'unknown', -- status
    NULL, -- result
    'connection reset', -- error_message
    '1', -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000007', -- saga_id
    '1', -- step_order
    '1', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'succeeded', -- status
    '@k1:payment/00000000-0000-7000-8000-000000000007/output/Reserve|{"key":"00000000-0000-7000-8000-000000000007:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000007', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'succeeded', -- status
    '@k1:payment/00000000-0000-7000-8000-000000000007/output/Charge|"charged [100, 0] of 00000000-0000-7000-8000-000000000007:Reserve:do"', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000007', -- saga_id
    '3', -- step_order
    '3', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Tell', -- step_name
    'succeeded', -- status
    '@k1:payment/00000000-0000-7000-8000-000000000007/output/Tell|null', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000008', -- saga_id
    '1', -- step_order
    '1', -- write_no
    '1', -- lease_epoch
    clock_timestamp(), -- executed_at
    '3', -- max_retry_count
    'Reserve', -- step_name
    'succeeded', -- status
    '{"key":"00000000-0000-7000-8000-000000000008:Reserve:do","parts":[100,0]}', -- result
    NULL, -- error_message
    NULL, -- retry_count
    NULL, -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name, status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count, completion_no, resolved_by)
VALUES (
    '00000000-0000-7000-8000-000000000008', -- saga_id
    '2', -- step_order
    '2', -- write_no
    '1', -- lease_epoch
    NULL, -- executed_at
    '3', -- max_retry_count
    'Charge', -- step_name
    'executing', -- status
    NULL, -- result
    'busy', -- error_message
    '1', -- retry_count
    clock_timestamp(), -- next_retry_at
    NULL, -- compensated_at
    NULL, -- evidence
    NULL, -- undo_retry_count
    NULL, -- completion_no
    NULL -- resolved_by
);
INSERT INTO saga_definitions (fingerprint, saga_type, version, steps, seen_at)
VALUES (
    '15d4e46aacbd8ddd9ae025451fc9b95f', -- fingerprint
    'payment', -- saga_type
    '2', -- version
    '[{"kind": "undo", "name": "Reserve", "no_compensation": null}, {"kind": "pivot", "name": "Charge", "no_compensation": null}, {"kind": "forward", "name": "Tell", "no_compensation": null}]', -- steps
    clock_timestamp() -- seen_at
);
INSERT INTO saga_audit (saga_id, at, actor, action, reason, before, after)
VALUES (
    '00000000-0000-7000-8000-000000000005', -- saga_id
    clock_timestamp(), -- at
    'ann', -- actor
    'cancel', -- action
    'fraud', -- reason
    'in_progress', -- before
    'in_progress' -- after
);
INSERT INTO saga_workers (worker_id, pid, started_at, heartbeat_at, expires_at)
VALUES (
    '00000000-0000-7000-8000-000000000006', -- worker_id
    4242, -- pid
    clock_timestamp(), -- started_at
    clock_timestamp(), -- heartbeat_at
    clock_timestamp() -- expires_at
);
INSERT INTO saga_workers (worker_id, pid, started_at, heartbeat_at, expires_at)
VALUES (
    '00000000-0000-7000-8000-000000000009', -- worker_id
    4242, -- pid
    clock_timestamp(), -- started_at
    clock_timestamp(), -- heartbeat_at
    clock_timestamp() -- expires_at
);
