//! What only leases can tell: one holder per id, a lost lease, a set that is never older than
//! etcd for long.

use std::time::{Duration, Instant};

use corecast_backends::registry::*;
use etcd_client::CompactionOptions;

use super::stand::{Link, Place, State, TTL};
use super::{becomes, node};
use crate::support::{eventually, soon};

#[tokio::test]
async fn processes_see_each_other() {
    let Some(place) = Place::given() else { return };
    let (here, there) = (place.open(), place.open());
    let lease =
        here.register(Role::Gateway, Node { id: "g".to_owned(), grpc_addr: "gateway.example:1".to_owned() });
    let lease = lease.await.expect("registers");
    let named = Node { id: "g".to_owned(), grpc_addr: "gateway.example:1".to_owned() };
    becomes(&there, Role::Gateway, std::slice::from_ref(&named)).await;
    let _other = there.register(Role::Gateway, node("h", 2)).await.expect("registers");
    becomes(&here, Role::Gateway, &[named, node("h", 2)]).await;
    drop(lease);
    becomes(&there, Role::Gateway, &[node("h", 2)]).await;
    assert!(here.tells_others());
}

#[tokio::test]
async fn systems_with_other_prefixes_do_not_meet() {
    let (Some(one), Some(two)) = (Place::given(), Place::given()) else { return };
    let (one, two) = (one.open(), two.open());
    let _lease = one.register(Role::Logic, node("l", 1)).await.expect("registers");
    becomes(&two, Role::Logic, &[]).await;
    assert_eq!(two.presence(Role::Logic, "l").await, Ok(Presence::Absent));
    let _lock = soon("a free lock", one.lock("l")).await.expect("locks");
    let _lock = soon("a free lock", two.lock("l")).await.expect("locks");
}

#[tokio::test]
async fn an_id_is_refused_to_another_address_until_its_holder_is_gone() {
    let Some(place) = Place::given() else { return };
    let (one, two) = (place.open(), place.open());
    let first = one.register(Role::Gateway, node("g", 1)).await.expect("registers");
    let refused = two.register(Role::Gateway, node("g", 2)).await.map(drop);
    let taken =
        RegistryError::Taken { role: "gateway", id: "g".to_owned(), holder: "127.0.0.1:1".to_owned() };
    assert_eq!(refused, Err(taken.clone()));
    assert!(taken.to_string().contains("127.0.0.1:1"), "{taken}");
    becomes(&two, Role::Gateway, &[node("g", 1)]).await;
    first.end().await;
    let _second = two.register(Role::Gateway, node("g", 2)).await.expect("free now");
    becomes(&one, Role::Gateway, &[node("g", 2)]).await;
}

#[tokio::test]
async fn a_replaced_predecessor_is_told_and_does_not_take_the_place_along() {
    let Some(place) = Place::given() else { return };
    let (one, two) = (place.open(), place.open());
    let mut first = one.register(Role::Gateway, node("g", 1)).await.expect("registers");
    let second = two.register(Role::Gateway, node("g", 1)).await.expect("the same address");
    soon("the predecessor is told", first.until_lost()).await;
    first.end().await;
    tokio::time::sleep(TTL).await;
    assert_eq!(two.presence(Role::Gateway, "g").await, Ok(Presence::Present));
    assert!(!second.is_lost());
}

#[tokio::test]
async fn a_lease_is_kept_for_longer_than_its_time() {
    let Some(place) = Place::given() else { return };
    let registry = place.open();
    let lease = registry.register(Role::Logic, node("l", 1)).await.expect("registers");
    let mut nodes = registry.nodes(Role::Logic);
    becomes(&registry, Role::Logic, &[node("l", 1)]).await;
    nodes.mark_unchanged();
    tokio::time::sleep(3 * TTL).await;
    assert!(!nodes.has_changed().expect("watched"), "it never left");
    assert!(!lease.is_lost());
}

#[tokio::test]
async fn a_lease_that_ends_behind_its_holder_s_back_is_told_and_a_new_one_can_be_had() {
    let Some(place) = Place::given() else { return };
    let registry = place.open();
    let mut lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    let client = place.client().await;
    let entry =
        client.kv_client().get(place.key("gateway", "g"), None).await.expect("reads").take_kvs().remove(0);
    client.lease_client().revoke(entry.lease()).await.expect("revokes");
    becomes(&registry, Role::Gateway, &[]).await;
    soon("the holder is told", lease.until_lost()).await;
    let _again = registry.register(Role::Gateway, node("g", 1)).await.expect("registers again");
    becomes(&registry, Role::Gateway, &[node("g", 1)]).await;
}

/// A holder that says nothing for longer than its lease is what a stopped process looks like:
/// nothing of it moves until it goes on.
#[tokio::test]
async fn a_holder_that_was_stopped_for_longer_than_its_lease_is_told_when_it_goes_on() {
    let Some(place) = Place::given() else { return };
    let link = Link::to(place.host()).await;
    let (stopped, others) = (place.open_by(&link.host()), place.open());
    let mut lease = stopped.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&others, Role::Gateway, &[node("g", 1)]).await;
    let seen = stopped.nodes(Role::Gateway);
    becomes(&stopped, Role::Gateway, &[node("g", 1)]).await;
    link.set(State::Stalled);
    becomes(&others, Role::Gateway, &[]).await;
    assert!(!lease.is_lost(), "nobody could tell it yet");
    assert_eq!(seen.borrow().as_deref(), Some(&[node("g", 1)][..]), "what it saw last stays");
    link.set(State::Open);
    soon("it is told", lease.until_lost()).await;
    let _again = stopped.register(Role::Gateway, node("g", 1)).await.expect("registers again");
    becomes(&others, Role::Gateway, &[node("g", 1)]).await;
}

#[tokio::test]
async fn a_cut_that_is_shorter_than_the_lease_costs_nothing() {
    let Some(place) = Place::given() else { return };
    let link = Link::to(place.host()).await;
    let (registry, others) = (place.open_by(&link.host()), place.open());
    let lease = registry.register(Role::Logic, node("l", 1)).await.expect("registers");
    becomes(&others, Role::Logic, &[node("l", 1)]).await;
    let mut nodes = others.nodes(Role::Logic);
    nodes.mark_unchanged();
    link.set(State::Cut);
    tokio::time::sleep(TTL / 4).await;
    link.set(State::Open);
    tokio::time::sleep(2 * TTL).await;
    assert!(!nodes.has_changed().expect("watched") && !lease.is_lost());
}

#[tokio::test]
async fn what_changed_and_was_compacted_while_the_watch_was_cut_is_read_again() {
    let Some(place) = Place::given() else { return };
    let link = Link::to(place.host()).await;
    let (watching, others) = (place.open_by(&link.host()), place.open());
    let old = others.register(Role::Gateway, node("old", 1)).await.expect("registers");
    let _stays = others.register(Role::Gateway, node("stays", 1)).await.expect("registers");
    becomes(&watching, Role::Gateway, &[node("old", 1), node("stays", 1)]).await;
    link.set(State::Cut);
    old.end().await;
    let _new = others.register(Role::Gateway, node("new", 1)).await.expect("registers");
    let client = place.client().await;
    let answer = client.kv_client().get("x", None).await.expect("reads");
    let revision = answer.header().expect("a header").revision();
    client
        .kv_client()
        .compact(revision, Some(CompactionOptions::new().with_physical()))
        .await
        .expect("compacts");
    assert_eq!(
        watching.nodes(Role::Gateway).borrow().as_ref().map(Vec::len),
        Some(2),
        "the last set is kept"
    );
    link.set(State::Open);
    becomes(&watching, Role::Gateway, &[node("new", 1), node("stays", 1)]).await;
}

#[tokio::test]
async fn a_compaction_under_a_watch_that_lives_changes_nothing() {
    let Some(place) = Place::given() else { return };
    let registry = place.open();
    let _lease = registry.register(Role::Gateway, node("a", 1)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("a", 1)]).await;
    let client = place.client().await;
    for round in 0..20 {
        let put =
            client.kv_client().put(place.key("other", "x"), round.to_string(), None).await.expect("puts");
        let revision = put.header().expect("a header").revision();
        // Another test may have compacted further.
        let _ = client.kv_client().compact(revision, None).await;
    }
    let _second = registry.register(Role::Gateway, node("b", 1)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("a", 1), node("b", 1)]).await;
}

#[tokio::test]
async fn a_node_that_flaps_is_seen_as_it_is_in_the_end() {
    let Some(place) = Place::given() else { return };
    let (registry, others) = (place.open(), place.open());
    let _stays = registry.register(Role::Gateway, node("stays", 1)).await.expect("registers");
    becomes(&others, Role::Gateway, &[node("stays", 1)]).await;
    let mut nodes = others.nodes(Role::Gateway);
    let watching = tokio::spawn(async move {
        while nodes.changed().await.is_ok() {
            let seen = nodes.borrow_and_update().clone().expect("never back to nothing");
            assert!(seen.contains(&node("stays", 1)), "the others never flap along: {seen:?}");
            if seen.iter().any(|seen| seen.id == "end") {
                return;
            }
        }
    });
    for port in 1..=20 {
        let lease = registry.register(Role::Gateway, node("flaps", port)).await.expect("registers");
        lease.end().await;
    }
    let _last = registry.register(Role::Gateway, node("flaps", 99)).await.expect("registers");
    let _end = registry.register(Role::Gateway, node("end", 1)).await.expect("registers");
    soon("the end is seen", watching).await.expect("no panic");
    becomes(&others, Role::Gateway, &[node("end", 1), node("flaps", 99), node("stays", 1)]).await;
}

#[tokio::test]
async fn entries_that_nobody_can_read_are_skipped() {
    let Some(place) = Place::given() else { return };
    let registry = place.open();
    let client = place.client().await;
    client.kv_client().put(place.key("logic", "nonsense"), "not JSON", None).await.expect("puts");
    client.kv_client().put(place.key("logic", ""), r#"{"grpc_addr":"h:1"}"#, None).await.expect("puts");
    let later = r#"{"grpc_addr":"127.0.0.1:7","zone":"b"}"#;
    client.kv_client().put(place.key("logic", "later"), later, None).await.expect("puts");
    becomes(&registry, Role::Logic, &[node("later", 7)]).await;
}

#[tokio::test]
async fn a_call_ends_in_time_when_nobody_answers() {
    let Some(place) = Place::given() else { return };
    let link = Link::to(place.host()).await;
    let registry = place.open_by(&link.host());
    assert_eq!(registry.presence(Role::Logic, "l").await, Ok(Presence::Absent));
    link.set(State::Stalled);
    let start = Instant::now();
    assert!(matches!(registry.presence(Role::Logic, "l").await, Err(RegistryError::Unavailable(_))));
    assert!(registry.register(Role::Logic, node("l", 1)).await.is_err());
    assert!(registry.lock("x").await.is_err());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    link.set(State::Open);
    eventually("it is asked again", async || {
        registry.presence(Role::Logic, "l").await == Ok(Presence::Absent)
    })
    .await;
}
