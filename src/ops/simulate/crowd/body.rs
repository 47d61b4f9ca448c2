//! Texts that carry their own history: when they were to be sent, and a word that no other text has.

use super::super::engine::Rng;

/// The time in 16 hexadecimal digits, a blank, the word, a blank.
pub const SHORTEST: usize = 17 + WORD + 1;
/// A letter, the run, the client and the number of its message, in hexadecimal.
const WORD: usize = 1 + 4 + 6 + 6;

/// What fills a text up.
const WORDS: [&str; 24] = [
    "tomato", "quince", "basil", "bean", "onion", "carrot", "fennel", "thyme", "apple", "plum", "rake", "spade",
    "seed", "water", "shade", "light", "frost", "april", "bed", "row", "fence", "gate", "bench", "well",
];

/// Fillings of any length begin somewhere in it.
pub struct Filling(String);

impl Filling {
    /// For texts of up to `longest` bytes.
    pub fn new(longest: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut text = String::with_capacity(2 * longest + 4096);
        while text.len() < 2 * longest + 4000 {
            text.push_str(WORDS[rng.below(WORDS.len() as u64) as usize]);
            text.push(' ');
        }
        Self(text)
    }

    /// A text of `length` bytes, or a little more if that is too short.
    pub fn body(&self, scheduled: u64, word: &str, length: usize, rng: &mut Rng) -> String {
        let mut body = format!("{scheduled:016x} {word} ");
        let rest = length.saturating_sub(body.len());
        let begin = rng.below((self.0.len() - rest.min(self.0.len())) as u64) as usize;
        body.push_str(self.0.get(begin..begin + rest).unwrap_or_default());
        body
    }
}

/// The word of a client's n-th message in the run that has this name.
pub fn word(run: &str, client: u32, number: u32) -> String {
    // FNV-1a, folded: the same people may have written in an earlier run.
    let run = run.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("w{:04x}{:06x}{:06x}", (run ^ (run >> 16)) & 0xffff, client & 0xff_ffff, number & 0xff_ffff)
}

/// When a text was to be sent, in nanoseconds; none if it is nobody's of a run.
pub fn scheduled(body: &str) -> Option<u64> {
    let digits = body.get(..16)?;
    (body.as_bytes().get(16) == Some(&b' ')).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_when_and_has_its_length() {
        let filling = Filling::new(300, 1);
        let mut rng = Rng::new(2);
        for length in [SHORTEST, 60, 100, 300] {
            let text = filling.body(123_456_789, &word("sim-1", 70_000, 12), length, &mut rng);
            assert_eq!(text.len(), length);
            assert_eq!(scheduled(&text), Some(123_456_789));
        }
        for other in ["", "hello", "zzzzzzzzzzzzzzzz x", "0123456789abcdef"] {
            assert_eq!(scheduled(other), None, "{other}");
        }
    }
}
