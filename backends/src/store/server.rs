//! What can be told about the server of a store: plain data, the same in every build.

use std::time::Duration;

/// Does the server keep what it acknowledged?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durability {
    /// `innodb_flush_log_at_trx_commit`: must be 1.
    pub flush_log: u64,
    /// Is the binary log on?
    pub binlog: bool,
    /// `sync_binlog`: must be 1 where the binary log is on.
    pub sync_binlog: u64,
}

impl Durability {
    /// The settings in force, as the server writes them.
    pub fn settings(&self) -> String {
        let Self { flush_log, binlog, sync_binlog } = self;
        let binlog = if *binlog { "ON" } else { "OFF" };
        format!(
            "innodb_flush_log_at_trx_commit = {flush_log}, log_bin = {binlog}, sync_binlog = {sync_binlog}"
        )
    }

    /// Is a transaction on the disk before others see it? Only with the binary log; without it
    /// reads wait for the disk (`store/mysql/barrier.rs`).
    pub fn shows_durable(&self) -> bool {
        self.binlog && self.sync_binlog == 1
    }

    /// What can be lost in a power failure, and what to set; `None`: nothing.
    pub fn fault(&self) -> Option<String> {
        if self.flush_log != 1 {
            return Some(format!(
                "innodb_flush_log_at_trx_commit = {}: acknowledged messages can be lost, set it to 1",
                self.flush_log
            ));
        }
        if self.binlog && self.sync_binlog != 1 {
            return Some(format!(
                "the binary log is on with sync_binlog = {}: acknowledged messages can be lost, set it to 1",
                self.sync_binlog
            ));
        }
        None
    }
}

/// What a look at a server and its tables found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The server's own words for its version.
    pub server: String,
    /// Version of the tables; `None`: there are none.
    pub schema: Option<u64>,
    /// The version that this build reads and writes.
    pub schema_wanted: u64,
    /// What survives a power failure.
    pub durability: Durability,
    /// `innodb_doublewrite`, in the server's words; off, a page half written in a power failure
    /// is only safe on a file system that writes pages whole.
    pub doublewrite: String,
    /// The isolation level that a session of ours got; must be `READ-COMMITTED`.
    pub isolation: String,
    /// The database's clock minus this machine's, milliseconds, as far as a round trip tells.
    pub clock_ahead_ms: i64,
    /// How long a round trip took.
    pub round_trip: Duration,
    /// `max_connections` of the server.
    pub connections_max: u64,
}

/// What bringing the tables to this build's version did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Version before; `None`: there were no tables.
    pub from: Option<u64>,
    /// Version now.
    pub to: u64,
    /// What survives a power failure.
    pub durability: Durability,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_names_the_setting_at_fault() {
        let good = Durability { flush_log: 1, binlog: false, sync_binlog: 0 };
        assert_eq!(good.fault(), None);
        assert_eq!(Durability { binlog: true, sync_binlog: 1, ..good }.fault(), None);
        assert!(!good.shows_durable() && Durability { binlog: true, sync_binlog: 1, ..good }.shows_durable());
        let text = Durability { flush_log: 2, ..good }.fault().expect("a fault");
        assert!(text.contains("innodb_flush_log_at_trx_commit = 2"), "{text}");
        let text = Durability { binlog: true, ..good }.fault().expect("a fault");
        assert!(text.contains("sync_binlog = 0"), "{text}");
    }
}
