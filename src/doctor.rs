//! `corecast doctor`: looks at what a node needs, changes nothing, says what to mend.
//!
//! ```text
//! ok    store       MariaDB 10.11.19, 0.3 ms
//! FAIL  durability  innodb_flush_log_at_trx_commit = 2: acknowledged messages can be lost …
//! ```
//!
//! Each engine has a deadline, and they are asked side by side: a dead one is a line, not a
//! wait.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use corecast_backends::hotset::HotSet as _;
use corecast_backends::log::Inspection as LogInspection;
use corecast_backends::registry::{Registry as _, Role};
use corecast_backends::store::server::Inspection;
use corecast_backends::url::{self, Urls};
use tokio::net::TcpStream;

use crate::config::{Config, without_secrets};
use crate::listening::say;

/// An engine that answers later is of no use to a node.
const DEADLINE: Duration = Duration::from_secs(5);
/// Clocks further apart make timestamps look odd; sessions and leases still hold.
const CLOCK_WARN_MS: u64 = 1_000;
/// Clocks further apart end sessions early or late, and make rows look abandoned.
const CLOCK_FAIL_MS: u64 = 30_000;
/// A gateway takes half of the files for connections.
const NOFILE_WARN: u64 = 65_536;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// Works, but should be mended.
    Warn,
    /// Does not work, or may lose what was acknowledged.
    Fail,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What helps.
    pub hint: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), hint: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, status: Status::Warn, found: found.into(), hint: hint.to_owned() }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, status: Status::Fail, found: found.into(), hint: hint.to_owned() }
    }
}

/// Prints the table.
///
/// # Errors
/// At least one check failed.
pub async fn run(config: &Config) -> Result<()> {
    let urls = config.urls()?;
    let checks = checks(config, &urls).await;
    print(&checks);
    match checks.iter().filter(|check| check.status == Status::Fail).count() {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        failed => bail!("{failed} checks failed"),
    }
}

/// All checks, in the order of the table.
pub async fn checks(config: &Config, urls: &Urls) -> Vec<Check> {
    let (store, replica, hotset, log, bus, registry) = tokio::join!(
        store(config, urls),
        replica(urls),
        hotset(urls),
        log(urls),
        reach("bus", &urls.bus),
        registry(urls),
    );
    let mut all = vec![open_files()];
    all.extend(store);
    all.extend(replica);
    all.push(hotset);
    all.extend(log);
    all.extend([bus, registry]);
    all
}

fn print(checks: &[Check]) {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for Check { name, status, found, hint } in checks {
        let status = match status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        say(&format!("{status:<4}  {name:<width$}  {found}"));
        if !hint.is_empty() {
            say(&format!("{:<4}  {:<width$}  → {hint}", "", ""));
        }
    }
}

async fn store(config: &Config, urls: &Urls) -> Vec<Check> {
    if let Some(path) = urls.store.strip_prefix("sqlite:") {
        return vec![folder(&config.data_dir, path)];
    }
    let hint = "is the server up, and do user, password and database of store.url fit?";
    match tokio::time::timeout(DEADLINE, url::inspect_store(&urls.store)).await {
        Ok(Ok(Some(inspection))) => server(&inspection, urls.store_options.pool_max),
        Ok(Ok(None)) => vec![Check::ok("store", "a file")],
        Ok(Err(error)) => vec![Check::fail("store", error.to_string(), hint)],
        Err(_) => vec![Check::fail("store", format!("no answer in {DEADLINE:?}"), hint)],
    }
}

fn folder(data_dir: &Path, path: &str) -> Check {
    let path = data_dir.join(path.strip_prefix("//").unwrap_or(path));
    let shown = path.display();
    // Of the folder only: the file belongs to whoever has it open.
    let parent = path.parent().unwrap_or(data_dir);
    match std::fs::metadata(parent) {
        Ok(found) if found.permissions().readonly() => {
            Check::fail("store", format!("{} is read-only", parent.display()), "give corecast write access")
        }
        Ok(_) if path.exists() => Check::ok("store", format!("embedded, {shown}")),
        Ok(_) => Check::ok("store", format!("embedded, {shown} will be made")),
        Err(_) => Check::ok("store", format!("embedded, {} will be made", parent.display())),
    }
}

/// The lines about a server that answered.
fn server(found: &Inspection, pool_max: u32) -> Vec<Check> {
    let round_trip = found.round_trip.as_secs_f64() * 1_000.0;
    let mut checks = vec![Check::ok("store", format!("{}, round trip {round_trip:.1} ms", found.server))];
    let wanted = found.schema_wanted;
    checks.push(match found.schema {
        Some(version) if version == wanted => Check::ok("schema", format!("version {version}")),
        Some(newer) if newer > wanted => Check::fail(
            "schema",
            format!("version {newer}, this build knows up to {wanted}"),
            "use the newer corecast that made it",
        ),
        Some(older) => Check::fail("schema", format!("version {older} of {wanted}"), "run corecast migrate"),
        None => Check::fail("schema", "there are no tables", "run corecast migrate"),
    });
    let durability = found.durability;
    checks.push(match durability.fault() {
        Some(fault) => Check::fail("durability", fault, "in the server's configuration, then restart it"),
        None => {
            let waits = if durability.shows_durable() { "" } else { "; reads wait for the disk" };
            let doublewrite = &found.doublewrite;
            Check::ok(
                "durability",
                format!("{}, innodb_doublewrite = {doublewrite}{waits}", durability.settings()),
            )
        }
    });
    checks.push(match found.isolation.as_str() {
        "READ-COMMITTED" => Check::ok("isolation", "READ-COMMITTED"),
        other => Check::fail("isolation", other, "the server must allow sessions READ COMMITTED"),
    });
    checks.push(clock(found.clock_ahead_ms));
    checks.push(if found.connections_max < 2 * u64::from(pool_max) {
        Check::warn(
            "connections",
            format!("max_connections = {}, store.pool_max = {pool_max} for each node", found.connections_max),
            "raise max_connections or lower store.pool_max: two nodes do not fit",
        )
    } else {
        Check::ok("connections", format!("{pool_max} of {} for each node", found.connections_max))
    });
    checks
}

fn clock(ahead_ms: i64) -> Check {
    let found =
        format!("the database is {} ms {}", ahead_ms.abs(), if ahead_ms < 0 { "behind" } else { "ahead" });
    let hint = "let both machines follow the same time server";
    let apart_ms = ahead_ms.unsigned_abs();
    if apart_ms > CLOCK_FAIL_MS {
        Check::fail("clock", found, hint)
    } else if apart_ms > CLOCK_WARN_MS {
        Check::warn("clock", found, hint)
    } else {
        Check::ok("clock", found)
    }
}

/// A replica is never needed: what it lacks the primary has.
async fn replica(urls: &Urls) -> Option<Check> {
    let replica_url = urls.store_options.replica_url.as_deref()?;
    let hint = "history comes from the primary meanwhile";
    Some(match tokio::time::timeout(DEADLINE, url::inspect_store(replica_url)).await {
        Ok(Ok(Some(found))) if found.schema == Some(found.schema_wanted) => {
            Check::ok("replica", found.server)
        }
        Ok(Ok(Some(_))) => Check::warn("replica", "it has not the tables of this build", hint),
        Ok(Ok(None)) => Check::fail("replica", "not a server", "store.replica_url must be mysql://…"),
        Ok(Err(error)) => Check::warn("replica", error.to_string(), hint),
        Err(_) => Check::warn("replica", format!("no answer in {DEADLINE:?}"), hint),
    })
}

async fn hotset(urls: &Urls) -> Check {
    let hotset = match url::open_hotset(&urls.hotset) {
        Ok(hotset) => hotset,
        Err(error) => return Check::fail("hotset", error.to_string(), ""),
    };
    let started = Instant::now();
    match tokio::time::timeout(DEADLINE, hotset.is_unknown_room("corecast doctor")).await {
        Ok(Ok(_)) => Check::ok("hotset", answered(&urls.hotset, started)),
        Ok(Err(error)) => Check::warn("hotset", error.to_string(), "slower, but correct without it"),
        Err(_) => {
            Check::warn("hotset", format!("no answer in {DEADLINE:?}"), "slower, but correct without it")
        }
    }
}

/// Can it be reached, and how many copies of a record survive whom?
async fn log(urls: &Urls) -> Vec<Check> {
    let reached = reach("log", &urls.log).await;
    let Ok(Some(log)) = url::open_log(&urls.log, &urls.log_settings) else { return vec![reached] };
    if reached.status == Status::Fail {
        return vec![reached];
    }
    let topic = &urls.log_settings.topic;
    let hint = "messages are stored and wait in the outbox";
    let copies = match tokio::time::timeout(DEADLINE, log.inspect()).await {
        Ok(Ok(Some(found))) => copies(topic, &found),
        Ok(Ok(None)) => return vec![reached],
        Ok(Err(error)) => Check::warn("log copies", error.to_string(), hint),
        Err(_) => Check::warn("log copies", format!("no answer in {DEADLINE:?}"), hint),
    };
    vec![reached, copies]
}

fn copies(topic: &str, found: &LogInspection) -> Check {
    let LogInspection { brokers, partitions, copies, in_sync_least, producer } = found;
    if *partitions == 0 {
        return Check::ok("log copies", format!("no topic {topic} yet, the first node makes it"));
    }
    let least = in_sync_least.map_or("unknown".to_owned(), |least| least.to_string());
    let text = format!(
        "topic {topic}: {partitions} partitions, replication {copies}, brokers {brokers}, min.insync.replicas = {least}, {producer}"
    );
    let hint = "a broker that is lost may take records along that only a gateway's tail check finds then";
    let is_thin = *copies < 2 || *in_sync_least == Some(1);
    if is_thin && *brokers > 1 {
        Check::warn("log copies", text, hint)
    } else {
        Check::ok("log copies", text)
    }
}

async fn registry(urls: &Urls) -> Check {
    let registry = match url::open_registry(&urls.registry, urls.lease_ttl) {
        Ok(registry) => registry,
        Err(error) => return Check::fail("registry", error.to_string(), ""),
    };
    let hint = "new nodes are not found without it; those that know each other go on";
    let started = Instant::now();
    match tokio::time::timeout(DEADLINE, registry.presence(Role::Logic, "corecast doctor")).await {
        Ok(Ok(_)) => Check::ok("registry", answered(&urls.registry, started)),
        Ok(Err(error)) => Check::fail("registry", error.to_string(), hint),
        Err(_) => Check::fail("registry", format!("no answer in {DEADLINE:?}"), hint),
    }
}

fn answered(url: &str, started: Instant) -> String {
    format!("{}, {:.1} ms", without_secrets(url), started.elapsed().as_secs_f64() * 1_000.0)
}

/// Does each server of a URL take connections? What lies in the process needs none.
async fn reach(name: &'static str, url: &str) -> Check {
    let places = places(url);
    let shown = without_secrets(url);
    if places.is_empty() {
        return Check::ok(name, shown);
    }
    let connects = places.iter().map(|place| async move {
        let connected = tokio::time::timeout(DEADLINE, TcpStream::connect(place)).await;
        (place, matches!(connected, Ok(Ok(_))))
    });
    let answers = futures::future::join_all(connects).await;
    let deaf: Vec<&str> = answers.iter().filter(|(_, up)| !up).map(|(place, _)| place.as_str()).collect();
    if deaf.is_empty() {
        Check::ok(name, format!("{shown} takes connections"))
    } else if deaf.len() < places.len() {
        Check::warn(name, format!("{} of {shown}: no connection", deaf.join(", ")), "the others carry on")
    } else {
        let hint = match name {
            "bus" => "messages take the log alone, a little slower",
            _ => "messages are stored and wait in the outbox",
        };
        Check::fail(name, format!("{shown}: no connection"), hint)
    }
}

/// `scheme://user@host:port,host:port/path?query` → the hosts.
fn places(url: &str) -> Vec<String> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

/// The limit of open files of this process; a node raises the soft one to the hard one.
fn open_files() -> Check {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(hard) = hard_limit(&limits) else {
        return Check::warn("open files", "unknown here", "a gateway needs two per connection");
    };
    let found =
        format!("at most {hard}, so {} connections of a gateway", (hard / 2).max(hard.saturating_sub(1_000)));
    if hard < NOFILE_WARN {
        Check::warn("open files", found, "raise the hard limit: LimitNOFILE= of systemd, ulimit -Hn")
    } else {
        Check::ok("open files", found)
    }
}

/// The third column of `Max open files`; `unlimited` is as many as it takes.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use corecast_backends::store::server::Durability;

    use super::*;

    fn inspection() -> Inspection {
        Inspection {
            server: "MariaDB".into(),
            schema: Some(1),
            schema_wanted: 1,
            durability: Durability { flush_log: 1, binlog: false, sync_binlog: 0 },
            doublewrite: "ON".into(),
            isolation: "READ-COMMITTED".into(),
            clock_ahead_ms: 3,
            round_trip: Duration::from_millis(1),
            connections_max: 150,
        }
    }

    fn failing(found: &Inspection) -> Vec<&'static str> {
        let checks = server(found, 16);
        checks.iter().filter(|check| check.status == Status::Fail).map(|check| check.name).collect()
    }

    #[test]
    fn a_healthy_server_has_nothing_to_mend() {
        assert!(server(&inspection(), 16).iter().all(|check| check.status == Status::Ok));
    }

    #[test]
    fn each_fault_of_a_server_is_a_line_with_a_hint() {
        let unsafe_log = Durability { flush_log: 2, ..inspection().durability };
        for (name, found) in [
            ("schema", Inspection { schema: None, ..inspection() }),
            ("schema", Inspection { schema: Some(2), ..inspection() }),
            ("schema", Inspection { schema: Some(0), ..inspection() }),
            ("durability", Inspection { durability: unsafe_log, ..inspection() }),
            ("isolation", Inspection { isolation: "REPEATABLE-READ".into(), ..inspection() }),
            ("clock", Inspection { clock_ahead_ms: -30_001, ..inspection() }),
        ] {
            assert_eq!(failing(&found), [name], "{found:?}");
            assert!(
                server(&found, 16).iter().all(|check| check.status == Status::Ok || !check.hint.is_empty())
            );
        }
        let few = server(&Inspection { connections_max: 31, ..inspection() }, 16);
        assert_eq!(few.iter().filter(|check| check.status == Status::Warn).count(), 1);
    }

    #[test]
    fn durability_shows_the_settings_in_force() {
        let checks = server(&inspection(), 16);
        let line = checks.iter().find(|check| check.name == "durability").expect("a line");
        assert_eq!(
            line.found,
            "innodb_flush_log_at_trx_commit = 1, log_bin = OFF, sync_binlog = 0, innodb_doublewrite = ON; \
             reads wait for the disk"
        );
    }

    #[test]
    fn few_copies_of_the_log_are_told_where_more_could_be_had() {
        let found = |brokers, copies, in_sync_least| {
            let producer = "acks = all";
            let found = LogInspection { brokers, partitions: 8, copies, in_sync_least, producer };
            super::copies("t", &found).status
        };
        assert_eq!(found(1, 1, Some(1)), Status::Ok);
        assert_eq!(found(3, 3, Some(2)), Status::Ok);
        assert_eq!(found(3, 3, None), Status::Ok);
        assert_eq!(found(3, 1, Some(1)), Status::Warn);
        assert_eq!(found(3, 3, Some(1)), Status::Warn);
    }

    #[test]
    fn clocks_are_judged_by_their_distance() {
        for (ahead_ms, status) in [
            (0, Status::Ok),
            (-1_000, Status::Ok),
            (1_001, Status::Warn),
            (30_000, Status::Warn),
            (30_001, Status::Fail),
            (i64::MIN + 1, Status::Fail),
        ] {
            assert_eq!(clock(ahead_ms).status, status, "{ahead_ms}");
        }
    }

    #[test]
    fn the_places_of_a_url_are_its_hosts() {
        assert_eq!(places("kafka://a:1,b:2"), ["a:1", "b:2"]);
        assert_eq!(places("redis://me:p@ss@h:6379/0?prefix=x"), ["h:6379"]);
        assert_eq!(places("embedded:"), [""; 0]);
    }

    #[test]
    fn the_hard_limit_is_read_from_the_kernels_table() {
        let table = "Max processes  1 2 processes\nMax open files            1024                 524288               files\n";
        assert_eq!(hard_limit(table), Some(524_288));
        assert_eq!(hard_limit("Max open files  1024  unlimited  files"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_fails_and_a_listener_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let up = listener.local_addr().unwrap();
        assert_eq!(reach("log", &format!("kafka://{up}")).await.status, Status::Ok);
        // Port 1 refuses on every machine that runs tests.
        assert_eq!(reach("log", &format!("kafka://{up},127.0.0.1:1")).await.status, Status::Warn);
        assert_eq!(reach("log", "kafka://127.0.0.1:1").await.status, Status::Fail);
    }
}
