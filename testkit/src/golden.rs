//! Golden files: the bytes that earlier builds stored or sent, kept in the repository.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// The environment variable that lets [`golden`] create files.
const VARIABLE: &str = "PROBITY_GOLDEN";

/// Compares `written`, which the code under test just wrote, with the golden file at `path`, and returns the text of
/// that file for the reading half of the test.
///
/// The file is made by hand or by `PROBITY_GOLDEN=write`, which creates files that are missing. A file that exists is
/// never changed: what is stored in somebody's database does not change either.
///
/// ```no_run
/// let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/v1/keys.txt");
/// let stored = testkit::golden(path, "order-7:Pay:do\n");
/// assert_eq!(stored.lines().count(), 1); // here the reader of the format is tested with `stored`
/// ```
///
/// # Panics
///
/// If the file says something else, or is missing. The message says how a format may change.
#[track_caller]
pub fn golden(path: impl AsRef<Path>, written: &str) -> String {
    let path = path.as_ref();
    let creates = std::env::var(VARIABLE).is_ok_and(|value| value == "write");
    match compared(path, written, creates) {
        Ok(stored) => stored,
        Err(message) => panic!("{message}"),
    }
}

fn compared(path: &Path, written: &str, creates: bool) -> Result<String, String> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(stored) if stored == written => Ok(stored),
        Ok(stored) => Err(format!("{}\n{HOW_TO_CHANGE}", difference(path, &stored, written))),
        Err(error) if creates && error.kind() == ErrorKind::NotFound => {
            match File::create_new(path).and_then(|mut file| file.write_all(written.as_bytes())) {
                Ok(()) => Ok(written.to_owned()),
                Err(error) => Err(format!("the golden file {shown} cannot be created: {error}")),
            }
        }
        Err(error) => Err(format!(
            "the golden file {shown} cannot be read: {error}\nA new format gets its file with {VARIABLE}=write. Read \
             the file before you commit it."
        )),
    }
}

/// The first line that differs.
fn difference(path: &Path, stored: &str, written: &str) -> String {
    let shown = path.display();
    let (mut old, mut new) = (stored.lines(), written.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (before, after) if before == after => {}
            (before, after) => {
                let (before, after) = (before.unwrap_or("(the end)"), after.unwrap_or("(the end)"));
                return format!(
                    "this build no longer writes what {shown} says\n  line {number} of the file: {before}\n  this \
                     build:         {after}"
                );
            }
        }
    }
    format!("this build no longer writes what {shown} says: the two differ in line ends only")
}

/// The rule of CONTRIBUTING.md, where the person who broke it reads it.
const HOW_TO_CHANGE: &str = "
Databases and clients of deployed versions hold this form. If a name or a hash changes, a retry no longer finds its
record and the effect happens twice; if a document changes, a saga that is open cannot go on.

If the change was not intended, undo it. If it was:
  1. leave the files under v1/ as they are;
  2. give the new form a version of its own, and write its files to v2/ beside v1/;
  3. keep the reader of v1/, and turn its test into one that only reads;
  4. say in the CHANGELOG which versions may run at the same time, and in which order to deploy.
Before the first release nobody has stored anything: until then a commit may replace a file of v1/ and must say why.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_format_fails_and_names_the_line_and_the_way_to_change_it() {
        let folder = crate::temp_dir();
        let path = folder.path().join("keys.txt");
        let missing = compared(&path, "a\nb\n", false).expect_err("there is no file");
        assert!(missing.contains("PROBITY_GOLDEN=write"), "{missing}");
        assert_eq!(compared(&path, "a\nb\n", true).as_deref(), Ok("a\nb\n"), "a missing file is created");
        assert_eq!(compared(&path, "a\nb\n", false).as_deref(), Ok("a\nb\n"));

        let changed = compared(&path, "a\nc\n", true).expect_err("an existing file is never changed");
        assert!(changed.contains("line 2 of the file: b") && changed.contains("v2/"), "{changed}");
        let shorter = compared(&path, "a\n", false).expect_err("a line is missing");
        assert!(shorter.contains("(the end)"), "{shorter}");
        assert!(compared(&path, "a\r\nb\n", false).is_err(), "line ends count");
        assert_eq!(fs::read_to_string(&path).expect("is there"), "a\nb\n");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_as_it_is() {
        let folder = crate::temp_dir();
        let path = folder.path().join("keys.txt");
        fs::write(&path, b"\xff").expect("a file");
        let message = compared(&path, "a\n", true).expect_err("no text");
        assert!(message.contains("cannot be read"), "{message}");
        assert_eq!(fs::read(&path).expect("is there"), b"\xff");
    }
}
