-- paid
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'B10EDFE3D5A5A0088B7DFED7F4AD89FDB5BAA3CDF10C146490A91BBB12421313', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'marked', -- effects
    'completed', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000030000000, -- lease_until
    1700000300000000, -- cap_until
    1700086400000000, -- expires_at
    NULL, -- effect_at
    1700000000000000, -- finished_at
    201, -- status
    X'010C00000000000000636F6E74656E742D7479706510000000000000006170706C69636174696F6E2F6A736F6E08000000000000006C6F636174696F6E0B000000000000002F7061796D656E74732F3104000000000000006C696E6B1B000000000000003C2F7061796D656E74733E3B2072656C3D636F6C6C656374696F6E04000000000000006C696E6B17000000000000003C2F726566756E64733E3B2072656C3D72656C61746564', -- headers
    X'7B227061796D656E74223A225041592D31227D', -- body
    NULL, -- location
    NULL -- reason
);
-- paid-grpc
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'31250CBB7AAE2190B111DE31255FB1C9A318A4CC8E76AF50B9719BB008B299A4', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'marked', -- effects
    'completed', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000030000000, -- lease_until
    1700000300000000, -- cap_until
    1700086400000000, -- expires_at
    NULL, -- effect_at
    1700000000000000, -- finished_at
    201, -- status
    X'010C00000000000000636F6E74656E742D7479706510000000000000006170706C69636174696F6E2F67727063000000000000000000000000000000000B00000000000000677270632D737461747573010000000000000030', -- headers
    X'70616964', -- body
    NULL, -- location
    NULL -- reason
);
-- secret
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'BF36A5ED6494C5DEB1E6E6CD687220E3C10439C022E7BD8468B4192166A23A19', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'marked', -- effects
    'tombstoned', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000030000000, -- lease_until
    1700000300000000, -- cap_until
    1700086400000000, -- expires_at
    NULL, -- effect_at
    1700000000000000, -- finished_at
    201, -- status
    NULL, -- headers
    NULL, -- body
    X'2F63617264732F31', -- location
    'not_stored' -- reason
);
-- busy
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'7C3EE598EA49A8453480EB275F1896BEEFF44F0DF76ED95926E22604A9CD99FA', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'marked', -- effects
    'released', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000030000000, -- lease_until
    1700000300000000, -- cap_until
    1700000600000000, -- expires_at
    NULL, -- effect_at
    1700000000000000, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
-- job
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'B15673FD440B6548D257B969BA866C6BED803DE5A745EB4B0ECA6A8B25348FCD', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'local', -- effects
    'completed', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000030000000, -- lease_until
    1700007200000000, -- cap_until
    1700086400000000, -- expires_at
    NULL, -- effect_at
    1700000000000000, -- finished_at
    0, -- status
    X'01', -- headers
    X'3320726F7773', -- body
    NULL, -- location
    NULL -- reason
);
-- running
INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, lease_until, cap_until, expires_at, effect_at, finished_at, status, headers, body, location, reason)
VALUES (
    X'96001F8461F6280325F4C33299C0B77C5FCA1FBA3D662596C241AF4F17B14814', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'local', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700003600000000, -- lease_until
    1700007200000000, -- cap_until
    1700093600000000, -- expires_at
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
    X'30F25C97055EA73368731D1E1339F7EF7BFC6C1B68E5D827DF5A32AD32563DE3', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'local', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000000000000, -- lease_until
    1700007200000000, -- cap_until
    1700093600000000, -- expires_at
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
    X'20AD8555A31C52BBC138D170AA721F0E313EE4200D5B523E0327B900B6477FE6', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'marked', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000000000000, -- lease_until
    1700007200000000, -- cap_until
    1700093600000000, -- expires_at
    1700000000000000, -- effect_at
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
    X'D1A58B032FCE7D5723737BDF78F00F0C0C5DBD8E12BAC83C788B0516217A17B2', -- id
    X'7369787465656e206c65747465727321', -- token
    X'012272EED44BA3DCE96316186B8BC6FC0E8FDC7227BD29F40121D69A1F8B75CA11', -- fingerprint
    'opaque', -- effects
    'in_flight', -- state
    1700000000000000, -- fence
    1, -- attempt
    1700000000000000, -- created_at
    1700000000000000, -- lease_until
    1700007200000000, -- cap_until
    1700093600000000, -- expires_at
    NULL, -- effect_at
    NULL, -- finished_at
    NULL, -- status
    NULL, -- headers
    NULL, -- body
    NULL, -- location
    NULL -- reason
);
