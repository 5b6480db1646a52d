//! The tiers as processes of their own on the real engines: MariaDB, Redis, Kafka, etcd. Each
//! test has a database, names and a folder of its own on engines that it shares.

use std::path::PathBuf;

use corecast_backends::url;

use super::etcd::{Etcd, LEASE};
use super::process;
use super::{Account, Corecast, Setup};

/// Where the engines are, and what the processes have in common.
pub struct Apart {
    /// The registry.
    pub etcd: Etcd,
    settings: Vec<(String, String)>,
    data: tempfile::TempDir,
}

impl Apart {
    /// A migrated database and names that nobody else uses; `None`, and a line about it, where
    /// an engine is missing.
    pub async fn ready() -> Option<Self> {
        Self::ready_on("REDIS").await
    }

    /// The same on another Redis: `REDIS_CLUSTER`.
    pub async fn ready_on(redis: &str) -> Option<Self> {
        let etcd = Etcd::given()?;
        let [mysql, redis, kafka] = ["MYSQL", redis, "KAFKA"].map(|engine| {
            let variable = format!("CORECAST_TEST_{engine}");
            let value = std::env::var(&variable).ok();
            if value.is_none() {
                println!("not run: {variable} is not set; scripts/with-middleware sets it");
            }
            value
        });
        let (mysql, redis, kafka) = (mysql?, redis?, kafka?);
        let name = format!("corecast_apart_{:016x}", rand::random::<u64>());
        let (server, _) = mysql.rsplit_once('/').expect("a URL with a database");
        let redis = format!("{redis}?prefix={name}:");
        let lease_ms = LEASE.as_millis().to_string();
        let settings = [
            ("store.url", format!("{server}/{name}")),
            ("hotset.url", redis.clone()),
            ("bus.url", redis),
            ("log.url", kafka),
            ("log.topic", name.clone()),
            ("log.group", name),
            ("registry.url", etcd.url()),
            ("registry.lease_ttl_ms", lease_ms),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
        let apart = Self { etcd, settings, data: super::folder() };
        url::migrate_store(apart.setting("store.url")).await.expect("the server makes the database");
        Some(apart)
    }

    /// A setting of all processes that are set up from now on.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.settings.push((key.to_owned(), value.to_string()));
    }

    /// How to start a node; `name` is its id and its folder: `gateway-1`, `logic-2`, `job-1`.
    pub fn node(&self, name: &str) -> Setup {
        let (tier, _) = name.rsplit_once('-').expect("a tier and a number");
        let mut setup = Setup::tier(tier, &self.folder(name));
        for (key, value) in &self.settings {
            setup = setup.set(key, value);
        }
        match tier {
            "gateway" | "logic" => setup.set(&format!("{tier}.id"), name),
            _ => setup,
        }
    }

    /// What all processes are set to, for one that is set up by hand.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(key, value)| (&**key, &**value))
    }

    /// One of them, as it was set last.
    pub fn setting(&self, key: &str) -> &str {
        let found = self.settings.iter().rev().find(|(known, _)| known == key);
        &found.unwrap_or_else(|| panic!("{key} is not set")).1
    }

    /// Starts a node and waits until it is ready.
    pub async fn start(&self, name: &str) -> Corecast {
        self.node(name).start().await
    }

    /// The folder of a node.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// A new account, by any gateway and any logic node.
    pub async fn account(&self, gateway: &Corecast, logic: &Corecast, name: &str) -> Account {
        Account::register(gateway.http(), logic.logic(), name).await
    }
}

/// A Kafka that nobody runs.
pub fn dead_kafka() -> String {
    format!("kafka://127.0.0.1:{}", corecast_ports::free())
}

/// `corecast check-config` of what `corecast default-config` prints, changed by `sets`; answers
/// whether it is right, and what it said.
pub fn check_config(tier: &str, sets: &[&str]) -> (bool, String) {
    let data = super::folder();
    let file = data.path().join("corecast.toml");
    std::fs::write(&file, "").expect("a file");
    let file = file.to_str().expect("a plain name");
    let mut arguments = vec!["check-config", file, "--tier", tier];
    for set in sets {
        arguments.extend(["--set", set]);
    }
    let (status, _, said) = process::run(&arguments);
    (status.success(), said)
}
