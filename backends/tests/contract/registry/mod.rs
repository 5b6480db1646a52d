//! The registry: who is there, and who holds a lock.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod etcd_locks;
#[cfg(feature = "etcd")]
mod etcd_outage;
#[cfg(feature = "etcd")]
mod stand;

use corecast_backends::registry::fixed::FixedRegistry;
use corecast_backends::registry::*;
use corecast_backends::url::{LEASE_TTL, open_registry};

use crate::support::{is_pending, soon};

/// Makes a test of each case on each registry, which starts empty.
macro_rules! on_every_registry {
    ($($case:ident),* $(,)?) => {
        mod fixed {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::open_registry("static:", super::LEASE_TTL).expect("opens")).await;
            })*
        }

        #[cfg(feature = "etcd")]
        mod on_etcd {
            $(#[tokio::test]
            async fn $case() {
                let Some(place) = super::stand::Place::given() else { return };
                super::$case(place.open()).await;
            })*
        }
    };
}

on_every_registry!(
    an_empty_registry_answers_an_empty_set,
    a_node_is_there_as_long_as_its_lease,
    a_lease_that_is_ended_is_gone_when_that_answers,
    the_set_is_sorted_by_id,
    roles_do_not_mix,
    a_held_lease_is_not_lost,
    a_registered_node_is_present,
    the_same_id_at_the_same_address_takes_the_place_of_its_predecessor,
    a_lock_has_one_holder_at_a_time,
    locks_of_other_names_are_free,
    a_lock_is_given_up_by_dropping_it,
);

fn node(id: &str, port: u16) -> Node {
    Node { id: id.to_owned(), grpc_addr: format!("127.0.0.1:{port}") }
}

/// Waits until the set is this one.
async fn becomes<R: Registry>(registry: &R, role: Role, expected: &[Node]) {
    let mut nodes = registry.nodes(role);
    let claim = format!("{expected:?}");
    soon(&claim, nodes.wait_for(|nodes| nodes.as_deref() == Some(expected))).await.expect("watched");
}

async fn an_empty_registry_answers_an_empty_set<R: Registry>(registry: R) {
    becomes(&registry, Role::Gateway, &[]).await;
    becomes(&registry, Role::Logic, &[]).await;
}

async fn a_node_is_there_as_long_as_its_lease<R: Registry>(registry: R) {
    let lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("g", 1)]).await;
    drop(lease);
    becomes(&registry, Role::Gateway, &[]).await;
}

async fn a_lease_that_is_ended_is_gone_when_that_answers<R: Registry>(registry: R) {
    let lease = registry.register(Role::Logic, node("l", 1)).await.expect("registers");
    soon("the place is given up", lease.end()).await;
    assert_ne!(registry.presence(Role::Logic, "l").await, Ok(Presence::Present));
}

async fn the_set_is_sorted_by_id<R: Registry>(registry: R) {
    let mut leases = Vec::new();
    for id in ["b", "c", "a"] {
        leases.push(registry.register(Role::Logic, node(id, 1)).await.expect("registers"));
    }
    becomes(&registry, Role::Logic, &[node("a", 1), node("b", 1), node("c", 1)]).await;
}

async fn roles_do_not_mix<R: Registry>(registry: R) {
    let _lease = registry.register(Role::Logic, node("x", 1)).await.expect("registers");
    becomes(&registry, Role::Logic, &[node("x", 1)]).await;
    becomes(&registry, Role::Gateway, &[]).await;
}

async fn a_held_lease_is_not_lost<R: Registry>(registry: R) {
    let lease = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("g", 1)]).await;
    assert!(!*lease.lost.borrow());
    assert!(lease.lost.has_changed().is_ok(), "somebody still watches over it");
}

async fn a_registered_node_is_present<R: Registry>(registry: R) {
    assert_ne!(registry.presence(Role::Logic, "l").await, Ok(Presence::Present));
    let _lease = registry.register(Role::Logic, node("l", 1)).await.expect("registers");
    assert_eq!(registry.presence(Role::Logic, "l").await, Ok(Presence::Present));
    assert_ne!(registry.presence(Role::Logic, "other").await, Ok(Presence::Present));
    assert_ne!(registry.presence(Role::Gateway, "l").await, Ok(Presence::Present));
}

async fn the_same_id_at_the_same_address_takes_the_place_of_its_predecessor<R: Registry>(registry: R) {
    let first = registry.register(Role::Gateway, node("g", 1)).await.expect("registers");
    let _second = registry.register(Role::Gateway, node("g", 1)).await.expect("registers at once");
    drop(first);
    becomes(&registry, Role::Gateway, &[node("g", 1)]).await;
    assert_eq!(registry.presence(Role::Gateway, "g").await, Ok(Presence::Present));
}

async fn a_lock_has_one_holder_at_a_time<R: Registry>(registry: R) {
    let first = soon("a free lock", registry.lock("l")).await.expect("locks");
    let mut second = std::pin::pin!(registry.lock("l"));
    assert!(is_pending(&mut second).await);
    assert!(!first.is_lost());
    first.end().await;
    let second = soon("the lock that was given up", second).await.expect("locks");
    assert!(!second.is_lost());
}

async fn locks_of_other_names_are_free<R: Registry>(registry: R) {
    let _one = soon("a free lock", registry.lock("one")).await.expect("locks");
    let _two = soon("a free lock", registry.lock("two")).await.expect("locks");
}

async fn a_lock_is_given_up_by_dropping_it<R: Registry>(registry: R) {
    for _ in 0..3 {
        drop(soon("the lock", registry.lock("l")).await.expect("locks"));
    }
}

#[tokio::test]
async fn fixed_lists_its_nodes_from_the_start() {
    let url = "static:gateway=g2@b.example:2,g1@127.0.0.1:1; logic=l@[::1]:9";
    let registry = open_registry(url, LEASE_TTL).expect("opens");
    let gateways = registry.nodes(Role::Gateway).borrow().clone().expect("answered at once");
    let expected = [node("g1", 1), Node { id: "g2".to_owned(), grpc_addr: "b.example:2".to_owned() }];
    assert_eq!(gateways, expected);
    let logics = registry.nodes(Role::Logic).borrow().clone().expect("answered at once");
    assert_eq!(logics, [Node { id: "l".to_owned(), grpc_addr: "[::1]:9".to_owned() }]);
}

#[tokio::test]
async fn fixed_a_registered_node_stands_in_for_the_listed_one() {
    let registry = FixedRegistry::new(vec![node("g", 1), node("h", 2)], vec![]);
    let first = registry.register(Role::Gateway, node("g", 7)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("g", 7), node("h", 2)]).await;
    let second = registry.register(Role::Gateway, node("g", 8)).await.expect("registers");
    becomes(&registry, Role::Gateway, &[node("g", 8), node("h", 2)]).await;
    drop(first);
    becomes(&registry, Role::Gateway, &[node("g", 8), node("h", 2)]).await;
    drop(second);
    becomes(&registry, Role::Gateway, &[node("g", 1), node("h", 2)]).await;
}

#[test]
fn fixed_a_list_that_cannot_be_read_is_refused_with_the_form_expected() {
    for list in [
        "gateway",
        "gateway=g",
        "gateway=g@h",
        "gateway=@h:1",
        "gateway=g@:1",
        "gateway=g@h:0",
        "gateway=g@h:65536",
        "gateway=g@h:x",
        "job=j@h:1",
    ] {
        let text = FixedRegistry::parse(list).err().unwrap_or_else(|| panic!("{list:?} was taken"));
        assert!(text.contains("expected"), "{list:?}: {text}");
    }
    for list in ["", ";", "gateway=", "gateway=g@h:1,", "logic=l@h:65535;"] {
        assert!(FixedRegistry::parse(list).is_ok(), "{list:?}");
    }
}
