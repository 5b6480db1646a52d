//! Setup: an etcd of our own, killed, restarted, emptied. Claim: nobody leaves the set because
//! nobody could be asked, leases live on or are told to be lost, and the other member answers.
//! Why it matters: a registry that is away must not cost a single link.

use corecast_backends::registry::*;

use super::stand::{Etcd, Link, TTL};
use super::{becomes, node};
use crate::support::{eventually, soon};

#[tokio::test]
async fn killed_and_restarted_the_set_is_kept_and_leases_live_on() {
    let Some(etcd) = Etcd::start().await else { return };
    let place = etcd.place();
    let (registry, others) = (place.open(), place.open());
    let lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&others, Role::Gateway, &[node("g", 1)]).await;
    let mut nodes = others.nodes(Role::Gateway);
    nodes.mark_unchanged();
    for _ in 0..2 {
        etcd.kill(1).await;
        tokio::time::sleep(2 * TTL).await;
        assert!(matches!(registry.presence(Role::Gateway, "g").await, Err(RegistryError::Unavailable(_))));
        assert!(!lease.is_lost(), "nobody said so");
        etcd.restart().await;
        eventually("it answers again", async || {
            registry.presence(Role::Gateway, "g").await == Ok(Presence::Present)
        })
        .await;
    }
    // Long enough to lose it, were it not renewed again.
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(others.presence(Role::Gateway, "g").await, Ok(Presence::Present));
    assert!(!nodes.has_changed().expect("watched"), "it never left");
    assert!(!lease.is_lost());
    let _second = registry.register(Role::Gateway, node("h", 1)).await.expect("registers");
    becomes(&others, Role::Gateway, &[node("g", 1), node("h", 1)]).await;
}

#[tokio::test]
async fn one_that_lost_all_its_data_tells_every_holder() {
    let Some(etcd) = Etcd::start().await else { return };
    let place = etcd.place();
    let (registry, others) = (place.open(), place.open());
    let mut lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&others, Role::Gateway, &[node("g", 1)]).await;
    etcd.kill(1).await;
    etcd.forget_everything();
    etcd.restart().await;
    becomes(&others, Role::Gateway, &[]).await;
    soon("the holder is told", lease.until_lost()).await;
    let _again = registry.register(Role::Gateway, node("g", 1)).await.expect("registers again");
    becomes(&others, Role::Gateway, &[node("g", 1)]).await;
}

#[tokio::test]
async fn one_that_starts_later_is_waited_for() {
    let Some(etcd) = Etcd::prepare(1) else { return };
    let registry = etcd.place().open();
    let mut nodes = registry.nodes(Role::Gateway);
    let refused = registry.register(Role::Gateway, node("g", 1)).await.map(drop);
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert_eq!(*nodes.borrow(), None, "no answer is not an empty one");
    etcd.restart().await;
    soon("the first answer", nodes.wait_for(Option::is_some)).await.expect("watched");
    let lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("g", 1)]).await;
    lease.end().await;
}

#[tokio::test]
async fn one_of_three_members_may_die() {
    let Some(etcd) = Etcd::start_members(3).await else { return };
    let place = etcd.place();
    let (registry, others) = (place.open(), place.open());
    let lease = registry.register(Role::Logic, node("l", 1)).await.expect("registers");
    becomes(&others, Role::Logic, &[node("l", 1)]).await;
    for member in 1..=3 {
        etcd.kill(member).await;
        let id = format!("beside-{member}");
        let mut beside = None;
        eventually("the other members register a node", async || {
            beside = registry.register(Role::Logic, node(&id, 1)).await.ok();
            beside.is_some()
        })
        .await;
        let mut nodes = others.nodes(Role::Logic);
        let has_both = |nodes: &Option<Vec<Node>>| {
            let nodes = nodes.as_deref().unwrap_or_default();
            nodes.contains(&node(&id, 1)) && nodes.contains(&node("l", 1))
        };
        soon("it is seen", nodes.wait_for(has_both)).await.expect("watched");
        assert!(!lease.is_lost());
        etcd.restart().await;
    }
}

#[tokio::test]
async fn a_dead_address_beside_a_live_one_costs_a_try() {
    let Some(etcd) = Etcd::start().await else { return };
    let place = etcd.place();
    let link = Link::to(place.host()).await;
    link.set(super::stand::State::Cut);
    let hosts = format!("{},{}", link.host(), place.host());
    for _ in 0..8 {
        let registry = place.open_by(&hosts);
        assert_eq!(registry.presence(Role::Logic, "l").await, Ok(Presence::Absent));
        becomes(&registry, Role::Logic, &[]).await;
    }
}
