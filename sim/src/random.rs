//! Counter-based random numbers: one independent stream per (seed, component, entity), addressed by ordinal.
//!
//! A value under everything else in the simulator. Taking one fault or one task away does not shift the numbers of the
//! others, because every number is a pure function of its address. It never reads the system's randomness.

/// A stream of random numbers, fixed by seed, component and entity.
///
/// ```
/// use gdbpool_sim::Stream;
///
/// let mut stream = Stream::new(7, "network", 3);
/// let first = stream.draw();
/// assert_eq!(first, Stream::new(7, "network", 3).at(0));
/// assert_ne!(first, Stream::new(8, "network", 3).at(0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
    ordinal: u64,
}

impl Stream {
    /// The stream of `component` (a fixed word, such as `"schedule"`) for its `entity`th member.
    #[must_use]
    pub fn new(seed: u64, component: &str, entity: u64) -> Self {
        let key = mix(mix(mix(seed) ^ hash_bytes(component.as_bytes())) ^ entity);
        Self { key, ordinal: 0 }
    }

    /// The number at `ordinal`, without moving the stream.
    #[must_use]
    pub fn at(&self, ordinal: u64) -> u64 {
        mix(self.key ^ mix(ordinal))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        let number = self.at(self.ordinal);
        self.ordinal += 1;
        number
    }

    /// The next number in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        // The high half of the 128-bit product: no modulo bias worth naming at the bounds used here.
        let product = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

/// The finaliser of splitmix64: every bit of the input reaches every bit of the output.
pub(crate) const fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over bytes: the same on every machine and in every process.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_each_part_of_their_address() {
        let base = Stream::new(1, "a", 0).at(0);
        for other in [
            Stream::new(2, "a", 0).at(0),
            Stream::new(1, "b", 0).at(0),
            Stream::new(1, "a", 1).at(0),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(base, Stream::new(1, "a", 0).at(1));
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut stream = Stream::new(5, "test", 0);
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[usize::try_from(stream.below(7)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
    }
}
