//! Random choices that can be made again.
//!
//! A test that chooses at random takes a [`seed`], makes every choice from one [`Rng`], and can so be replayed exactly.

/// The seed of this test run: `PROBITY_TEST_SEED` if set, otherwise random. It is printed, so that a failing test shows
/// how to fail again.
///
/// # Panics
///
/// If `PROBITY_TEST_SEED` is not a number.
///
/// # Examples
///
/// ```
/// let mut rng = testkit::Rng::new(testkit::seed());
/// let moment_ms = rng.between(0, 200);
/// assert!(moment_ms <= 200);
/// ```
#[must_use]
#[expect(clippy::print_stdout, reason = "the test harness shows it with the failure, and only then")]
pub fn seed() -> u64 {
    let seed = match std::env::var("PROBITY_TEST_SEED") {
        Ok(text) => match text.parse() {
            Ok(seed) => seed,
            Err(_) => {
                panic!("PROBITY_TEST_SEED is {text:?}, but must be a number between 0 and {}", u64::MAX)
            }
        },
        Err(_) => random_u64(),
    };
    println!("to make the same choices again: PROBITY_TEST_SEED={seed}");
    seed
}

/// A small deterministic generator (splitmix64): equal seeds make equal choices, on every machine.
///
/// For tests only; it is predictable on purpose.
///
/// # Examples
///
/// ```
/// let (mut one, mut other) = (testkit::Rng::new(7), testkit::Rng::new(7));
/// assert_eq!(one.next_u64(), other.next_u64());
/// ```
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// A generator that cannot be replayed, for names that must only be unique.
    pub(crate) fn random() -> Rng {
        Rng::new(random_u64())
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    ///
    /// If `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "no number is between {low} and {high}");
        match (high - low).checked_add(1) {
            Some(span) => low + self.next_u64() % span,
            None => self.next_u64(),
        }
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there is nothing to choose from.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "nothing to pick from");
        let last = u64::try_from(choices.len() - 1).unwrap_or(u64::MAX);
        &choices[usize::try_from(self.between(0, last)).unwrap_or(0)]
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let last = u64::try_from(end).unwrap_or(u64::MAX);
            items.swap(end, usize::try_from(self.between(0, last)).unwrap_or(0));
        }
    }
}

fn random_u64() -> u64 {
    match getrandom::u64() {
        Ok(number) => number,
        Err(error) => panic!("failed to get a random number from the system: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64_so_old_seeds_stay_valid() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn both_ends_are_reached_and_nothing_beyond() {
        let mut rng = Rng::new(1);
        let seen: std::collections::BTreeSet<u64> = (0..200).map(|_| rng.between(3, 6)).collect();
        assert_eq!(seen, [3, 4, 5, 6].into());
        assert_eq!(rng.between(9, 9), 9);
        let _any = rng.between(0, u64::MAX);
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
