//! A seeded generator (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>): a failure prints its seed.

#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in `AULA_TEST_SEED`, or a fresh one; printed by the test that takes it.
    pub fn seed_from_env() -> u64 {
        match std::env::var("AULA_TEST_SEED") {
            Ok(text) => text.parse().expect("AULA_TEST_SEED is a whole number"),
            Err(_) => u64::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()),
        }
    }

    /// For what needs no repetition.
    pub fn seeded_by_time() -> Self {
        Self(crate::clock::now())
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; `bound` is at least 1.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number in `low..=high`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap();
        &from[index]
    }
}
