//! Tells logic which users are connected here (user → gateway): who is present, and where.
//! A push to a user goes to every gateway all the same: a route that is late or lost must not
//! lose it.
//!
//! Best effort: changes of a user that wait are folded into the last one, travel in batches,
//! and are told again when logic was away; all routes are told again with each check of the
//! sessions, because the place where they are kept may lose them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corecast_proto::logic as pb;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::logic_client::LogicClient;

/// Users in one call.
const BATCH: usize = 1_000;
/// Time in which changes are gathered.
const GATHER: Duration = Duration::from_millis(20);
/// Pause after logic could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is connected here.
pub(super) struct Routes {
    state: Mutex<State>,
    changed: Notify,
    incarnation: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Connections of each user.
    users: HashMap<Arc<str>, u32>,
    /// Users whose route has to be told: set where they are in `users`, dropped where not.
    /// Never more than the users that came or went since the last answer of logic.
    pending: HashSet<Arc<str>>,
}

impl Routes {
    pub(super) fn new(incarnation: u64) -> Self {
        let state = Mutex::new(State::default());
        Self { state, changed: Notify::new(), incarnation: AtomicU64::new(incarnation) }
    }

    /// One more connection of a user. `false`: there are `max` of them (0: any number may be).
    pub(super) fn connected(&self, user_id: &str, max: u32) -> bool {
        let mut state = self.state();
        if let Some(count) = state.users.get_mut(user_id) {
            let may = max == 0 || *count < max;
            *count += u32::from(may);
            return may;
        }
        let user: Arc<str> = user_id.into();
        state.users.insert(user.clone(), 1);
        state.pending.insert(user);
        self.changed.notify_one();
        true
    }

    /// One connection of a user less.
    pub(super) fn disconnected(&self, user_id: &str) {
        let mut state = self.state();
        let Some(count) = state.users.get_mut(user_id) else { return };
        *count -= 1;
        if *count == 0
            && let Some((user, _)) = state.users.remove_entry(user_id)
        {
            state.pending.insert(user);
            self.changed.notify_one();
        }
    }

    /// Tells every route again.
    pub(super) fn tell_all(&self) {
        let mut state = self.state();
        let users: Vec<_> = state.users.keys().cloned().collect();
        state.pending.extend(users);
        self.changed.notify_one();
    }

    /// The old incarnation's routes are void: tells them under the new one.
    pub(super) fn reincarnate(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
        self.tell_all();
    }

    /// Tells changes until `stop`.
    pub(super) async fn run(&self, logic: LogicClient, gateway_id: String, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => return,
            }
            tokio::time::sleep(GATHER).await;
            while !self.tell_batch(&logic, &gateway_id).await {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// `false`: logic could not be asked, and what was taken waits again.
    async fn tell_batch(&self, logic: &LogicClient, gateway_id: &str) -> bool {
        loop {
            let batch = self.take_batch();
            if batch.set.is_empty() && batch.dropped.is_empty() {
                return true;
            }
            let request = |users: &[Arc<str>]| pb::RouteRequest {
                gateway_id: gateway_id.to_owned(),
                incarnation: self.incarnation.load(Ordering::Relaxed),
                user_ids: users.iter().map(|user| user.as_ref().to_owned()).collect(),
            };
            let mut result = Ok(pb::RouteReply {});
            if !batch.dropped.is_empty() {
                result = logic.drop_route(request(&batch.dropped)).await;
            }
            if result.is_ok() && !batch.set.is_empty() {
                result = logic.set_route(request(&batch.set)).await;
            }
            if let Err(error) = result {
                debug!(%error, "routes not told");
                let again = batch.set.into_iter().chain(batch.dropped);
                self.state().pending.extend(again);
                return false;
            }
        }
    }

    fn take_batch(&self) -> Batch {
        let mut state = self.state();
        let taken: Vec<Arc<str>> = state.pending.iter().take(BATCH).cloned().collect();
        for user in &taken {
            state.pending.remove(user);
        }
        let (set, dropped) = taken.into_iter().partition(|user| state.users.contains_key(user));
        Batch { set, dropped }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left plain values behind: they stay usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Batch {
    set: Vec<Arc<str>>,
    dropped: Vec<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(users: &[Arc<str>]) -> Vec<&str> {
        users.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn only_the_first_and_the_last_connection_of_a_user_are_told() {
        let routes = Routes::new(1);
        routes.connected("ann", 0);
        routes.connected("ann", 0);
        assert_eq!(names(&routes.take_batch().set), ["ann"]);
        routes.disconnected("ann");
        assert!(routes.take_batch().dropped.is_empty());
        routes.disconnected("ann");
        assert_eq!(names(&routes.take_batch().dropped), ["ann"]);
    }

    #[test]
    fn what_waits_is_folded_into_the_last_state() {
        let routes = Routes::new(1);
        routes.connected("ann", 0);
        routes.disconnected("ann");
        routes.connected("ann", 0);
        let batch = routes.take_batch();
        assert_eq!((names(&batch.set), batch.dropped.len()), (vec!["ann"], 0));
        routes.tell_all();
        assert_eq!(names(&routes.take_batch().set), ["ann"]);
    }
}
