//! The operations of an OpenAPI document, for tests that call each of them.

use serde_json::Value;

/// One operation of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    /// The method, in upper case.
    pub method: String,
    /// The path, its `{parameters}` as they stand.
    pub path: String,
    /// True when the document asks for credentials.
    pub guarded: bool,
}

/// Lists the operations of an OpenAPI document.
///
/// # Examples
/// ```
/// let document = r#"{"paths": {"/notes/{id}": {"get": {"security": [{"service": []}]}}}}"#;
/// let listed = testkit::documented(&serde_json::from_str(document)?);
/// assert_eq!((listed[0].method.as_str(), listed[0].guarded), ("GET", true));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn documented(document: &Value) -> Vec<Documented> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| Documented {
            method: method.to_uppercase(),
            path: path.clone(),
            guarded: operation.get("security").is_some(),
        })
    });
    operations.collect()
}
