//! Statuses and modes: words in JSON, words in the database, an enum in between.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// Declares an enum whose variants are stored and sent as the given words.
///
/// In the database it is plain `TEXT`, so that operators read words and a CHECK constraint lists them.
///
/// # Examples
/// ```
/// service_shell::text_enum! {
///     /// Whether it is on.
///     pub enum Switch {
///         /// It is.
///         On = "on",
///         /// It is not.
///         Off = "off",
///     }
/// }
/// assert_eq!(Switch::On.as_str(), "on");
/// assert_eq!("off".parse::<Switch>(), Ok(Switch::Off));
/// assert_eq!("of".parse::<Switch>().unwrap_err().to_string(), "must be one of on, off");
/// ```
#[macro_export]
macro_rules! text_enum {
    ($(#[$outer:meta])* pub enum $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(text: &str) -> ::std::result::Result<$name, $crate::UnknownWord> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err($crate::UnknownWord(&[$($word,)+])),
                }
            }
        }

        impl $crate::utoipa::PartialSchema for $name {
            fn schema() -> $crate::utoipa::openapi::RefOr<$crate::utoipa::openapi::Schema> {
                $crate::words_schema(&[$($word,)+])
            }
        }

        impl $crate::utoipa::ToSchema for $name {}

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, out: S) -> ::std::result::Result<S::Ok, S::Error> {
                out.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> ::std::result::Result<$name, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize<'de>>::deserialize(from)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        impl ::sqlx::Type<$crate::Database> for $name {
            fn type_info() -> <$crate::Database as ::sqlx::Database>::TypeInfo {
                <str as ::sqlx::Type<$crate::Database>>::type_info()
            }

            fn compatible(found: &<$crate::Database as ::sqlx::Database>::TypeInfo) -> bool {
                <str as ::sqlx::Type<$crate::Database>>::compatible(found)
            }
        }

        impl<'q> ::sqlx::Encode<'q, $crate::Database> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut <$crate::Database as ::sqlx::Database>::ArgumentBuffer,
            ) -> ::std::result::Result<::sqlx::encode::IsNull, ::sqlx::error::BoxDynError> {
                <&str as ::sqlx::Encode<'q, $crate::Database>>::encode(self.as_str(), buffer)
            }
        }

        impl<'r> ::sqlx::Decode<'r, $crate::Database> for $name {
            fn decode(
                value: <$crate::Database as ::sqlx::Database>::ValueRef<'r>,
            ) -> ::std::result::Result<$name, ::sqlx::error::BoxDynError> {
                Ok(<&str as ::sqlx::Decode<'r, $crate::Database>>::decode(value)?.parse()?)
            }
        }
    };
}

#[doc(hidden)]
#[must_use]
pub fn words_schema(words: &[&str]) -> RefOr<Schema> {
    let words = words.iter().map(|word| serde_json::Value::from(*word));
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
}

/// A word that is none of the enum's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", .0.join(", "))]
pub struct UnknownWord(#[doc(hidden)] pub &'static [&'static str]);
