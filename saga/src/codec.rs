//! The form of payloads in the store: plain JSON, or sealed by a codec of yours.
//!
//! Invariant: a sealed document names its key, so keys can change while sagas are open, and a
//! document that cannot be opened stops its own saga only. Start at [`Codec`].

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::{Document, MAX_DOCUMENT, SagaId, unquoted};

/// Seals inputs and outputs before they reach the store, and opens them again: encryption at rest.
///
/// Reasons, error texts and evidence are not payload: operators and dashboards read them. Keep
/// secrets out of them.
///
/// A stored document is plain JSON, or `@key-id:` and what [`seal`](Self::seal) answered. Therefore a codec can be
/// added while plain sagas are open, and a key can be replaced: seal with the new one, open with each that open sagas
/// may still name. A document that cannot be opened pauses its saga with the reason; nothing is run or undone.
///
/// # Examples
///
/// A toy, to show the shape. Use an authenticated cipher, with the [`Place`] as its associated data,
/// and a fresh nonce in each answer of `seal`.
///
/// ```
/// use probity_saga::codec::{Codec, CodecError, Place};
///
/// struct Toy { current: &'static str, keys: &'static [(&'static str, u8)] }
///
/// impl Toy {
///     fn key(&self, id: &str) -> Result<u8, CodecError> {
///         let found = self.keys.iter().find(|(known, _)| *known == id);
///         found.map(|(_, key)| *key).ok_or_else(|| CodecError::unknown_key(id))
///     }
/// }
///
/// impl Codec for Toy {
///     fn key_id(&self) -> &str {
///         self.current
///     }
///     fn seal(&self, place: &Place<'_>, json: &str) -> Result<String, CodecError> {
///         let key = self.key(self.current)?;
///         Ok(format!("{place}|{json}").bytes().map(|byte| format!("{:02x}", byte ^ key)).collect())
///     }
///     fn open(&self, key_id: &str, place: &Place<'_>, sealed: &str) -> Result<String, CodecError> {
///         let key = self.key(key_id)?;
///         let bytes = (0..sealed.len() / 2).map(|at| u8::from_str_radix(&sealed[2 * at..2 * at + 2], 16));
///         let bytes: Result<Vec<u8>, _> = bytes.map(|byte| byte.map(|byte| byte ^ key)).collect();
///         let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
///         let json = text.and_then(|text| text.strip_prefix(&format!("{place}|")).map(str::to_owned));
///         json.ok_or_else(|| CodecError::new("it was sealed for another place, or damaged"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use probity_saga::{MemoryStore, Orchestrator};
/// let codec = Toy { current: "2026", keys: &[("2025", 0x51), ("2026", 0x2a)] };
/// let orchestrator = Orchestrator::new(MemoryStore::new()).codec(codec).start().await?;
/// # let _ = orchestrator;
/// # Ok(()) }
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The key that [`seal`](Self::seal) uses: 1 to 64 of the characters `A-Z a-z 0-9 _ - .`
    fn key_id(&self) -> &str;

    /// Seals a document. The answer is stored as text and must have no NUL.
    ///
    /// # Errors
    /// If it cannot be sealed: an input is then refused, an output counts as lost.
    fn seal(&self, place: &Place<'_>, json: &str) -> Result<String, CodecError>;

    /// Opens what was sealed with this key for this place.
    ///
    /// # Errors
    /// If the key is not known, or the text is damaged, or was sealed for another place: the saga is
    /// paused with this reason.
    fn open(&self, key_id: &str, place: &Place<'_>, sealed: &str) -> Result<String, CodecError>;

    /// The stored hash of an input, by which a second start with another input is refused. Override
    /// it with a keyed hash, and keep its key for ever, where inputs could be guessed.
    fn digest(&self, json: &str) -> String {
        digest(json)
    }
}

/// Which document is sealed. Its text, `saga type/saga id/input` or `…/output/step`, is unique to it:
/// bind it, so that no document can be put in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The type of the saga.
    pub saga_type: &'a str,
    /// The saga.
    pub saga: SagaId,
    /// The step whose output it is; `None` for the input of the saga.
    pub output_of: Option<&'a str>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.saga_type, self.saga)?;
        match self.output_of {
            None => f.write_str("input"),
            Some(step) => write!(f, "output/{step}"),
        }
    }
}

/// The reason for which a codec could not do its work. The reason is stored and logged: never quote a payload in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// An error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The document names a key that this process does not have.
    #[must_use]
    pub fn unknown_key(key_id: &str) -> Self {
        Self(format!("key {key_id:?} is not known to this process"))
    }
}

fn digest(json: &str) -> String {
    blake3::hash(json.as_bytes()).to_hex()[..32].into()
}

/// The reason for which a value cannot become a stored document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unstorable {
    #[error("{0}")]
    Encoding(String),
    /// Another try would be as long.
    #[error("it has {0} bytes, the limit is {MAX_DOCUMENT}")]
    TooLong(usize),
}

/// Between values and documents: the codec, if there is one, and the limit.
#[derive(Clone, Default)]
pub(crate) struct Sealer(pub(crate) Option<Arc<dyn Codec>>);

impl Sealer {
    pub(crate) fn seal<T: Serialize>(&self, place: &Place<'_>, value: &T) -> Result<Document, Unstorable> {
        let plain = Document::encode(value).map_err(|error| Unstorable::Encoding(unquoted(&error)))?;
        self.seal_plain(place, plain)
    }

    /// Seals a document that is still plain.
    pub(crate) fn seal_plain(&self, place: &Place<'_>, plain: Document) -> Result<Document, Unstorable> {
        let stored = match &self.0 {
            None => plain,
            Some(codec) => {
                let sealed = codec.seal(place, plain.as_json());
                let sealed = sealed.map_err(|error| Unstorable::Encoding(error.to_string()))?;
                Document::from_stored(format!("@{}:{sealed}", codec.key_id()))
            }
        };
        match stored.as_json().len() {
            bytes if bytes > MAX_DOCUMENT => Err(Unstorable::TooLong(bytes)),
            _ => Ok(stored),
        }
    }

    pub(crate) fn digest(&self, plain: &Document) -> String {
        match &self.0 {
            None => digest(plain.as_json()),
            Some(codec) => codec.digest(plain.as_json()),
        }
    }

    pub(crate) fn open<T: DeserializeOwned>(
        &self,
        place: &Place<'_>,
        stored: &Document,
    ) -> Result<T, String> {
        self.open_plain(place, stored)?.decode().map_err(|error| unquoted(&error))
    }

    pub(crate) fn open_plain(&self, place: &Place<'_>, stored: &Document) -> Result<Document, String> {
        // No JSON begins with this character.
        let Some(sealed) = stored.as_json().strip_prefix('@') else { return Ok(stored.clone()) };
        let (key_id, sealed) = sealed.split_once(':').ok_or("it is sealed, but names no key")?;
        let codec = self.0.as_ref().ok_or_else(|| {
            format!("it is sealed with key {key_id:?}, and this process was given no codec")
        })?;
        codec.open(key_id, place, sealed).map(Document::from_stored).map_err(|error| error.to_string())
    }
}
