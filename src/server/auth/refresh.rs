//! Refresh tokens: opaque secrets, of which the server keeps only hashes.
//!
//! A token is `aula_rt_` and 48 random bytes in base64url. The first 16 are the same in all tokens of a session (its
//! family), the other 32 are new in each. Who shows a known family with an outdated rest holds a used token: so
//! theft is noticed without keeping every token ever used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Lets secret scanners and people recognise a leaked token.
const PREFIX: &str = "aula_rt_";
const FAMILY_BYTES: usize = 16;
const TOKEN_BYTES: usize = 48;

/// A refresh token in the clear: only ever on its way to or from its owner.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; TOKEN_BYTES]);

/// What is kept of a refresh token. A fast hash is enough: the input has 128 and 384 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshHashes {
    /// SHA-256 of the part that the session's tokens share.
    pub family: [u8; 32],
    /// SHA-256 of the whole token.
    pub token: [u8; 32],
}

impl RefreshToken {
    /// The first token of a new family.
    ///
    /// Errors: the operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The next token of the same family.
    ///
    /// Errors: the operating system gives no random bytes.
    pub fn next(&self) -> Result<Self, getrandom::Error> {
        let mut bytes = self.0;
        getrandom::fill(&mut bytes[FAMILY_BYTES..])?;
        Ok(Self(bytes))
    }

    /// Reads what [`RefreshToken::reveal`] wrote; `None` if it can't have written it.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let mut bytes = [0; TOKEN_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).ok()?;
        (length == TOKEN_BYTES).then_some(Self(bytes))
    }

    /// The text for the token's owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    pub fn hashes(&self) -> RefreshHashes {
        RefreshHashes { family: Sha256::digest(&self.0[..FAMILY_BYTES]).into(), token: Sha256::digest(self.0).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_leads_back_to_the_token() {
        let token = RefreshToken::generate().unwrap();
        assert!(RefreshToken::parse(&token.reveal()).unwrap() == token);
        for bad in ["", "aula_rt_", "aula_rt_AAAA", &token.reveal()[1..], &format!("{}A", token.reveal()), "aula_rt_é"]
        {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_next_token_is_of_the_same_family_and_another() {
        let first = RefreshToken::generate().unwrap();
        let second = first.next().unwrap();
        assert_eq!(first.hashes().family, second.hashes().family);
        assert_ne!(first.hashes().token, second.hashes().token);
        assert_ne!(first.hashes().family, RefreshToken::generate().unwrap().hashes().family);
    }
}
