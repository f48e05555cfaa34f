//! The statements of the engine, for the test of their plans: it needs a server, and so a crate that is not published.

use super::{session, sql};

/// The settings of the sessions that execute the statements.
pub const SETTINGS: [(&str, &str); 8] = session::SETTINGS;

/// Each statement with a name for it and the number of its parameters.
pub const STATEMENTS: [(&str, &str, usize); 15] = [
    ("insert", sql::INSERT_MANY, 8),
    ("inserted_before", sql::INSERTED_BEFORE, 2),
    ("append", sql::APPEND, 15),
    ("apply", sql::APPLY, 25),
    ("apply_several", sql::APPLY_SEVERAL, 26),
    ("positions", sql::POSITIONS, 1),
    ("claim", sql::CLAIM, 7),
    ("owned", sql::OWNED, 1),
    ("asked", sql::ASKED, 1),
    ("release_all", sql::RELEASE_ALL, 1),
    ("census", sql::CENSUS, 1),
    ("load", sql::INSTANCES, 1),
    ("rested", sql::RESTED, 1),
    ("steps", sql::STEPS, 1),
    ("purge", sql::PURGE, 2),
];
