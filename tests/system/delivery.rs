//! Setup: ten users in three rooms who send 1,000 messages, with a fast path that works, is
//! off, or misbehaves. Claim: every member gets numbers 1..n of each room, once and in order.
//! Why it matters: the fast path may lose anything; nobody may notice.

use corecast_backends::bus::faults::BusFaults;
use corecast_checker::Recorder;

use crate::support::chatter::Chatter;
use crate::support::cluster::Cluster;
use crate::support::{Browser, Corecast, GENERAL, Setup, eventually, folder};

const USERS: usize = 10;
const ROOMS: usize = 3;
const MESSAGES: usize = 1_000;

async fn a_thousand_messages(corecast: &Corecast, what: &str) {
    let mut chatter = Chatter::gather(&[corecast.http()], corecast.logic(), USERS, ROOMS).await;
    chatter.talk(MESSAGES).await;
    chatter.all_complete().await;
    judge(&chatter, what);
}

/// Everything arrived at everybody.
fn judge(chatter: &Chatter, what: &str) {
    let verdict = chatter.verdict(what);
    verdict.expect_clean();
    let counts = (verdict.offered, verdict.acknowledged, verdict.delivered);
    assert_eq!(counts, (MESSAGES as u64, MESSAGES as u64, (MESSAGES * USERS) as u64));
    let total: u64 = chatter.rooms.iter().map(|room| chatter.recorder.head(room)).sum();
    assert_eq!(total, MESSAGES as u64, "numbers 1..n of each room, none left out");
}

#[tokio::test]
async fn a_thousand_messages_arrive_with_the_fast_path() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    a_thousand_messages(&corecast, "bus on").await;
}

#[tokio::test]
async fn a_thousand_messages_arrive_without_a_fast_path() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("bus.url", "none:").start().await;
    a_thousand_messages(&corecast, "bus off").await;
}

async fn a_thousand_messages_in_a_cluster(faults: BusFaults, what: &str) {
    let cluster = Cluster::up(faults.clone()).await;
    cluster.ready(0).await;
    let mut chatter = Chatter::gather(&[cluster.http(0)], cluster.logic(), USERS, ROOMS).await;
    chatter.talk(MESSAGES).await;
    chatter.all_complete().await;
    println!("{faults:?}: {:?}", cluster.bus.counters());
    judge(&chatter, what);
    drop(chatter);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_arrive_while_the_bus_drops_half() {
    let faults = BusFaults { seed: 7, drop: 0.5, ..BusFaults::default() };
    a_thousand_messages_in_a_cluster(faults, "bus drops half").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_arrive_while_the_bus_drops_everything() {
    let faults = BusFaults { drop_all: true, ..BusFaults::default() };
    a_thousand_messages_in_a_cluster(faults, "bus drops everything").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_arrive_while_the_bus_repeats_and_reorders() {
    let delay_max = std::time::Duration::from_millis(20);
    let faults =
        BusFaults { seed: 11, drop: 0.1, duplicate: 0.3, reorder: 0.3, delay_max, ..BusFaults::default() };
    a_thousand_messages_in_a_cluster(faults, "bus repeats and reorders").await;
}

/// Logic and a gateway, no job: the fast path and the tail check alone.
async fn without_job(faults: BusFaults) -> (Cluster, Recorder, Browser, Browser) {
    let mut cluster = Cluster::new(faults).await;
    cluster.start_logic().await;
    cluster.start_gateway(|_| {}).await;
    cluster.ready(0).await;
    let recorder = Recorder::new();
    let (ann, bob) = (cluster.account("ann").await, cluster.account("bob").await);
    let mut of_ann = Browser::knock(cluster.http(0), &ann.sid).v1().recorded(&recorder, "ann").open().await;
    let mut of_bob = Browser::knock(cluster.http(0), &bob.sid).recorded(&recorder, "bob").open().await;
    of_ann.hello().await;
    of_bob.hello().await;
    (cluster, recorder, of_ann, of_bob)
}

async fn complete(recorder: &Recorder, head: u64) {
    for name in ["ann", "bob"] {
        let what = format!("{name} has everything by the tail check, without reconnecting");
        eventually(&what, || async { recorder.has_reached(name, GENERAL, head) }).await;
    }
    recorder.judge().expect_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_lost_once_before_a_room_goes_quiet_comes_by_the_tail_check() {
    let (cluster, recorder, mut of_ann, of_bob) = without_job(BusFaults::default()).await;
    for index in 0..10 {
        of_ann.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
        of_ann.frame("ack").await;
    }
    complete(&recorder, 10).await;
    cluster.bus.drop_next(3);
    for index in 10..13 {
        of_ann.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
        of_ann.frame("ack").await;
    }
    complete(&recorder, 13).await;
    assert_eq!(cluster.bus.counters().lost, 3, "the bus did lose them");
    drop((of_ann, of_bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_drops_everything_is_made_good_by_the_tail_check_alone() {
    let (cluster, recorder, mut of_ann, of_bob) =
        without_job(BusFaults { drop_all: true, ..BusFaults::default() }).await;
    for index in 0..50 {
        of_ann.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
    }
    complete_after_acks(&recorder, 50).await;
    drop((of_ann, of_bob));
    cluster.end().await;
}

async fn complete_after_acks(recorder: &Recorder, count: u64) {
    eventually("everything is acknowledged", || async { recorder.acknowledged_count() == count }).await;
    complete(recorder, recorder.head(GENERAL)).await;
}
