//! What the whole-system tests share.
//!
//! | module | what |
//! |---|---|
//! | [`apart`] | the tiers as processes of their own on the real engines |
//! | [`process`] | the real binary: start, addresses, kill, terminate, log lines |
//! | [`cluster`] | the tiers as libraries in this process, where the bus must drop or one tier be away |
//! | [`browser`] | a WebSocket client that is not ours (tokio-tungstenite) |
//! | [`http`] | HTTP requests and accounts |
//! | [`comet`] | a stock gRPC client: reflection first, then the call |
//! | [`engines`] | what MariaDB and Redis hold, read by their own clients |
//! | [`etcd`] | a place on a real etcd |
//! | [`peer`] | a gateway that is not ours: takes pushes, or does not |
//! | [`chatter`] | many users who talk at once, told to the delivery checker |
//!
//! Nothing here sleeps for luck: [`eventually`] looks again until a deadline.

pub mod apart;
pub mod browser;
pub mod chatter;
pub mod cluster;
pub mod comet;
pub mod engines;
pub mod etcd;
pub mod http;
pub mod peer;
pub mod process;

use std::future::Future;
use std::time::{Duration, Instant};

pub use browser::{Browser, Seen};
pub use http::Account;
pub use process::{Corecast, Setup};

/// The default room of a fresh store.
pub const GENERAL: &str = "room-001";

/// How long anything may take that should take milliseconds. Debug builds, two cores and
/// every other test at the same time.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// `gateway.driver` of every gateway here, from `CORECAST_TEST_DRIVER`; without it the
/// default, which is io_uring where the kernel allows it. `scripts/test` runs everything on both.
pub fn driver() -> Option<String> {
    std::env::var("CORECAST_TEST_DRIVER").ok()
}

/// An empty folder that is deleted at the end.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Looks every few milliseconds until `holds`.
///
/// # Panics
/// With `what` after [`DEADLINE`].
#[track_caller]
pub fn eventually<'a, F>(what: &'a str, mut holds: impl FnMut() -> F + 'a) -> impl Future<Output = ()> + 'a
where
    F: Future<Output = bool> + 'a,
{
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < DEADLINE, "{caller}: not within {DEADLINE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits at most [`DEADLINE`].
///
/// # Panics
/// With `what` after it.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}
