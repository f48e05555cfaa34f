//! What a script answered. Nothing in it is trusted.

use redis::Value;

use crate::StoreError;
use crate::error::Unreadable;
use crate::machine::Entry;
use crate::store::stored::StoredRow;

/// The three shapes of a reply.
pub(crate) enum Reply {
    /// There is no record.
    Missing,
    /// It is written; with numbers, if the script has any to tell.
    Done(Vec<u64>),
    /// Nothing is written; this is the record, and the server's time.
    Found(Box<Entry>, u64),
}

impl Reply {
    pub(crate) fn read(value: Value) -> Result<Self, StoreError> {
        let Value::Array(parts) = value else { return Err(Unreadable("reply").into()) };
        let mut parts = parts.into_iter();
        match parts.next() {
            Some(Value::Int(0)) => Ok(Self::Missing),
            Some(Value::Int(1)) => {
                let numbers: Result<Vec<u64>, Unreadable> = parts.map(|part| number(&bytes(part)?)).collect();
                Ok(Self::Done(numbers?))
            }
            Some(Value::Int(2)) => {
                let (entry, now) = found(parts)?;
                Ok(Self::Found(Box::new(entry), now))
            }
            _ => Err(Unreadable("reply").into()),
        }
    }
}

/// The record in the order of `record()` in `prelude.lua`.
fn found(mut parts: impl Iterator<Item = Value>) -> Result<(Entry, u64), StoreError> {
    let mut next = || parts.next().map_or(Ok(Vec::new()), bytes);
    let time =
        |field: Vec<u8>| number(&field).and_then(|time| i64::try_from(time).map_err(|_| Unreadable("time")));
    let text = |field: Vec<u8>| String::from_utf8(field).map_err(|_| Unreadable("text"));
    let now = time(next()?)?;
    let row = StoredRow {
        now,
        state: text(next()?)?,
        token: next()?,
        fingerprint: next()?,
        effects: text(next()?)?,
        fence: time(next()?)?,
        attempt: time(next()?)?,
        effect_at: (next()? == b"1").then_some(now),
        // What is finished has neither.
        lease_until: Some(next()?).filter(|field| !field.is_empty()).map_or(Ok(0), time)?,
        cap_until: Some(next()?).filter(|field| !field.is_empty()).map_or(Ok(0), time)?,
        expires_at: time(next()?)?,
        status: Some(next()?).filter(|field| !field.is_empty()).map(time).transpose()?,
        location: Some(next()?).filter(|field| !field.is_empty()),
        reason: Some(text(next()?)?),
        headers: Some(next()?),
        body: Some(next()?),
    };
    row.into_entry()
}

fn bytes(value: Value) -> Result<Vec<u8>, Unreadable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Unreadable("field")),
    }
}

fn number(field: &[u8]) -> Result<u64, Unreadable> {
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable("number"))
}
