//! The variables of a process: its environment, and a file for those who do not want to export twenty of them.

use std::path::{Path, PathBuf};

use crate::StartError;

/// Names the file; `.env` in the current folder, if it is there, unless set.
const ENV_FILE: &str = "ENV_FILE";

/// Reads the variables of the file and of this process that are text. One of the process comes later, and wins.
///
/// # Errors
/// [`StartError::Setting`] names the line of the file that cannot be read.
pub(crate) fn read() -> Result<Vec<(String, String)>, StartError> {
    let process =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    // An empty variable counts as absent, so it does not hide one of the file.
    let process: Vec<_> = process.filter(|(_, text)| !text.is_empty()).collect();
    let named = process.iter().find(|(name, _)| name == ENV_FILE).map(|(_, path)| PathBuf::from(path));
    let mut variables = match named {
        Some(path) => file(&path)?,
        None if Path::new(".env").exists() => file(Path::new(".env"))?,
        None => Vec::new(),
    };
    variables.extend(process);
    Ok(variables)
}

fn file(path: &Path) -> Result<Vec<(String, String)>, StartError> {
    // The error of a line quotes it, and it may hold a secret.
    let refused = |error: dotenvy::Error| match error {
        dotenvy::Error::LineParse(_, at) => StartError::setting(
            ENV_FILE,
            format!(
                "names {}, whose line breaks off near byte {at}: write NAME=value, and quote a value with spaces",
                path.display()
            ),
        ),
        other => {
            StartError::setting(ENV_FILE, format!("names {}, which cannot be read: {other}", path.display()))
        }
    };
    dotenvy::from_path_iter(path).map_err(refused)?.collect::<Result<_, _>>().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (testkit::TempDir, PathBuf) {
        let folder = testkit::temp_dir();
        let path = folder.path().join(".env");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_has_names_values_and_comments() {
        let (_folder, path) = written("# the gateway\nPORT=41003\nexport DATA_DIR='/tmp/with space'\n");
        let expected = [("PORT", "41003"), ("DATA_DIR", "/tmp/with space")];
        assert_eq!(file(&path).unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_refused_without_its_text() {
        let (_folder, path) = written("PORT=1\nSERVICE_TOKEN=secret with spaces\n");
        let refused = file(&path).unwrap_err().to_string();
        assert!(refused.starts_with("ENV_FILE names") && !refused.contains("secret"), "{refused}");
        let refused = file(Path::new("/nowhere/.env")).unwrap_err().to_string();
        assert!(refused.contains("/nowhere/.env, which cannot be read"), "{refused}");
    }
}
