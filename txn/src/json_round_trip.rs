//! Checks that a result comes back from JSON as it went in.
//!
//! JSON has one word for nothing: `Some(None)`, `Some(())` and a number that is not finite are all `null`, and
//! come back as `None` or not at all. A run that replayed them would answer something else than the first one.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// Refuses a value that JSON would change.
pub(crate) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), Lossy> {
    value.serialize(Probe).map(drop)
}

/// The reason why a value cannot be stored.
#[derive(Debug)]
pub(crate) struct Lossy(String);

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lossy {}

impl ser::Error for Lossy {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(message.to_string())
    }
}

/// Walks through a value and answers what JSON makes of it.
struct Probe;

/// The form of a value in JSON, as far as it matters.
#[derive(PartialEq, Eq)]
enum Shape {
    Null,
    Something,
}

/// The inside of a list, a map or a struct.
struct Parts;

fn check_finite(is_finite: bool) -> Result<Shape, Lossy> {
    if is_finite {
        Ok(Shape::Something)
    } else {
        Err(Lossy("JSON has no infinite numbers and no NaN".to_owned()))
    }
}

macro_rules! something {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, _: $type) -> Result<Shape, Lossy> {
            Ok(Shape::Something)
        })*
    };
}

impl Serializer for Probe {
    type Ok = Shape;
    type Error = Lossy;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    something! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
    }

    fn serialize_f32(self, value: f32) -> Result<Shape, Lossy> {
        check_finite(value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Result<Shape, Lossy> {
        check_finite(value.is_finite())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<Shape, Lossy> {
        Ok(Shape::Something)
    }

    fn serialize_none(self) -> Result<Shape, Lossy> {
        Ok(Shape::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Shape, Lossy> {
        match value.serialize(Self)? {
            Shape::Null => Err(Lossy("JSON cannot tell `Some` of nothing from `None`".to_owned())),
            Shape::Something => Ok(Shape::Something),
        }
    }

    fn serialize_unit(self) -> Result<Shape, Lossy> {
        Ok(Shape::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Shape, Lossy> {
        Ok(Shape::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Shape, Lossy> {
        Ok(Shape::Something)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Shape, Lossy> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Shape, Lossy> {
        value.serialize(self).map(|_| Shape::Something)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, Lossy> {
        Ok(Parts)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Lossy> {
        Ok(Parts)
    }
}

macro_rules! parts {
    ($($trait:ident { $($method:ident($($name:ty)?))* })*) => {
        $(impl ser::$trait for Parts {
            type Ok = Shape;
            type Error = Lossy;

            $(fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? part: &T) -> Result<(), Lossy> {
                check(part)
            })*

            fn end(self) -> Result<Shape, Lossy> {
                Ok(Shape::Something)
            }
        })*
    };
}

parts! {
    SerializeSeq { serialize_element() }
    SerializeTuple { serialize_element() }
    SerializeTupleStruct { serialize_field() }
    SerializeTupleVariant { serialize_field() }
    SerializeMap { serialize_key() serialize_value() }
    SerializeStruct { serialize_field(&'static str) }
    SerializeStructVariant { serialize_field(&'static str) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Serialize)]
    struct Receipt {
        note: Option<Option<&'static str>>,
        parts: Vec<(u8, Option<()>)>,
    }

    #[test]
    fn values_that_change_in_a_json_round_trip_are_refused() {
        let receipt = |note, part| Receipt { note, parts: vec![(1, part)] };
        assert!(check(&receipt(Some(Some("a")), None)).is_ok());
        assert!(check(&receipt(None, None)).is_ok());
        assert!(check(&receipt(Some(None), None)).is_err());
        assert!(check(&receipt(None, Some(()))).is_err());
        assert!(check(&BTreeMap::from([("a", Some(f64::NAN))])).is_err());
        assert!(check(&Ok::<_, ()>(Some(1.5))).is_ok());
        assert!(check(&()).is_ok() && check(&None::<i64>).is_ok());
        assert!(check(&Some(())).unwrap_err().to_string().contains("`Some` of nothing"));
    }
}
