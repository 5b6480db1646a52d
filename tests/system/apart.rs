//! Setup: every tier as processes of its own, on MariaDB, Redis, Kafka and etcd. Claim: DESIGN
//! §3.6, §3.11, §4: any gateway with any logic node, any job with all gateways, whoever of
//! them dies, stops or joins; the rows of a dead logic node reach the log by another. Why it
//! matters: this is how it runs in earnest.

use std::time::Duration;

use crate::support::apart::{Apart, check_config, dead_kafka};
use crate::support::chatter::Chatter;
use crate::support::{Browser, GENERAL, Setup, eventually, http, in_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_tier_lose_nothing_when_one_of_each_is_killed() {
    let Some(apart) = Apart::ready().await else { return };
    let (logic, other_logic) = futures::join!(apart.start("logic-1"), apart.start("logic-2"));
    let (job, other_job) = futures::join!(apart.start("job-1"), apart.start("job-2"));
    let (gateway, other_gateway) = futures::join!(apart.start("gateway-1"), apart.start("gateway-2"));
    let gateways = [gateway.http(), other_gateway.http()];
    let mut chatter = Chatter::gather(&gateways, logic.logic(), 2, 3).await;
    chatter.talk(60).await;
    chatter.all_complete().await;

    other_logic.kill();
    chatter.talk(60).await;
    chatter.all_complete().await;

    other_job.kill();
    chatter.talk(60).await;
    chatter.all_complete().await;
    chatter.verdict("a logic node and a job killed, nobody reconnected").expect_clean();

    // The second user was on this one, and goes on where he was.
    other_gateway.kill();
    chatter.move_to(1, gateway.http()).await;
    chatter.talk(60).await;
    chatter.all_complete().await;
    chatter.verdict("a gateway killed as well").expect_clean();
    drop((chatter, gateway, job, logic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logic_nodes_join_and_leave_under_load() {
    let Some(apart) = Apart::ready().await else { return };
    let mut logic = apart.start("logic-1").await;
    let (job, gateway) = futures::join!(apart.start("job-1"), apart.start("gateway-1"));
    let mut chatter = Chatter::gather(&[gateway.http()], logic.logic(), 4, 2).await;
    for round in 2..=4 {
        let name = format!("logic-{round}");
        let joined = futures::join!(chatter.talk(200), apart.start(&name)).1;
        eventually("it is in the registry", || async { apart.etcd.has("logic", &name) }).await;
        logic.terminate();
        let (_, status) = futures::join!(chatter.talk(200), logic.ended());
        assert!(status.success(), "{status}");
        logic = joined;
    }
    chatter.all_complete().await;
    chatter.verdict("three logic nodes one after the other, nobody reconnected").expect_clean();
    drop((chatter, gateway, job, logic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_stopped_for_longer_than_its_lease_comes_back_complete() {
    let Some(mut apart) = Apart::ready().await else { return };
    // By the log alone: what the others get while one is stopped, job sent.
    apart.set("bus.url", "none:");
    let (logic, job) = futures::join!(apart.start("logic-1"), apart.start("job-1"));
    let (gateway, stopped) = futures::join!(apart.start("gateway-1"), apart.start("gateway-2"));
    let mut chatter =
        Chatter::gather(&[gateway.http(), gateway.http(), stopped.http()], logic.logic(), 3, 2).await;
    chatter.talk(30).await;
    chatter.all_complete().await;

    stopped.signal("STOP");
    eventually("its lease ends", || async { !apart.etcd.has("gateway", "gateway-2") }).await;
    chatter.talk_by(&[0, 1], 40).await;
    chatter.complete_within(&[0, 1], Duration::from_secs(13)).await;

    stopped.signal("CONT");
    eventually("it is back", || async { apart.etcd.has("gateway", "gateway-2") }).await;
    chatter.talk(30).await;
    chatter.all_complete().await;
    let told = stopped.output().lines_with("lease lost");
    assert!(!told.is_empty(), "a new incarnation");
    chatter.verdict("stopped for longer than its lease, nobody reconnected").expect_clean();
    drop((chatter, gateway, stopped, job, logic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_dead_logic_node_reach_the_log_by_another() {
    let Some(mut apart) = Apart::ready().await else { return };
    apart.set("bus.url", "none:");
    // Its relay finds no Kafka, so what it acknowledges stays in the table.
    let doomed = apart.node("logic-9").set("log.url", dead_kafka()).start().await;
    let gateway = apart.node("gateway-1").set("gateway.limits.tail_check_ms", 60_000).start().await;
    let ann = apart.account(&gateway, &doomed, "ann").await;
    let mut browser = Browser::knock(gateway.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    for index in 0..10 {
        browser.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
        browser.frame("ack").await;
    }
    doomed.kill();
    let heir = apart.start("logic-1").await;
    let job = apart.start("job-1").await;
    for index in 0..10 {
        let message = in_time("by the log of another", browser.message(GENERAL)).await;
        assert_eq!(message["content"], format!("message {index}"));
    }
    let metrics = http::get(heir.logic(), "/metrics").await.expect("it answers").text;
    let claimed =
        metrics.lines().find_map(|line| line.strip_prefix("corecast_logic_relay_claimed_rows_total "));
    assert_eq!(claimed, Some("10"), "{metrics}");
    assert_eq!(heir.output().lines_with("outbox rows of a dead node claimed").len(), 1);
    drop((browser, gateway, heir, job));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_reach_each_other_by_name() {
    let Some(apart) = Apart::ready().await else { return };
    let port = corecast_ports::free();
    let logic = apart.node("logic-1").set("logic.grpc_addr", format!("0.0.0.0:{port}"));
    let logic = logic.set("logic.advertise_grpc", format!("localhost:{port}")).start().await;
    let port = corecast_ports::free();
    let gateway = apart.node("gateway-1").set("gateway.grpc_addr", format!("0.0.0.0:{port}"));
    let gateway = gateway.set("gateway.advertise_grpc", format!("localhost:{port}"));
    let gateway = gateway.set("bus.url", "none:").set("gateway.limits.tail_check_ms", 60_000).start().await;
    let job = apart.start("job-1").await;
    let mut chatter = Chatter::gather(&[gateway.http()], logic.logic(), 2, 1).await;
    chatter.talk(10).await;
    chatter.all_complete().await;
    chatter.verdict("by name").expect_clean();
    drop((chatter, gateway, job, logic));
}

#[tokio::test]
async fn a_second_process_in_one_folder_or_at_no_address_is_refused() {
    let Some(apart) = Apart::ready().await else { return };
    let folder = apart.folder("shared");
    let setup = |tier: &str| {
        let mut setup = Setup::tier(tier, &folder);
        for (key, value) in apart.settings() {
            setup = setup.set(key, value);
        }
        setup
    };
    let first = setup("logic").start().await;
    let (status, said) = setup("logic").run_to_end().await;
    assert!(!status.success() && said.contains("logic.id is the id of another logic that runs"), "{said}");
    drop(first);
    let everywhere = setup("gateway").set("gateway.grpc_addr", "0.0.0.0:0");
    let (status, said) = everywhere.run_to_end().await;
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("gateway.advertise_grpc is not set"), "{said}");
}

#[test]
fn check_config_takes_the_real_engines_and_refuses_what_lives_in_one_process() {
    let real = [
        "store.url=mysql://u:p@h:3306/corecast",
        "hotset.url=redis-cluster://h:1,h:2",
        "bus.url=redis://h:6379",
        "log.url=kafka://h:9092",
        "registry.url=etcd://h:2379,i:2379",
    ];
    for tier in ["gateway", "logic", "job"] {
        let (right, said) = check_config(tier, &real);
        assert!(right, "{tier}: {said}");
    }
    let without = |at: usize, instead: &'static str| {
        let mut sets = real.to_vec();
        sets[at] = instead;
        sets
    };
    for (tier, at, instead) in [
        ("logic", 1, "hotset.url=memory:"),
        ("gateway", 2, "bus.url=memory:"),
        ("logic", 2, "bus.url=memory:"),
        ("logic", 1, "hotset.url=redis://h:6379?timeout_ms=0"),
        ("logic", 1, "hotset.url=redis-cluster://h:1?prefix={a}"),
        ("gateway", 2, "bus.url=redis://h:6379?unknown=1"),
        ("logic", 0, "store.url=mysql://u:p@h:3306/corecast?unknown=1"),
        ("job", 3, "log.url=embedded:"),
        ("logic", 3, "log.url=embedded:"),
        ("job", 4, "registry.url=static:"),
        ("gateway", 4, "registry.url=etcd://h"),
        ("gateway", 4, "registry.url=static:gateway=a"),
    ] {
        let (right, said) = check_config(tier, &without(at, instead));
        let (seam, _) = instead.split_once('=').expect("a setting");
        assert!(!right && said.contains(seam), "{tier} with {instead}: {said}");
    }
    let (right, said) = check_config("gateway", &without(2, "bus.url=none:"));
    assert!(right, "{said}");
}
