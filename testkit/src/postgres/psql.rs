//! SQL by `psql`, with no pool and no code under test in between.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs SQL and gives the rows, one a line, or the complaint of the server.
pub(super) fn run(psql: &Path, url: &str, sql: &str) -> Result<String, String> {
    let answer = Command::new(psql)
        .args(["--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set", "ON_ERROR_STOP=1", "--dbname", url, "--command", sql])
        .env("PGCONNECT_TIMEOUT", "5")
        .env("PGAPPNAME", "testkit")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("failed to run {}: {error}", psql.display()))?;
    if answer.status.success() {
        Ok(String::from_utf8_lossy(&answer.stdout).trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&answer.stderr).trim_end().to_owned())
    }
}
