//! The number that tells later holders of a record from earlier ones.

/// A number that is higher for every later holder of a record. Systems that remember the highest fence they saw can
/// refuse a zombie.
///
/// It rises also if the record was forgotten in between, and under any clock of the store. On Redis that holds unless
/// the server's clock steps back by more than the record was kept, or the server loses the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);
