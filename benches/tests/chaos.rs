//! Setup: the campaign itself, small, against one `corecast up` that is killed, paused and, where
//! iptables may be used, cut off.
//! Claim: clients, schedule, judge and read-back work together, and everything that was
//! acknowledged is there. Why it matters: a campaign of minutes is run seldom, and must not
//! be the first to find that its own parts do not fit.

use std::path::PathBuf;
use std::time::Duration;

use corecast_benches::chaos::campaign::{self, Plan};
use corecast_benches::chaos::crowd::Size;
use corecast_benches::chaos::judge::{self, Limits};
use corecast_benches::chaos::system::System;

/// The binary that a build of the workspace leaves beside the tests.
fn corecast() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let binary = test.parent()?.parent()?.join("corecast");
    binary.is_file().then_some(binary)
}

#[test]
fn a_small_campaign_against_one_process_ends_clean() {
    let Some(binary) = corecast() else {
        println!("not run: there is no corecast binary; `cargo build` makes it");
        return;
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026);
    println!("SEED={seed} cargo test -p corecast-benches --test chaos");
    let plan = Plan {
        seed,
        size: Size { clients: 12, rooms: 4, rooms_per_client: 2, rate: 60 },
        faults: 3,
        calm: Duration::from_millis(700),
        settle: Duration::from_millis(500),
        window: Duration::ZERO,
        silence: Duration::from_secs(2),
        patience: Duration::from_secs(60),
        undisturbed: Duration::ZERO,
    };
    let mut system =
        System::embedded(&binary, &["rooms.create_kind=public".to_owned()]).expect("corecast up starts");
    system.allow_cuts().expect("it tells its port");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let outcome = runtime.block_on(campaign::run(&mut system, &plan)).expect("the campaign runs to its end");
    // Every fault sends everybody away, and the machine may be busy: how fast and how much by
    // resume is not asked here.
    let limits = Limits { acked_least: 100, live_share: 0.0, recovery_ms: 60_000, ..Limits::default() };
    let missed: Vec<_> = judge::check(&outcome, &limits).into_iter().filter(|check| !check.kept).collect();
    assert!(missed.is_empty(), "{missed:#?}\n{:#?}", outcome.verdict.details);
    assert_eq!(outcome.faults.len(), 3);
    assert!(outcome.audit.stored > 100, "{:?}", outcome.audit);
}
