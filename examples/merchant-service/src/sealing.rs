//! API secrets at rest: sealed with XChaCha20-Poly1305 under one key that is not in the database.
//!
//! A sealed secret is bound to its key's id, so a row cannot be swapped for another. The sealing key comes
//! from `MERCHANT_SECRETS_KEY` or from a file with mode 0600 that the first start makes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use clap::Args;
use service_shell::{DatabaseChoice, Id, Settings, StartError, random_text};

/// The variable that replaces the key file.
pub(crate) const VARIABLE: &str = "MERCHANT_SECRETS_KEY";

/// The settings of merchant-service alone.
#[derive(Args)]
pub struct Own {
    /// The key that seals API secrets, 64 hexadecimal digits [default: a key file beside the embedded database].
    #[arg(long, env = "MERCHANT_SECRETS_KEY", value_parser = sealing_key)]
    merchant_secrets_key: Option<SealingKey>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own(…)")
    }
}

#[derive(Clone)]
struct SealingKey([u8; 32]);

fn sealing_key(text: &str) -> Result<SealingKey, &'static str> {
    parse(text).map(SealingKey).ok_or("must be 64 hexadecimal digits (openssl rand -hex 32)")
}

const NONCE_LENGTH: usize = 24;

/// A sealed text does not open: another key sealed it, or it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret does not open with the sealing key of this process")]
pub(crate) struct DoesNotOpen;

/// Seals and opens; never shows its key.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// Takes the key from the environment, or from the key file, which is made when missing.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Sealer, StartError> {
        let key = match settings.own::<Own>()?.merchant_secrets_key {
            Some(SealingKey(key)) => key,
            None => key_from_file(&key_file(settings))?,
        };
        Ok(Sealer::new(&key))
    }

    pub(crate) fn new(key: &[u8; 32]) -> Sealer {
        Sealer(XChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Seals `text` for the row `id`.
    pub(crate) fn seal(&self, id: Id, text: &str) -> Result<Vec<u8>, DoesNotOpen> {
        let nonce = XNonce::generate();
        let payload = Payload { msg: text.as_bytes(), aad: id.0.as_bytes() };
        let sealed = self.0.encrypt(&nonce, payload).map_err(|_| DoesNotOpen)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for the row `id`.
    pub(crate) fn open(&self, id: Id, sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(DoesNotOpen)?;
        let payload = Payload { msg: sealed, aad: id.0.as_bytes() };
        self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| DoesNotOpen)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// Beside the embedded database file, or in the data folder when the database is a server.
fn key_file(settings: &Settings) -> PathBuf {
    let database = match &settings.database {
        DatabaseChoice::Url(url) => url.strip_prefix("sqlite:").map(|rest| {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            PathBuf::from(path.split('?').next().unwrap_or(path))
        }),
        DatabaseChoice::Default => None,
    };
    database.unwrap_or_else(|| settings.default_file()).with_extension("key")
}

fn key_from_file(path: &Path) -> Result<[u8; 32], StartError> {
    let unwritable =
        |error: io::Error| StartError::Unwritable { path: path.to_owned(), reason: error.to_string() };
    if !path.exists() {
        create(path).map_err(unwritable)?;
    }
    refuse_readable_by_others(path)?;
    let text = fs::read_to_string(path).map_err(unwritable)?;
    parse(text.trim()).ok_or_else(|| {
        let reason = "it does not hold 64 hexadecimal digits; restore it from a backup".to_owned();
        StartError::Unwritable { path: path.to_owned(), reason }
    })
}

/// Complete or absent, also when two processes start at once or one is killed: written aside, then linked.
fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension(format!("key-{}", random_text(8)));
    let written = private_file(&aside).and_then(|mut file| {
        let key = Key::generate();
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "{digits}")?;
        file.sync_all()
    });
    let linked = written.and_then(|()| match fs::hard_link(&aside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    fs::remove_file(&aside)?;
    linked
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn refuse_readable_by_others(path: &Path) -> Result<(), StartError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
        if open {
            let reason = "other users may read this key; run chmod 600 on it".to_owned();
            return Err(StartError::Unwritable { path: path.to_owned(), reason });
        }
    }
    Ok(())
}

fn parse(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, index) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(index..index + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_and_for_its_row() {
        let (sealer, id) = (Sealer::new(&[7; 32]), Id::new());
        let sealed = sealer.seal(id, "secret").unwrap();
        assert_eq!(sealer.open(id, &sealed).unwrap(), b"secret");
        assert_ne!(sealed, sealer.seal(id, "secret").unwrap(), "a nonce is never reused");
        assert_eq!(sealer.open(Id::new(), &sealed), Err(DoesNotOpen));
        assert_eq!(Sealer::new(&[8; 32]).open(id, &sealed), Err(DoesNotOpen));
        let mut changed = sealed.clone();
        changed[30] ^= 1;
        assert_eq!(sealer.open(id, &changed), Err(DoesNotOpen));
        assert_eq!(sealer.open(id, &[]), Err(DoesNotOpen));
    }

    #[test]
    fn the_key_file_is_made_once_and_only_its_owner_may_read_it() {
        let folder = testkit::temp_dir();
        let path = folder.path().join("new/merchant-service.key");
        let first = key_from_file(&path).unwrap();
        assert_eq!(key_from_file(&path).unwrap(), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(key_from_file(&path).expect_err("readable").to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        assert_eq!(parse(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(parse(&"0f".repeat(31)), None);
        assert_eq!(parse(&"zz".repeat(32)), None);
    }
}
