//! Numbers that people see, such as `PAY-7Q2M…`: unique and unguessable.

/// No I, L, O, U: numbers are read out on the telephone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A prefix and 20 random characters (100 bits): another payment cannot be found by counting.
///
/// # Panics
/// When the operating system has no randomness; nothing secret can be made then.
///
/// # Examples
/// ```
/// let number = service_shell::public_number("PAY");
/// assert_eq!(number.len(), "PAY-".len() + 20);
/// ```
#[must_use]
pub fn public_number(prefix: &str) -> String {
    format!("{prefix}-{}", random_text(20))
}

/// Random characters of 5 bits each, for keys and secrets.
///
/// # Panics
/// The same as for [`public_number`].
#[must_use]
pub fn random_text(length: usize) -> String {
    let mut bytes = vec![0_u8; length];
    #[expect(
        clippy::expect_used,
        reason = "without randomness no secret can be made; the caller answers 500"
    )]
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_differ_and_use_only_the_alphabet() {
        let numbers: HashSet<_> = (0..1000).map(|_| public_number("PAY")).collect();
        assert_eq!(numbers.len(), 1000);
        let fits = |number: &String| number[4..].bytes().all(|byte| ALPHABET.contains(&byte));
        assert!(numbers.iter().all(fits));
    }
}
