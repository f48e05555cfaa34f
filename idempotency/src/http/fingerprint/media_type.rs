//! Content types, without what says nothing about the content.

use std::borrow::Cow;

/// A `Content-Type` as it counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MediaType<'a> {
    /// In lower case, with its parameters in order of their names; without `charset`, and without the boundary of a
    /// multipart type.
    pub(crate) text: Cow<'a, [u8]>,
    /// That boundary, if it is one.
    pub(crate) boundary: Option<Vec<u8>>,
}

impl<'a> MediaType<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Self {
        if !value.iter().any(|byte| *byte == b';' || byte.is_ascii_uppercase() || byte.is_ascii_whitespace())
        {
            return Self { text: Cow::Borrowed(value), boundary: None };
        }
        let mut pieces = pieces(value).into_iter();
        let mut text = pieces.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let multipart = text.starts_with(b"multipart/");
        let (mut boundary, mut kept) = (None, Vec::new());
        for piece in pieces.map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()) {
            let equals = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
            let (name, value) = piece.split_at(equals);
            let name = name.trim_ascii().to_ascii_lowercase();
            match &name[..] {
                b"charset" => {}
                b"boundary" if multipart => boundary = Some(unquoted(value)),
                _ => kept.push([&name[..], value].concat()),
            }
        }
        kept.sort();
        for parameter in kept {
            text.push(b';');
            text.extend(parameter);
        }
        Self {
            text: Cow::Owned(text),
            boundary: boundary.filter(|boundary| (1..=BOUNDARY_MAX).contains(&boundary.len())),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        let essence = self.text.split(|byte| *byte == b';').next().unwrap_or_default();
        essence == b"application/json" || essence.ends_with(b"+json")
    }
}

/// The longest boundary that RFC 2046, 5.1.1, allows. To look for one of any length would let a client choose what that
/// costs; a body with a longer one counts byte for byte.
const BOUNDARY_MAX: usize = 70;

/// Splits a header value at the semicolons that are not inside quotes.
fn pieces(value: &[u8]) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(|byte| {
            let splits = *byte == b';' && !quoted;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            splits
        })
        .collect()
}

/// The value behind an equals sign, without quotes around it.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut escaped = false;
    inner
        .iter()
        .copied()
        .filter(|byte| {
            escaped = *byte == b'\\' && !escaped;
            !escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> String {
        String::from_utf8(MediaType::parse(value.as_bytes()).text.into_owned()).expect("as it came")
    }

    #[test]
    fn charset_case_and_order_of_parameters_do_not_count() {
        for same in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json ; Charset=\"UTF-8\"",
            "application/json;",
        ] {
            assert_eq!(text(same), "application/json");
        }
        assert_eq!(text("text/x; b=2; A=\"x;y\""), text("text/x;a=\"x;y\";b=2"));
        assert_eq!(text(r#"text/x; b=1; a="x\";y""#), r#"text/x;a="x\";y";b=1"#, "a quote inside quotes");
        assert_eq!(text(r#"text/x; b=\"x;y"; a=1"#), r#"text/x;a=1;b=\"x;y""#, "no escape outside of them");
        assert!(
            matches!(MediaType::parse(b"application/json").text, Cow::Borrowed(_)),
            "nothing to leave out"
        );
        assert_ne!(text("text/x; a=1"), text("text/x; a=2"));
        assert_ne!(text("text/x; a=U"), text("text/x; a=u"), "the case of a value counts");
    }

    #[test]
    fn the_boundary_is_taken_out_of_multipart_types_only() {
        let boundary = |value: &str| MediaType::parse(value.as_bytes()).boundary;
        assert_eq!(boundary("multipart/form-data; boundary=X-1"), Some(b"X-1".to_vec()));
        assert_eq!(boundary("Multipart/mixed; Boundary=\"a;\\\"b\""), Some(b"a;\"b".to_vec()));
        assert_eq!(text("multipart/form-data; boundary=X-1"), "multipart/form-data");
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        let long = |length: usize| boundary(&format!("multipart/form-data; boundary={}", "b".repeat(length)));
        assert_eq!(long(70), Some(vec![b'b'; 70]), "the longest that is allowed");
        assert_eq!(long(71), None, "its body counts byte for byte");
        assert_eq!(
            (boundary("text/x; boundary=1"), text("text/x; boundary=1")),
            (None, "text/x;boundary=1".into())
        );
    }

    #[test]
    fn json_is_known_by_its_name() {
        for (value, json) in [
            ("application/json; charset=x", true),
            ("application/vnd.pay+json", true),
            ("application/vnd.pay+json; v=1", true),
            ("text/json-like", false),
            ("", false),
        ] {
            assert_eq!(MediaType::parse(value.as_bytes()).is_json(), json, "{value}");
        }
    }
}
