-- paid
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\xb10edfe3d5a5a0088b7dfed7f4ad89fdb5baa3cdf10c146490a91bbb12421313', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'marked', -- effects
    'completed', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000030000000', -- lease_until
    '1700000300000000', -- cap_until
    '1700086400000000', -- expires_at
    NULL, -- effect_at
    '1700000000000000', -- finished_at
    '201', -- status
    E'\\x010c00000000000000636f6e74656e742d7479706510000000000000006170706c69636174696f6e2f6a736f6e08000000000000006c6f636174696f6e0b000000000000002f7061796d656e74732f3104000000000000006c696e6b1b000000000000003c2f7061796d656e74733e3b2072656c3d636f6c6c656374696f6e04000000000000006c696e6b17000000000000003c2f726566756e64733e3b2072656c3d72656c61746564', -- headers
    E'\\x7b227061796d656e74223a225041592d31227d', -- body
    NULL, -- location
    NULL -- reason
);
-- paid-grpc
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\x31250cbb7aae2190b111de31255fb1c9a318a4cc8e76af50b9719bb008b299a4', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'marked', -- effects
    'completed', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000030000000', -- lease_until
    '1700000300000000', -- cap_until
    '1700086400000000', -- expires_at
    NULL, -- effect_at
    '1700000000000000', -- finished_at
    '201', -- status
    E'\\x010c00000000000000636f6e74656e742d7479706510000000000000006170706c69636174696f6e2f67727063000000000000000000000000000000000b00000000000000677270632d737461747573010000000000000030', -- headers
    E'\\x70616964', -- body
    NULL, -- location
    NULL -- reason
);
-- secret
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\xbf36a5ed6494c5deb1e6e6cd687220e3c10439c022e7bd8468b4192166a23a19', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'marked', -- effects
    'tombstoned', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000030000000', -- lease_until
    '1700000300000000', -- cap_until
    '1700086400000000', -- expires_at
    NULL, -- effect_at
    '1700000000000000', -- finished_at
    '201', -- status
    NULL, -- headers
    NULL, -- body
    E'\\x2f63617264732f31', -- location
    'not_stored' -- reason
);
-- busy
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\x7c3ee598ea49a8453480eb275f1896beeff44f0df76ed95926e22604a9cd99fa', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'marked', -- effects
    'released', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000030000000', -- lease_until
    '1700000300000000', -- cap_until
    '1700000600000000', -- expires_at
    NULL, -- effect_at
    '1700000000000000', -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
-- job
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\xb15673fd440b6548d257b969ba866c6bed803de5a745eb4b0eca6a8b25348fcd', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'local', -- effects
    'completed', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000030000000', -- lease_until
    '1700007200000000', -- cap_until
    '1700086400000000', -- expires_at
    NULL, -- effect_at
    '1700000000000000', -- finished_at
    '0', -- status
    E'\\x01', -- headers
    E'\\x3320726f7773', -- body
    NULL, -- location
    NULL -- reason
);
-- running
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\x96001f8461f6280325f4c33299c0b77c5fca1fba3d662596c241af4f17b14814', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'local', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700003600000000', -- lease_until
    '1700007200000000', -- cap_until
    '1700093600000000', -- expires_at
    NULL, -- effect_at
    NULL, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
-- crashed
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\x30f25c97055ea73368731d1e1339f7ef7bfc6c1b68e5d827df5a32ad32563de3', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'local', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000000000000', -- lease_until
    '1700007200000000', -- cap_until
    '1700093600000000', -- expires_at
    NULL, -- effect_at
    NULL, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
-- lost
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\x20ad8555a31c52bbc138d170aa721f0e313ee4200d5b523e0327b900b6477fe6', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'marked', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000000000000', -- lease_until
    '1700007200000000', -- cap_until
    '1700093600000000', -- expires_at
    '1700000000000000', -- effect_at
    NULL, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
-- opaque
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    E'\\xd1a58b032fce7d5723737bdf78f00f0c0c5dbd8e12bac83c788b0516217a17b2', -- id
    '\x7369787465656e206c65747465727321', -- token
    E'\\x012272eed44ba3dce96316186b8bc6fc0e8fdc7227bd29f40121d69a1f8b75ca11', -- fingerprint
    'opaque', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    '1', -- attempt
    '1700000000000000', -- created_at
    '1700000000000000', -- lease_until
    '1700007200000000', -- cap_until
    '1700093600000000', -- expires_at
    NULL, -- effect_at
    NULL, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
