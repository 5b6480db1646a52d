//! Redis for the tests: the one of the environment with a prefix of its own for each test, or
//! a private one that may be killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::hotset::Clock;

/// A place on Redis that nobody else uses.
pub(crate) struct Place {
    /// With a prefix.
    pub(crate) url: String,
    prefix: String,
    addresses: Vec<String>,
}

impl Place {
    /// `None` and a line that says so: the variable is not set.
    pub(crate) fn of_tests(variable: &str) -> Option<Self> {
        match std::env::var(variable) {
            Ok(url) => Some(Self::at(&url)),
            Err(_) => {
                println!("not run: {variable} is not set");
                None
            }
        }
    }

    /// At this URL, with a random prefix and a time-out that suits a busy machine.
    pub(crate) fn at(url: &str) -> Self {
        let prefix = format!("test-{}:", uuid::Uuid::new_v4());
        let hosts = url.split_once("://").expect("a URL").1.split('/').next().expect("hosts");
        let addresses = hosts.rsplit('@').next().expect("hosts").split(',').map(str::to_owned).collect();
        Self { url: format!("{url}?prefix={prefix}&timeout_ms=10000"), prefix, addresses }
    }
}

impl Clock for Place {
    /// Takes the time from the life of every key.
    async fn advance(&self, time: Duration) {
        let passed = i64::try_from(time.as_millis()).expect("a short time");
        for address in &self.addresses {
            let mut connection = connection(address).await;
            for key in keys(&mut connection, &self.prefix).await {
                let left: i64 = ask(&mut connection, &["PTTL", &key]).await;
                assert_ne!(left, -1, "{key} never ends");
                let _: i64 = match left > passed {
                    true => ask(&mut connection, &["PEXPIRE", &key, &(left - passed).to_string()]).await,
                    false => ask(&mut connection, &["DEL", &key]).await,
                };
            }
        }
    }
}

async fn keys(connection: &mut MultiplexedConnection, prefix: &str) -> Vec<String> {
    let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let pattern = format!("{prefix}*");
        let (next, found): (String, Vec<String>) =
            ask(connection, &["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"]).await;
        keys.extend(found);
        if next == "0" {
            return keys;
        }
        cursor = next;
    }
}

/// A connection of the test's own.
pub(crate) async fn connection(address: &str) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://{address}")).expect("an address");
    client.get_multiplexed_async_connection().await.expect("connects")
}

/// One command of the test's own.
pub(crate) async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async(connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// A private Redis, or a cluster of three masters; stopped when dropped.
pub(crate) struct Engine {
    folder: TempDir,
    pub(crate) ports: Vec<u16>,
}

impl Engine {
    /// `None` and a line that says so: tests with engines are not wanted here.
    pub(crate) fn start() -> Option<Self> {
        Place::of_tests("CORECAST_TEST_REDIS")?;
        Some(Self::run("start", 1))
    }

    /// Three masters.
    pub(crate) fn start_cluster() -> Option<Self> {
        Place::of_tests("CORECAST_TEST_REDIS_CLUSTER")?;
        Some(Self::run("cluster", 3))
    }

    fn run(verb: &str, count: u16) -> Self {
        let mut refusal = String::new();
        // Somebody else may take a port between the look and the start.
        for _ in 0..5 {
            let engine = Self { folder: TempDir::new().expect("a folder"), ports: free_ports(count) };
            match engine.try_script(&[verb, &engine.path(), &engine.ports[0].to_string()]) {
                Ok(()) => return engine,
                Err(why) => refusal = why,
            }
        }
        panic!("no Redis: {refusal}");
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let scheme = if hosts.len() == 1 { "redis" } else { "redis-cluster" };
        format!("{scheme}://{}", hosts.join(","))
    }

    /// SIGKILL for server `n` (from 1).
    pub(crate) fn kill(&self, n: usize) {
        self.script(&["kill", &self.path(), &n.to_string()]);
    }

    pub(crate) fn restart(&self, n: usize) {
        self.script(&["restart", &self.path(), &n.to_string()]);
    }

    fn path(&self) -> String {
        self.folder.path().to_str().expect("plain").to_owned()
    }

    fn script(&self, arguments: &[&str]) {
        self.try_script(arguments).unwrap_or_else(|why| panic!("{arguments:?}: {why}"));
    }

    fn try_script(&self, arguments: &[&str]) -> Result<(), String> {
        let ended = Command::new(script()).args(arguments).output().expect("the script runs");
        match ended.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new(script()).args(["stop", &self.path()]).output();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware/redis")
}

/// Ports in a row; a cluster needs those 10,000 above too.
fn free_ports(count: u16) -> Vec<u16> {
    let above = if count == 1 { 0 } else { 10_000 };
    let first = corecast_ports::free_range((0..count).flat_map(|n| [n, n + above]));
    (first..first + count).collect()
}
