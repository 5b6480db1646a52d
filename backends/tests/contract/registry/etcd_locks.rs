//! Locks on etcd: between processes, lost before another can have them, free when their
//! holder is gone.

use corecast_backends::registry::*;

use super::stand::{Link, Place, State};
use crate::support::{is_pending, soon};

#[tokio::test]
async fn a_lock_holds_between_processes() {
    let Some(place) = Place::given() else { return };
    let (one, two) = (place.open(), place.open());
    let first = soon("a free lock", one.lock("l")).await.expect("locks");
    let mut second = std::pin::pin!(two.lock("l"));
    assert!(is_pending(&mut second).await);
    drop(first);
    soon("the lock that was given up", second).await.expect("locks");
}

#[tokio::test]
async fn the_holder_is_told_before_another_has_the_lock() {
    let Some(place) = Place::given() else { return };
    let link = Link::to(place.host()).await;
    let (one, two) = (place.open_by(&link.host()), place.open());
    let first = soon("a free lock", one.lock("l")).await.expect("locks");
    link.set(State::Stalled);
    let second = soon("the lock of one that is cut off", two.lock("l")).await.expect("locks");
    assert!(first.is_lost(), "by its own clock, though nobody could tell it");
    assert!(!second.is_lost());
}

#[tokio::test]
async fn who_gave_up_waiting_does_not_hold_the_lock() {
    let Some(place) = Place::given() else { return };
    let (one, two) = (place.open(), place.open());
    let first = soon("a free lock", one.lock("l")).await.expect("locks");
    for _ in 0..3 {
        assert!(is_pending(two.lock("l")).await);
    }
    first.end().await;
    let again = soon("free again", one.lock("l")).await.expect("locks");
    again.end().await;
}
