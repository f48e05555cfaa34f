//! Reads the operations out of an OpenAPI document, so that a test can hold it against the router.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every operation of a document as `POST /api/v1/payments`, sorted.
///
/// # Panics
/// When the text is not an OpenAPI document: the text is part of the build, so this is a bug, and its caller a test.
#[must_use]
pub fn operations(openapi: &str) -> BTreeSet<String> {
    #[expect(clippy::expect_used, reason = "the document is part of the build; callers are tests")]
    let document: Value = serde_json::from_str(openapi).expect("openapi.json is JSON");
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten().map(|(method, _)| method);
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}
