//! Whose sessions are these? Asked for each upgrade, and for all open connections every
//! minute.

use std::time::Duration;

use corecast_backends::bus::Bus;
use corecast_backends::hotset::{CachedSession, HotSet, SessionEntry};
use corecast_backends::store::{SessionHash, Store};
use corecast_proto::logic::{Session, VerifyReply, VerifyRequest};
use corecast_proto::refusal::Code;
use futures::StreamExt;

use super::{Service, now_ms};
use crate::domain::session;
use crate::error::Failure;
use crate::metrics::Source;

/// Sessions of one request at most.
const SIDS_MAX: usize = 65_536;
/// Sessions of one read of the store: bounds the length of its statement.
const READ_MAX: usize = 512;
/// Sessions of one request that are put into the hot set at the same time.
const FILLS: usize = 64;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Answers each session id, in the order asked. With `from_store` the cache is neither
    /// asked nor believed. Use moves the expiry, at most once an hour.
    ///
    /// # Errors
    /// `TOO_LARGE`; unavailable: nothing is known of the sessions, which is not the same as
    /// invalid.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn verify(&self, request: VerifyRequest) -> Result<VerifyReply, Failure> {
        if request.sids.len() > SIDS_MAX {
            return Err(Code::TooLarge.with(format!("sids must hold at most {SIDS_MAX}")).into());
        }
        let now = now_ms();
        let hashes: Vec<Option<SessionHash>> =
            request.sids.iter().map(|sid| session::is_sid(sid).then(|| session::hash(sid))).collect();
        let mut sessions = vec![Session::default(); hashes.len()];
        let mut unanswered: Vec<usize> = (0..hashes.len()).filter(|&i| hashes[i].is_some()).collect();
        if !request.from_store {
            unanswered = self.verify_cached(&hashes, unanswered, &mut sessions, now).await;
        }
        for indices in unanswered.chunks(READ_MAX) {
            let found = self.verify_stored(&hashes, indices, &mut sessions, now).await?;
            // A check of what is open tells nothing that the cache is asked for.
            if !request.from_store {
                self.fill(found, now).await;
            }
        }
        Ok(VerifyReply { sessions })
    }

    /// Answers what the cache knows; gives back the rest.
    async fn verify_cached(
        &self,
        hashes: &[Option<SessionHash>],
        indices: Vec<usize>,
        sessions: &mut [Session],
        now: i64,
    ) -> Vec<usize> {
        let asked: Vec<SessionHash> = indices.iter().filter_map(|&index| hashes[index]).collect();
        let entries = self.hot_sessions(&asked).await;
        let mut unanswered = Vec::new();
        let mut answered = 0;
        for ((index, hash), entry) in indices.into_iter().zip(&asked).zip(entries) {
            match entry {
                Some(SessionEntry::Tombstone) => answered += 1,
                // A cached expiry is a lower bound: the store may have moved it since.
                Some(SessionEntry::Live(cached))
                    if session::is_live(cached.expires_ms, now)
                        && !self.expiry_unchecked(hash, cached.expires_ms, now) =>
                {
                    answered += 1;
                    sessions[index] = valid(cached);
                }
                _ => unanswered.push(index),
            }
        }
        self.metrics.verified(Source::Cache, answered);
        unanswered
    }

    /// Answers what the store knows; gives back what the cache may keep of it.
    async fn verify_stored(
        &self,
        hashes: &[Option<SessionHash>],
        indices: &[usize],
        sessions: &mut [Session],
        now: i64,
    ) -> Result<Vec<(SessionHash, CachedSession)>, Failure> {
        let asked: Vec<SessionHash> = indices.iter().filter_map(|&index| hashes[index]).collect();
        let found = self.ask(self.store.sessions(&asked, now)).await?;
        self.metrics.verified(Source::Store, asked.len());
        let mut live = Vec::new();
        for ((&index, hash), found) in indices.iter().zip(asked).zip(found) {
            let Some(found) = found.filter(|found| session::is_live(found.expires_ms, now)) else {
                continue;
            };
            let mut expires_ms = found.expires_ms;
            if session::extend_due(expires_ms, now) {
                let later = session::expires_ms(now);
                // Failing to extend is no reason to refuse: the next use tries again.
                if self.ask(self.store.extend_session(hash, later)).await.is_ok() {
                    expires_ms = later;
                    self.extended.remember(hash, now);
                }
            } else {
                self.extended.remember(hash, now);
            }
            let cached = CachedSession {
                user_id: found.user_id,
                username: found.username,
                email: found.email,
                expires_ms,
            };
            sessions[index] = valid(cached.clone());
            live.push((hash, cached));
        }
        Ok(live)
    }

    async fn fill(&self, live: Vec<(SessionHash, CachedSession)>, now: i64) {
        futures::stream::iter(live)
            .for_each_concurrent(FILLS, |(hash, session)| async move {
                let left = Duration::from_millis(u64::try_from(session.expires_ms - now).unwrap_or(0));
                self.hot(self.hotset.fill_session(&hash, session, left)).await;
            })
            .await;
    }

    /// By what the cache says, the expiry should move, and this node has not looked at the
    /// store's for an hour. Without this memory a cached entry, which nothing rewrites,
    /// would send every later use to the store.
    fn expiry_unchecked(&self, hash: &SessionHash, cached_expires_ms: i64, now: i64) -> bool {
        session::extend_due(cached_expires_ms, now)
            && self.extended.find(hash).is_none_or(|at| now - at >= session::EXTEND_EVERY_MS)
    }
}

fn valid(session: CachedSession) -> Session {
    Session { valid: true, user_id: session.user_id, username: session.username, email: session.email }
}
