//! Passwords: argon2id (RFC 9106) with the crate's defaults: 19 MiB, 2 passes, 1 lane, the
//! OWASP minimum, and a random salt of 16 bytes.
//!
//! A hash is about 20 ms of one core and 19 MiB, so it never runs on an async thread, as many
//! run at once as there are cores, and only so many requests may wait for one. The memory is
//! kept for the next hash: 19 MiB per core for good, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::{PasswordHash, Salt};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::error::Failure;
use crate::metrics::{Metrics, Raised};

use super::stretch::Stretcher;

/// A stored password.
pub(super) struct Hashed {
    /// PHC string: parameters, salt and hash.
    pub(super) phc: String,
    /// The salt in it.
    pub(super) salt: String,
}

pub(super) struct Passwords {
    cores: Arc<Semaphore>,
    stretcher: Arc<Stretcher>,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// What a login for an unknown email is compared with, so that it takes as long as one
    /// for a known email; made by the first login that needs one.
    nobody: OnceCell<String>,
    metrics: Metrics,
}

impl Passwords {
    pub(super) fn new(waiting_max: usize, metrics: Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            stretcher: Arc::default(),
            waiting: AtomicUsize::new(0),
            waiting_max,
            nobody: OnceCell::new(),
            metrics,
        }
    }

    /// Makes the hash that stands for nobody before the first login pays for it.
    pub(super) async fn warm_up(&self) -> Result<(), Failure> {
        self.nobody.get_or_try_init(|| async { self.hash(String::new()).await.map(|h| h.phc) }).await?;
        Ok(())
    }

    /// Salts and stretches a password.
    ///
    /// # Errors
    /// Unavailable when too many wait.
    ///
    /// # Cancel safety
    /// A dropped call gives its place up; a hash that runs ends by itself.
    pub(super) async fn hash(&self, password: String) -> Result<Hashed, Failure> {
        self.on_a_core(move |stretcher| {
            let phc = stretcher.hash(password.as_bytes())?;
            let salt = phc.salt.as_ref().map(Salt::to_string)?;
            Some(Hashed { phc: phc.to_string(), salt })
        })
        .await?
        .ok_or(Failure::Internal("the password could not be hashed"))
    }

    /// Is this the password of the account whose hash is given? `None`, an account that does
    /// not exist: never, and it takes as long.
    ///
    /// # Errors
    /// Unavailable when too many wait.
    ///
    /// # Cancel safety
    /// As for [`hash`](Self::hash).
    pub(super) async fn verify(&self, password: String, phc: Option<String>) -> Result<bool, Failure> {
        self.warm_up().await?;
        let exists = phc.is_some();
        let phc = phc.or_else(|| self.nobody.get().cloned()).unwrap_or_default();
        let matches = self
            .on_a_core(move |stretcher| match PasswordHash::new(&phc) {
                Ok(parsed) => stretcher.matches(password.as_bytes(), &parsed),
                Err(error) => {
                    tracing::error!(%error, "stored password hash is not a PHC string");
                    false
                }
            })
            .await?;
        Ok(matches && exists)
    }

    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Stretcher) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = self.permit().await?;
        let stretcher = self.stretcher.clone();
        // The permit moves into the work: a caller that goes away does not make room for one
        // more hash than there are cores.
        let work = tokio::task::spawn_blocking(move || {
            let done = work(&stretcher);
            drop(permit);
            done
        });
        work.await.map_err(|_| Failure::Internal("the password could not be hashed"))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = self.cores.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _place = self.place_in_line()?;
        let _shown = Raised::new(&self.metrics.password_waiting_requests);
        // The line moves by itself: each holder is a finite computation.
        let permit = self.cores.clone().acquire_owned().await;
        Ok(permit.expect("the semaphore is never closed"))
    }

    fn place_in_line(&self) -> Result<Place<'_>, Failure> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.metrics.password_refused_requests.inc();
            return Err(Failure::Unavailable("too many logins and registrations at once"));
        }
        Ok(place)
    }
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_password_and_no_other() {
        let passwords = Passwords::new(8, Metrics::new());
        let hashed = passwords.hash("s3cret".into()).await.unwrap();
        assert!(hashed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hashed.phc);
        assert!(hashed.phc.contains(&hashed.salt));
        assert!(passwords.verify("s3cret".into(), Some(hashed.phc.clone())).await.unwrap());
        assert!(!passwords.verify("S3cret".into(), Some(hashed.phc)).await.unwrap());
    }

    #[tokio::test]
    async fn the_same_password_twice_has_two_hashes() {
        let passwords = Passwords::new(8, Metrics::new());
        let (a, b) = (passwords.hash("x".into()).await.unwrap(), passwords.hash("x".into()).await.unwrap());
        assert_ne!(a.salt, b.salt);
        assert_ne!(a.phc, b.phc);
    }

    #[tokio::test]
    async fn nobody_has_no_password_not_even_the_empty_one() {
        let passwords = Passwords::new(8, Metrics::new());
        assert!(!passwords.verify(String::new(), None).await.unwrap());
    }

    #[tokio::test]
    async fn the_line_is_bounded_and_gives_places_back() {
        let passwords = Arc::new(Passwords::new(1, Metrics::new()));
        let cores = u32::try_from(passwords.cores.available_permits()).unwrap();
        let busy = passwords.cores.clone().acquire_many_owned(cores).await.unwrap();

        let waiter = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.hash("waits".into()).await.map(|_| ()) }
        });
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while passwords.waiting.load(Ordering::Relaxed) == 0 {
            assert!(tokio::time::Instant::now() < deadline, "the waiter never stood in line");
            tokio::task::yield_now().await;
        }
        let refused = passwords.hash("one more".into()).await.map(|_| ());
        assert!(matches!(refused, Err(Failure::Unavailable(_))));
        assert_eq!(passwords.metrics.password_refused_requests.get(), 1);

        drop(busy);
        waiter.await.unwrap().unwrap();
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(passwords.metrics.password_waiting_requests.get(), 0);
    }
}
