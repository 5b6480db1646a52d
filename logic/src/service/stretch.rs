//! argon2id in memory that is kept.
//!
//! Given back to the allocator, the 19 MiB of a hash stay in the arena of whichever thread ran
//! it, and the runtime has many threads: two hundred logins left 750 MiB behind. So the working
//! memory of a hash is taken from the ones that ended before; there are never more of them
//! than hashes that ran at once.

use std::sync::{Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// Working memories between two hashes. Bound: the caller's, one per hash that runs at once.
#[derive(Default)]
pub(super) struct Stretcher {
    idle: Mutex<Vec<Vec<Block>>>,
}

impl Stretcher {
    /// A PHC string's parts for a new password, under a random salt. `None`: the library
    /// refused, which its own defaults never make it do.
    pub(super) fn hash(&self, password: &[u8]) -> Option<PasswordHash> {
        let (algorithm, version, params) = (Algorithm::default(), Version::default(), Params::default());
        let salt = Salt::generate();
        let hash = self.stretch(algorithm, version, &params, password, &salt)?;
        Some(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params).ok()?,
            salt: Some(salt),
            hash: Some(hash),
        })
    }

    /// Is this the password of that hash? Under the hash's own parameters; the comparison
    /// takes the same time wherever the two differ.
    pub(super) fn matches(&self, password: &[u8], phc: &PasswordHash) -> bool {
        self.again(password, phc).is_some_and(|again| phc.hash == Some(again))
    }

    fn again(&self, password: &[u8], phc: &PasswordHash) -> Option<Output> {
        let algorithm = Algorithm::try_from(phc.algorithm.as_str()).ok()?;
        let version = phc.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
        let params = Params::try_from(phc).ok()?;
        self.stretch(algorithm, version, &params, password, phc.salt.as_ref()?)
    }

    fn stretch(
        &self,
        algorithm: Algorithm,
        version: Version,
        params: &Params,
        password: &[u8],
        salt: &Salt,
    ) -> Option<Output> {
        let bytes = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut memory = self.idle().pop().unwrap_or_default();
        if memory.len() < params.block_count() {
            memory.resize(params.block_count(), Block::new());
        }
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..bytes)?;
        let done = Argon2::new(algorithm, version, params.clone()).hash_password_into_with_memory(
            password,
            salt,
            output,
            &mut memory[..params.block_count()],
        );
        self.idle().push(memory);
        done.ok()?;
        Output::new(output).ok()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Block>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher, PasswordVerifier};

    use super::*;

    #[test]
    fn used_memory_gives_the_hash_that_fresh_memory_gives() {
        let stretcher = Stretcher::default();
        let first = stretcher.hash(b"dirties the memory").unwrap();
        let second = stretcher.hash(b"s3cret").unwrap();
        assert!(Argon2::default().verify_password(b"dirties the memory", &first).is_ok());
        assert!(Argon2::default().verify_password(b"s3cret", &second).is_ok());
        assert_eq!(stretcher.idle().len(), 1, "the second hash took the memory of the first");
    }

    #[test]
    fn a_hash_with_other_parameters_is_verified_under_them() {
        let stretcher = Stretcher::default();
        stretcher.hash(b"makes the memory large").unwrap();
        for (cost, output) in [(8, 16), (65_536, 32)] {
            let params = Params::new(cost, 1, 1, Some(output)).unwrap();
            let phc = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_with_salt(b"s3cret", b"another salt")
                .unwrap();
            assert!(stretcher.matches(b"s3cret", &phc));
            assert!(!stretcher.matches(b"S3cret", &phc));
        }
    }
}
