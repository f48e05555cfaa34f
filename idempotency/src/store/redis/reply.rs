//! The reply of a script. Each field is checked.

use redis::Value;

use super::packed;
use crate::core::machine::Entry;
use crate::error::{StoreError, Unreadable};

/// The shapes of a reply.
pub(crate) enum Reply {
    /// A first claim, by when its key ends; or whether something was written.
    Number(u64),
    /// A record that answers every claim at any time.
    Settled(Vec<u8>),
    /// It is written, with what there is to tell.
    Done(Vec<u64>),
    /// The script wrote nothing; this is the record, when it was claimed, and the server's time in microseconds.
    Found(Vec<u8>, u64, u64),
}

impl Reply {
    pub(crate) fn read(value: Value) -> Result<Self, Unreadable> {
        match value {
            Value::Int(number) => Ok(Self::Number(whole(number)?)),
            Value::BulkString(record) => Ok(Self::Settled(record)),
            Value::Array(parts) => Self::of_parts(parts),
            _ => Err(Unreadable("reply")),
        }
    }

    fn of_parts(parts: Vec<Value>) -> Result<Self, Unreadable> {
        let mut parts = parts.into_iter();
        let integer = |value: Value| match value {
            Value::Int(number) => whole(number),
            _ => Err(Unreadable("number")),
        };
        match (parts.next(), parts.next()) {
            (Some(Value::Int(1)), Some(first)) => {
                Ok(Self::Done(std::iter::once(first).chain(parts).map(integer).collect::<Result<_, _>>()?))
            }
            (Some(Value::Int(2)), Some(Value::BulkString(record))) => {
                let mut time = || parts.next().ok_or(Unreadable("time")).and_then(integer);
                let (since, now) = (time()?, time()?);
                Ok(Self::Found(record, since, now.saturating_mul(1000)))
            }
            _ => Err(Unreadable("reply")),
        }
    }

    /// The record as it is, and the server's time; `None` if there is none. A script that answers with a record,
    /// readable or not, has written nothing.
    pub(crate) fn into_entry(self) -> Result<Option<(Entry, u64)>, StoreError> {
        let read = |record, since| packed::read(record, since).map_err(StoreError::nothing_written);
        match self {
            Self::Number(0) => Ok(None),
            Self::Found(record, since, now) => Ok(read(record, since)?.map(|entry| (entry, now))),
            Self::Settled(record) => Ok(read(record, 0)?.map(|entry| (entry, 0))),
            Self::Number(_) | Self::Done(_) => Err(Unreadable("reply").into()),
        }
    }
}

fn whole(number: i64) -> Result<u64, Unreadable> {
    u64::try_from(number).map_err(|_| Unreadable("number"))
}
