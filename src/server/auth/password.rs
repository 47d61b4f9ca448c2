//! Passwords: argon2id (RFC 9106), off the runtime's threads, a bounded number at once.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, PasswordHash, Version};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest password accepted, in bytes: long passphrases fit, and no request can make hashing slow by its size.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// 19 MiB, 2 passes, 1 lane: the OWASP Password Storage Cheat Sheet's second choice, which costs the same to an
/// attacker as its 46 MiB one.
const PARAMS: Params = Params::DEFAULT;
/// Memory that a stored hash may ask for, in KiB: a damaged row must not exhaust the machine.
const MAX_MEMORY_KIB: usize = 256 * 1024;
const HASH_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;
/// Any salt will do where the result is thrown away.
const NOBODYS_SALT: [u8; Salt::RECOMMENDED_LENGTH] = [0; Salt::RECOMMENDED_LENGTH];

/// A password in the clear. Can't be printed by accident.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are waiting to be checked")]
    Overloaded,
    #[error("a stored password hash is damaged: {0}")]
    Damaged(String),
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

impl From<argon2::Error> for PasswordError {
    fn from(error: argon2::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Hashes and checks passwords. Clones share the bounds.
#[derive(Clone)]
pub struct Passwords {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Passwords {
    /// At most `at_once` are worked on (19 MiB each) while at most `waiting` wait their turn.
    pub fn new(at_once: usize, waiting: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            admitted: Arc::new(Semaphore::new(at_once.saturating_add(waiting).min(Semaphore::MAX_PERMITS))),
            running: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// The PHC string to store for `password`.
    ///
    /// Errors: [`PasswordError::Overloaded`], [`PasswordError::Failed`].
    pub async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        self.run(move || hash(&password)).await
    }

    /// Whether `password` belongs to `stored`. Takes as long when there is nothing stored, so that the time does
    /// not tell whether a user exists.
    ///
    /// Errors: [`PasswordError::Overloaded`], [`PasswordError::Damaged`], [`PasswordError::Failed`].
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        self.run(move || verify(&password, stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_full| PasswordError::Overloaded)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_closed| PasswordError::Overloaded)?;
        // The work holds its permits itself: a client that hangs up doesn't make room for more.
        let permits: [OwnedSemaphorePermit; 2] = [admitted, running];
        let outcome = tokio::task::spawn_blocking(move || {
            let _permits = permits;
            work()
        });
        outcome.await.unwrap_or_else(|panic| Err(PasswordError::Failed(panic.to_string())))
    }
}

fn hash(password: &Password) -> Result<String, PasswordError> {
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    getrandom::fill(&mut salt).map_err(|error| PasswordError::Failed(error.to_string()))?;
    let mut output = [0; HASH_BYTES];
    fill(PARAMS, password, &salt, &mut output)?;

    let malformed = |error: argon2::password_hash::phc::Error| PasswordError::Failed(error.to_string());
    let stored = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&PARAMS).map_err(|error| PasswordError::Failed(error.to_string()))?,
        salt: Some(Salt::new(&salt).map_err(malformed)?),
        hash: Some(Output::new(&output).map_err(malformed)?),
    };
    Ok(stored.to_string())
}

fn verify(password: &Password, stored: Option<&str>) -> Result<bool, PasswordError> {
    let Some(stored) = stored else {
        fill(PARAMS, password, &NOBODYS_SALT, &mut [0; HASH_BYTES])?;
        return Ok(false);
    };
    let damaged = |what: &str| PasswordError::Damaged(what.to_owned());
    let stored = PasswordHash::new(stored).map_err(|error| damaged(&error.to_string()))?;
    if stored.algorithm != ARGON2ID_IDENT || stored.version != Some(Version::V0x13.into()) {
        return Err(damaged("it is not argon2id, version 19"));
    }
    let params = Params::try_from(&stored).map_err(|error| damaged(&error.to_string()))?;
    if params.block_count() > MAX_MEMORY_KIB {
        return Err(damaged("it asks for too much memory"));
    }
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(damaged("it has no salt or no hash"));
    };
    let mut output = vec![0; expected.len()];
    fill(params, password, &salt, &mut output)?;
    let output = Output::new(&output).map_err(|error| damaged(&error.to_string()))?;
    // Compares in constant time.
    Ok(output == expected)
}

fn fill(params: Params, password: &Password, salt: &[u8], output: &mut [u8]) -> Result<(), PasswordError> {
    let mut memory = memory(params.block_count());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(password.as_str().as_bytes(), salt, output, memory.as_mut_slice())?;
    Ok(())
}

/// Working memory that goes back to the operating system when it is dropped.
///
/// glibc maps large blocks, but each one freed raises its threshold up to 32 MiB, and what is below the threshold
/// stays in the heap (mallopt(3), `M_MMAP_THRESHOLD`): a few log-ins would cost 19 MiB each for ever. A block
/// above that limit is always mapped and unmapped; the pages beyond `blocks` are never touched, so they cost nothing.
fn memory(blocks: usize) -> Vec<Block> {
    const ABOVE_ANY_THRESHOLD: usize = 33 * 1024 * 1024 / Block::SIZE;
    let mut memory = Vec::with_capacity(blocks.max(ABOVE_ANY_THRESHOLD));
    memory.resize(blocks, Block::new());
    memory
}

#[cfg(test)]
#[path = "password_tests.rs"]
mod tests;
