//! Setup: the real binary as an operator meets it. Claim: metrics and log words that
//! dashboards use, health of every tier, a configuration that cannot be mistyped, a kernel
//! that refuses io_uring. Why it matters: an operator reads this at three in the morning.

use serde_json::json;

use crate::support::http::{get, post};
use crate::support::process::run;
use crate::support::{Browser, Corecast, GENERAL, Setup, eventually, folder};

const SUCCESS: &str = r#"grpc_calls_total{service="comet",name="logic_forward",status="success"}"#;
const FAILED: &str = r#"grpc_calls_total{service="comet",name="logic_forward",status="failed"}"#;

async fn value_of(corecast: &Corecast, series: &str) -> Option<f64> {
    let text = get(corecast.metrics(), "/metrics").await.expect("metrics answer").text;
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn forwards_are_counted_under_the_names_dashboards_use() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    assert_eq!(value_of(&corecast, SUCCESS).await, Some(0.0), "present from the start");
    assert_eq!(value_of(&corecast, FAILED).await, Some(0.0), "present from the start");
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    let messages: Vec<_> = (0..5).map(|_| json!({"content": "one frame of five"})).collect();
    browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    browser.say(GENERAL, "one of one").await;
    for _ in 0..6 {
        browser.message(GENERAL).await;
    }
    eventually("once per clientMessages", || async { value_of(&corecast, SUCCESS).await == Some(2.0) }).await;
    assert_eq!(value_of(&corecast, FAILED).await, Some(0.0));
}

#[tokio::test]
async fn log_lines_of_a_forward_and_a_send_carry_their_words() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    browser.say(GENERAL, "a secret that is in no log").await;
    browser.message(GENERAL).await;
    for words in ["logic_forward", "/logic/send"] {
        eventually(words, || async { !corecast.output().lines_with(words).is_empty() }).await;
    }
    let output = corecast.output().text();
    assert!(!output.contains("a secret"), "never a payload");
    assert!(!output.contains(&ann.sid), "never a token");
    assert!(!output.contains(&ann.password), "never a password");
}

#[tokio::test]
async fn every_tier_tells_its_health() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    for (tier, addr) in
        [("gateway", corecast.metrics()), ("logic", corecast.logic()), ("job", corecast.job())]
    {
        for path in ["/healthz", "/readyz"] {
            eventually(tier, || async { get(addr, path).await.is_ok_and(|answer| answer.status == 200) })
                .await;
        }
    }
}

#[tokio::test]
async fn the_web_client_is_served_at_the_root() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let page = get(corecast.http(), "/").await.expect("it answers");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
}

#[tokio::test]
async fn a_mistyped_key_stops_the_start_and_names_the_nearest() {
    let data = folder();
    for (wrong, right) in [
        ("gateway.htp_addr", "gateway.http_addr"),
        ("gateway.limits.ping_sm", "gateway.limits.ping_ms"),
        ("logic.htpp_addr", "logic.http_addr"),
        ("stor.url", "store.url"),
    ] {
        let (status, output) = Setup::new(data.path()).set(wrong, "1").run_to_end().await;
        assert!(!status.success(), "{wrong}");
        assert!(output.contains(right), "{wrong}: {output}");
    }
    let file = data.path().join("corecast.toml");
    std::fs::write(&file, "[gateway]\nhttp_adress = \"127.0.0.1:0\"\n").expect("the folder is ours");
    let (status, _, output) = run(&["check-config", file.to_str().expect("a plain name")]);
    assert!(!status.success() && output.contains("gateway.http_addr"), "{output}");
}

#[tokio::test]
async fn a_value_out_of_range_stops_the_start_and_names_the_range() {
    let data = folder();
    let setup = Setup::new(data.path()).set("gateway.limits.ping_ms", 1);
    let (status, output) = setup.run_to_end().await;
    assert!(!status.success());
    assert!(output.contains("ping_ms") && output.contains("100") && output.contains("600000"), "{output}");
}

#[tokio::test]
async fn the_default_configuration_checks_and_embedded_backends_need_one_process() {
    let data = folder();
    let (status, text, _) = run(&["default-config"]);
    assert!(status.success());
    let file = data.path().join("corecast.toml");
    let path = file.to_str().expect("a plain name");
    std::fs::write(&file, &text).expect("the folder is ours");
    let (status, _, output) = run(&["check-config", path]);
    assert!(status.success(), "{output}");
    for tier in ["gateway", "logic", "job"] {
        let (status, _, output) = run(&[tier, "--config", path]);
        assert!(!status.success(), "{tier}: {output}");
        assert!(output.contains("memory:") || output.contains("embedded:"), "{tier}: {output}");
    }
}

#[tokio::test]
async fn the_effective_configuration_is_printed_with_secrets_hidden() {
    let data = folder();
    // Nobody listens there: everything works without the hot set.
    let hotset = "redis://user:hunter2@127.0.0.1:1/";
    let corecast = Setup::new(data.path()).set("hotset.url", hotset).start().await;
    eventually("the configuration is printed", || async {
        !corecast.output().lines_with("tail_check_ms").is_empty()
    })
    .await;
    assert!(!corecast.output().lines_with("127.0.0.1:1").is_empty(), "the URL is printed");
    assert!(corecast.output().lines_with("hunter2").is_empty(), "its password is not");
}

/// Runs a program for which the kernel refuses `io_uring_setup`.
const WITHOUT_IO_URING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/support/without_io_uring.pl");

#[tokio::test]
async fn where_io_uring_is_refused_it_works_with_one_warning() {
    let data = folder();
    let setup = Setup::new(data.path()).under("perl", &[WITHOUT_IO_URING]).set("gateway.driver", "auto");
    let corecast = setup.start().await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut of_ann = Browser::knock(corecast.http(), &ann.sid).open().await;
    let mut of_bob = Browser::knock(corecast.http(), &bob.sid).open().await;
    of_ann.hello().await;
    of_bob.hello().await;
    of_ann.say(GENERAL, "on a plain thread").await;
    assert_eq!(of_bob.message(GENERAL).await["content"], "on a plain thread");
    let warnings: Vec<String> = corecast
        .output()
        .lines_with("io_uring")
        .into_iter()
        .filter(|line| line.contains("WARN") || line.contains("\"level\":\"WARN\""))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    post(corecast.logic(), "/logic/rooms", &json!({})).await;
}

#[tokio::test]
async fn the_metrics_name_the_driver_that_was_asked_for() {
    for driver in ["epoll", "auto"] {
        let data = folder();
        let corecast = Setup::new(data.path()).set("gateway.driver", driver).start().await;
        let answer = get(corecast.metrics(), "/metrics").await.expect("metrics");
        let mut shards = answer.text.lines().filter(|line| line.starts_with("corecast_gateway_shard_info{"));
        let expected = |line: &str| match driver {
            "epoll" => line.contains("host=\"thread\"") && line.contains("driver=\"epoll\""),
            _ => ["uring", "epoll"].iter().any(|name| line.contains(&format!("driver=\"{name}\""))),
        };
        assert!(shards.clone().count() > 0 && shards.all(expected), "{driver}: {}", answer.text);
    }
}

#[tokio::test]
async fn where_io_uring_is_refused_and_demanded_the_start_fails() {
    let data = folder();
    let setup = Setup::new(data.path()).under("perl", &[WITHOUT_IO_URING]).set("gateway.driver", "uring");
    let (status, output) = setup.run_to_end().await;
    assert!(!status.success());
    assert!(output.contains("io_uring"), "{output}");
}
