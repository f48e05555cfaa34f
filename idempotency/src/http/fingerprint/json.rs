//! JSON bodies, without what says nothing about their values.
//!
//! Invariant: the canonical form never makes one of two values. Numbers count by their text, since a number that is read as
//! a float is rounded, and two amounts may then be one; a body that repeats a member is left as it is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The depth of nesting beyond which a value counts as it was sent.
const DEPTH_MAX: usize = 32;

/// A JSON pointer, in its parts.
type Pointer = Vec<String>;

/// Which members count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    only: Vec<Pointer>,
    ignored: Vec<Pointer>,
}

impl Fields {
    #[track_caller]
    pub(crate) fn choose(&mut self, pointer: &str) {
        self.only.push(parsed(pointer));
    }

    #[track_caller]
    pub(crate) fn ignore(&mut self, pointer: &str) {
        self.ignored.push(parsed(pointer));
    }

    fn count(&self, path: &[String]) -> bool {
        let chosen = |only: &Pointer| path.starts_with(only) || only.starts_with(path);
        (self.only.is_empty() || self.only.iter().any(chosen))
            && !self.ignored.iter().any(|ignored| ignored == path)
    }
}

#[track_caller]
fn parsed(pointer: &str) -> Pointer {
    let Some(parts) = pointer.strip_prefix('/') else {
        panic!("{pointer:?} is not a JSON pointer: name a field as `/amount` or `/customer/id`")
    };
    parts.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// The members that count, in order of their names, without white space. `None` if it is not JSON, or not unambiguous.
pub(crate) fn canonical(body: &[u8], fields: &Fields) -> Option<Vec<u8>> {
    let value: &RawValue = serde_json::from_slice(body).ok()?;
    let mut out = Vec::with_capacity(body.len());
    write(value.get(), fields, &mut Vec::new(), &mut out)?;
    Some(out)
}

fn write(value: &str, fields: &Fields, path: &mut Pointer, out: &mut Vec<u8>) -> Option<()> {
    match value.as_bytes().first()? {
        b'{' if path.len() < DEPTH_MAX => {
            let mut members = serde_json::from_str::<Members<'_>>(value).ok()?.0;
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
            out.push(b'{');
            for (name, value) in members {
                path.push(name);
                if fields.count(path) {
                    serde_json::to_writer(&mut *out, path.last()?).ok()?;
                    out.push(b':');
                    write(value.get(), fields, path, out)?;
                    out.push(b',');
                }
                path.pop();
            }
            out.push(b'}');
        }
        b'[' if path.len() < DEPTH_MAX => {
            out.push(b'[');
            for (index, value) in serde_json::from_str::<Vec<&RawValue>>(value).ok()?.into_iter().enumerate()
            {
                path.push(index.to_string());
                if fields.count(path) {
                    write(value.get(), fields, path, out)?;
                    out.push(b',');
                }
                path.pop();
            }
            out.push(b']');
        }
        b'"' => serde_json::to_writer(out, &serde_json::from_str::<String>(value).ok()?).ok()?,
        _ => out.extend_from_slice(value.as_bytes()),
    }
    Some(())
}

/// The members of an object, each as it was sent, repeated ones too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Read).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn of(body: &str, only: &[&str], ignored: &[&str]) -> Option<String> {
        let mut fields = Fields::default();
        only.iter().for_each(|pointer| fields.choose(pointer));
        ignored.iter().for_each(|pointer| fields.ignore(pointer));
        canonical(body.as_bytes(), &fields).map(|bytes| String::from_utf8(bytes).expect("JSON is text"))
    }

    #[test]
    fn order_space_and_escapes_do_not_change_the_canonical_form() {
        let one = of("{\"a\":1,\"b\":[true,null],\"c\":\"\\u0041\"}", &[], &[]);
        assert_eq!(one, of(" {\n \"c\" : \"A\",\t\"b\":[ true, null ] , \"a\":1}\r\n", &[], &[]));
        assert!(one.is_some());
    }

    #[test]
    fn members_that_may_be_another_value_change_the_canonical_form() {
        for (one, other) in [
            ("[1]", "[1.0]"),
            ("[9007199254740993]", "[9007199254740992]"),
            ("[123456789012345678.01]", "[123456789012345678.02]"),
            ("[1]", "[\"1\"]"),
            ("[1,2]", "[2,1]"),
            ("[[1],2]", "[[1,2]]"),
            ("{\"a\":null}", "{}"),
            ("{\"a\":{\"b\":1}}", "{\"a\":{},\"b\":1}"),
        ] {
            assert_ne!(of(one, &[], &[]), of(other, &[], &[]), "{one} {other}");
        }
    }

    #[test]
    fn invalid_or_ambiguous_json_has_no_canonical_form() {
        for body in ["", "{", "{\"a\":1,\"a\":2}", "[\"\\ud800\"]", "{} {}", "amount=1"] {
            assert_eq!(of(body, &[], &[]), None, "{body}");
        }
    }

    #[test]
    fn fields_are_chosen_and_ignored_by_pointer() {
        let body = r#"{"amount":1,"sent_at":2,"items":[{"id":3,"n":4}],"a/b":5}"#;
        assert_eq!(of(body, &["/amount"], &[]).as_deref(), Some(r#"{"amount":1,}"#));
        assert_eq!(
            of(body, &["/items/0/id", "/a~1b"], &[]).as_deref(),
            Some(r#"{"a/b":5,"items":[{"id":3,},],}"#)
        );
        let ignoring = of(body, &[], &["/sent_at", "/items/0/n"]);
        assert_eq!(ignoring.as_deref(), Some(r#"{"a/b":5,"amount":1,"items":[{"id":3,},],}"#));
        assert_eq!(of(body, &["/items"], &["/items/0/n"]).as_deref(), Some(r#"{"items":[{"id":3,},],}"#));
    }

    #[test]
    fn a_deeply_nested_body_does_not_overflow_the_stack() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(of(&deep, &[], &[]).is_some());
        let spaced = deep.replace("1", " 1");
        assert_ne!(of(&spaced, &[], &[]), of(&deep, &[], &[]), "what is deeper counts as it was sent");
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize, inner: &str| {
                of(&format!("{}{inner}{}", open.repeat(depth), close.repeat(depth)), &[], &[])
            };
            assert_eq!(nested(DEPTH_MAX, "1"), nested(DEPTH_MAX, " 1"), "{open}");
            assert_ne!(nested(DEPTH_MAX + 1, "1"), nested(DEPTH_MAX + 1, " 1"), "{open}");
        }
    }

    #[test]
    #[should_panic(expected = "is not a JSON pointer")]
    fn a_field_is_named_by_a_pointer() {
        Fields::default().ignore("sent_at");
    }

    proptest! {
        /// Bodies with one canonical form are equal to any reader.
        #[test]
        fn one_canonical_form_is_one_value(one in ".{0,40}", other in ".{0,40}", number: u64) {
            let body = |first: &str| {
                serde_json::json!({ first: number, "z": [first, { "y": other }] }).to_string()
            };
            let (one, other) = (body(&one), body(&other));
            let values = (serde_json::from_str::<Value>(&one).ok(), serde_json::from_str::<Value>(&other).ok());
            prop_assert_eq!(of(&one, &[], &[]) == of(&other, &[], &[]), values.0 == values.1);
        }
    }
}
