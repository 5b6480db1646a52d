//! Setup: rows of several owners in one store, a registry whose answers the test gives, a log
//! in memory. Claim: rows of a node that is gone reach the log by another node; those of a
//! node that lives, or may live, are left alone. Why it matters: a node that never comes back
//! must not take acknowledged messages along, and a claim from a live one doubles its work.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast_backends::log::{LogError, LogProducer};
use corecast_backends::registry::fixed::FixedRegistry;
use corecast_backends::registry::{Lease, Node, Presence, Registry, RegistryError, Role};
use corecast_backends::store::{AnyStore, OutboxRecord, Store};
use corecast_backends::url;
use corecast_logic::Metrics;
use corecast_logic::claims::{Claims, Patience};
use corecast_logic::relay::Relay;
use corecast_proto::ids::RoomId;
use support::{open, until};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const OWN: &str = "node-a";
const OTHER: &str = "node-b";
const PATIENCE: Patience = Patience {
    period: Duration::from_millis(20),
    absence: Duration::from_millis(900),
    age: Duration::from_millis(1_800),
};

/// A registry that says of a node what the test wants; locks are real.
#[derive(Clone)]
struct TestRegistry {
    said: Arc<Mutex<HashMap<String, Presence>>>,
    is_away: watch::Sender<bool>,
    locks: FixedRegistry,
}

impl TestRegistry {
    /// Knows [`OWN`], and that nobody else is there.
    fn new() -> Self {
        let said = HashMap::from([(OWN.to_owned(), Presence::Present)]);
        let locks = FixedRegistry::new(vec![], vec![]);
        Self { said: Arc::new(Mutex::new(said)), is_away: watch::Sender::new(false), locks }
    }

    fn say(&self, id: &str, presence: Presence) {
        self.said.lock().unwrap().insert(id.to_owned(), presence);
    }
}

impl Registry for TestRegistry {
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        self.locks.nodes(role)
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        self.locks.register(role, node).await
    }

    async fn presence(&self, role: Role, id: &str) -> Result<Presence, RegistryError> {
        assert_eq!(role, Role::Logic);
        if *self.is_away.borrow() {
            return Err(RegistryError::Unavailable("away".into()));
        }
        Ok(self.said.lock().unwrap().get(id).copied().unwrap_or(Presence::Absent))
    }

    async fn lock(&self, name: &str) -> Result<Lease, RegistryError> {
        self.locks.lock(name).await
    }

    fn tells_others(&self) -> bool {
        true
    }
}

/// A log in memory; says who appended what.
#[derive(Clone, Default)]
struct TestLog(Arc<Mutex<Vec<String>>>);

impl LogProducer for TestLog {
    fn enqueue(
        &self,
        _key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        self.0.lock().unwrap().push(String::from_utf8(value.to_vec()).unwrap());
        std::future::ready(Ok(()))
    }

    fn is_outbox(&self) -> bool {
        false
    }
}

impl TestLog {
    fn sorted(&self) -> Vec<String> {
        let mut records = self.0.lock().unwrap().clone();
        records.sort();
        records
    }
}

struct Setup {
    store: AnyStore,
    registry: TestRegistry,
    log: TestLog,
    metrics: Metrics,
    stop: CancellationToken,
    _backends: url::Backends,
    _dir: TempDir,
}

async fn setup() -> Setup {
    let dir = TempDir::new().unwrap();
    let backends = open(dir.path()).await;
    Setup {
        store: backends.store.clone(),
        registry: TestRegistry::new(),
        log: TestLog::default(),
        metrics: Metrics::new(),
        stop: CancellationToken::new(),
        _backends: backends,
        _dir: dir,
    }
}

impl Setup {
    async fn row(&self, owner: &str, value: &str) {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let record = OutboxRecord { room_id: "room-1".into(), owner: owner.into(), value };
        self.store.append_outbox(record).await.unwrap();
    }

    /// Relay and claims of a node.
    fn start(&self, own: &str) {
        let relay = Relay::new(self.store.clone(), self.log.clone(), own.into(), self.metrics.clone());
        let claims = Claims::new(
            self.store.clone(),
            self.registry.clone(),
            own.into(),
            relay.claimed(),
            self.metrics.clone(),
            PATIENCE,
        );
        tokio::spawn(relay.run(self.stop.clone()));
        tokio::spawn(claims.run(self.stop.clone()));
    }

    async fn owners(&self) -> Vec<String> {
        self.store.outbox_owners().await.unwrap().into_iter().map(|owner| owner.owner).collect()
    }

    /// Rows of [`OTHER`] are still its own after this time.
    async fn are_left_alone_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
        assert!(self.owners().await.contains(&OTHER.to_owned()));
        assert!(self.metrics.text().contains("corecast_logic_relay_claimed_rows_total 0"));
    }

    async fn are_claimed(&self) {
        until("its rows are in the log", async || self.owners().await.is_empty()).await;
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn rows_of_a_node_without_a_lease_reach_the_log_once_and_in_order() {
    let setup = setup().await;
    let values: Vec<String> = (0..1_200).map(|n| format!("{n:04}")).collect();
    for value in &values {
        setup.row(OTHER, value).await;
    }
    setup.start(OWN);
    setup.are_claimed().await;
    assert_eq!(*setup.log.0.lock().unwrap(), values);
    assert!(setup.metrics.text().contains("corecast_logic_relay_claimed_rows_total 1200"));
}

#[tokio::test]
async fn rows_of_a_node_that_lives_are_left_alone() {
    let setup = setup().await;
    setup.registry.say(OTHER, Presence::Present);
    setup.row(OTHER, "its own").await;
    setup.start(OWN);
    setup.are_left_alone_for(3 * PATIENCE.age).await;
    setup.registry.say(OTHER, Presence::Absent);
    setup.are_claimed().await;
}

#[tokio::test]
async fn an_absence_must_last_without_a_break() {
    let setup = setup().await;
    setup.row(OTHER, "flapping").await;
    setup.start(OWN);
    for _ in 0..6 {
        setup.registry.say(OTHER, Presence::Absent);
        tokio::time::sleep(PATIENCE.absence / 3).await;
        setup.registry.say(OTHER, Presence::Present);
        setup.are_left_alone_for(PATIENCE.absence / 3).await;
    }
    setup.registry.say(OTHER, Presence::Absent);
    setup.are_claimed().await;
}

#[tokio::test]
async fn nothing_is_claimed_while_the_registry_is_away() {
    let setup = setup().await;
    setup.row(OTHER, "unknown").await;
    setup.registry.is_away.send_replace(true);
    setup.start(OWN);
    setup.are_left_alone_for(3 * PATIENCE.absence).await;
    setup.registry.is_away.send_replace(false);
    // What it said before it was away counts no more.
    setup.are_left_alone_for(PATIENCE.absence / 2).await;
    setup.are_claimed().await;
}

#[tokio::test]
async fn a_registry_that_does_not_know_ourselves_is_not_believed_about_others() {
    let setup = setup().await;
    setup.row(OTHER, "emptied").await;
    setup.registry.say(OWN, Presence::Absent);
    setup.start(OWN);
    setup.are_left_alone_for(3 * PATIENCE.absence).await;
    setup.registry.say(OWN, Presence::Present);
    setup.are_claimed().await;
}

#[tokio::test]
async fn without_leases_the_age_of_the_rows_decides() {
    let setup = setup().await;
    for id in [OWN, OTHER] {
        setup.registry.say(id, Presence::Unknown);
    }
    setup.row(OTHER, "young").await;
    setup.start(OWN);
    setup.are_left_alone_for(PATIENCE.age / 3).await;
    setup.are_claimed().await;
}

#[tokio::test]
async fn who_has_an_old_backlog_takes_no_other_for_dead_by_its_age() {
    // No relay: this node's own row waits, too, as it does when the log is away; it came a
    // little later. Arranged anew where the machine made much of that little.
    let deadline = Instant::now() + Duration::from_secs(60);
    let setup = loop {
        let setup = setup().await;
        let begin = Instant::now();
        setup.row(OTHER, "old").await;
        tokio::time::sleep(PATIENCE.age / 4).await;
        setup.row(OWN, "waits").await;
        if begin.elapsed() < PATIENCE.age / 2 {
            break setup;
        }
        assert!(Instant::now() < deadline, "two rows take longer than {:?}", PATIENCE.age / 2);
    };
    setup.registry.say(OTHER, Presence::Unknown);
    let (claimed, metrics) = (Default::default(), setup.metrics.clone());
    let (store, registry) = (setup.store.clone(), setup.registry.clone());
    let claims = Claims::new(store, registry, OWN.into(), claimed, metrics, PATIENCE);
    tokio::spawn(claims.run(setup.stop.clone()));
    setup.are_left_alone_for(3 * PATIENCE.age).await;
}

#[tokio::test]
async fn of_two_claimants_each_row_goes_to_one() {
    let setup = setup().await;
    setup.registry.say("node-c", Presence::Present);
    let values: Vec<String> = (0..700).map(|n| format!("{n:04}")).collect();
    for value in &values {
        setup.row(OTHER, value).await;
    }
    setup.start(OWN);
    setup.start("node-c");
    setup.are_claimed().await;
    assert_eq!(setup.log.sorted(), values);
    assert!(setup.metrics.text().contains("corecast_logic_relay_claimed_rows_total 700"));
}

#[tokio::test]
async fn who_holds_the_lock_is_not_disturbed() {
    let setup = setup().await;
    let lock = setup.registry.lock("claims").await.unwrap();
    setup.row(OTHER, "somebody claims it").await;
    setup.start(OWN);
    setup.are_left_alone_for(3 * PATIENCE.absence).await;
    lock.end().await;
    setup.are_claimed().await;
}
