//! What only the store on a server promises: reconnecting, retries, lost answers, clocks that
//! disagree. Each test has a database of its own on the server of `CORECAST_TEST_MYSQL`.

mod clocks;
mod lost;
mod plans;
mod pool;
mod proxy;
mod races;
mod replica;
mod schema;
mod server;
mod visible;

use corecast_backends::store::mysql::{MysqlStore, migrate};
use corecast_backends::store::*;
use corecast_backends::url::open_store_with;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use rand::RngExt as _;

/// A database that nobody else uses. Goes with [`drop`](Self::drop); after a failed test it
/// stays, to be looked at.
pub(crate) struct Database {
    /// With the database.
    pub(crate) url: String,
    server: String,
    pub(crate) name: String,
}

impl Database {
    /// A migrated one on another server.
    pub(crate) async fn on(server: String) -> Self {
        let database = Self::named(server);
        migrate(&database.url).await.expect("migrates");
        database
    }

    /// A migrated one, or `None` where there is no server, which is said.
    pub(crate) async fn new() -> Option<Self> {
        let database = Self::unmigrated()?;
        migrate(&database.url).await.expect("migrates");
        Some(database)
    }

    /// Only a name; the first migration makes it.
    pub(crate) fn unmigrated() -> Option<Self> {
        let Ok(server) = std::env::var("CORECAST_TEST_MYSQL") else {
            println!("not run: CORECAST_TEST_MYSQL names no server");
            return None;
        };
        Some(Self::named(server))
    }

    fn named(server: String) -> Self {
        let name = format!("corecast_test_{:016x}", rand::rng().random::<u64>());
        let place = server.rsplit_once('/').expect("a URL with a database").0;
        Self { url: format!("{place}/{name}"), server, name }
    }

    /// A store by the URL, as the tiers open it.
    pub(crate) async fn open(&self) -> AnyStore {
        let folder = std::path::Path::new("unused");
        open_store_with(&self.url, &StoreOptions::default(), folder).await.expect("opens")
    }

    /// A store by type: its counters are needed.
    pub(crate) fn store(&self) -> MysqlStore {
        self.store_with("")
    }

    /// A store whose URL ends in these parameters.
    pub(crate) fn store_with(&self, parameters: &str) -> MysqlStore {
        MysqlStore::new(&format!("{}{parameters}", self.url), &StoreOptions::default()).expect("opens")
    }

    /// A store that reaches the server through another port.
    pub(crate) fn store_through(&self, port: u16) -> MysqlStore {
        let opts = Opts::from_url(&self.url).expect("a URL");
        let url = self.url.replacen(&format!(":{}/", opts.tcp_port()), &format!(":{port}/"), 1);
        assert_ne!(url, self.url, "the URL names a port");
        MysqlStore::new(&url, &StoreOptions::default()).expect("opens")
    }

    /// `host:port` of the server.
    pub(crate) fn place(&self) -> String {
        let opts = Opts::from_url(&self.url).expect("a URL");
        format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port())
    }

    /// A plain connection.
    pub(crate) async fn conn(&self) -> Conn {
        let opts = Opts::from_url(&self.url).expect("a URL");
        Conn::new(opts).await.expect("connects")
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        let mut conn = self.conn().await;
        conn.query_drop(sql).await.expect(sql);
        conn.disconnect().await.expect("disconnects");
    }

    pub(crate) async fn drop(self) {
        let mut conn = Conn::new(Opts::from_url(&self.server).expect("a URL")).await.expect("connects");
        conn.query_drop(format!("DROP DATABASE IF EXISTS `{}`", self.name)).await.expect("drops");
        conn.disconnect().await.expect("disconnects");
    }
}
