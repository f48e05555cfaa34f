-- What the role of a service needs to use version 1. It needs USAGE of the schema as well, and no right to create.
GRANT SELECT, INSERT, UPDATE, DELETE ON probity_txn_tokens TO my_service;
