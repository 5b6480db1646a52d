//! The tables, their version, and what the server must be set to.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};

use super::counters::Counters;
use super::fault::Fault;
use super::row::{take, text, unsigned};
use super::session::{NOW_MS, Session};
use super::target::Target;
use crate::store::StoreError;
use crate::store::server::{Durability, Inspection, Migration};

/// Version of the tables that this build reads and writes.
pub const SCHEMA_VERSION: u64 = 2;

/// The tables, for this build and for the server's own client alike.
const TABLES: &str = include_str!("../../../../schema.sql");
/// Another migration is waited for this long.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// The server is asked for the lock in portions, each below the deadline of a statement.
const LOCK_PORTION_SECONDS: u64 = 2;
/// Changing a table copies it at worst.
const CHANGE: Duration = Duration::from_secs(3600);
const NO_DATABASE: u16 = 1049;

/// The lock is the server's, so its name carries the database.
const LOCK_NAME: &str = "CONCAT('corecast.migrate.', LEFT(SHA2(DATABASE(), 256), 40))";

/// Brings the tables to [`SCHEMA_VERSION`], making the database where it is absent. Done
/// again it changes nothing; two at once wait for each other.
///
/// # Errors
/// [`StoreError::Fatal`]: a newer schema, a wrong URL, no right to change tables;
/// [`StoreError::Unavailable`]: the server cannot be reached, or another migration takes long.
pub async fn migrate(url: &str) -> Result<Migration, StoreError> {
    let target = Target::parse(url).map_err(StoreError::Fatal)?;
    let counters = Arc::new(Counters::default());
    create_database(&target).await?;
    let mut session = Session::bare(&target, &counters).await.map_err(StoreError::from)?;
    let migrated = locked(&mut session).await;
    session.close().await;
    Ok(migrated?)
}

/// Looks at a server and its tables; changes nothing.
///
/// # Errors
/// The server cannot be reached or refuses the login, or there is no such database.
pub async fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let target = Target::parse(url).map_err(StoreError::Fatal)?;
    let counters = Arc::new(Counters::default());
    let mut session = Session::bare(&target, &counters).await?;
    let found = look(&mut session).await;
    session.close().await;
    Ok(found?)
}

async fn create_database(target: &Target) -> Result<(), StoreError> {
    match Conn::new(target.opts.clone()).await {
        Ok(conn) => {
            // Only to see that the database is there.
            let _ = conn.disconnect().await;
            return Ok(());
        }
        Err(Error::Server(error)) if error.code == NO_DATABASE => {}
        Err(error) => return Err(Fault::from(error).into()),
    }
    let mut conn = Conn::new(target.server()).await.map_err(Fault::from)?;
    let name = target.database.replace('`', "``");
    let sql = format!("CREATE DATABASE IF NOT EXISTS `{name}` DEFAULT CHARACTER SET utf8mb4");
    let created = conn.query_drop(sql).await.map_err(Fault::from);
    let _ = conn.disconnect().await;
    Ok(created?)
}

/// Migrates under the server's lock, which goes with the connection at the latest.
async fn locked(session: &mut Session) -> Result<Migration, Fault> {
    let ask = format!("SELECT GET_LOCK({LOCK_NAME}, {LOCK_PORTION_SECONDS})");
    let started = Instant::now();
    loop {
        let row = session.row(&ask, Vec::new()).await?;
        let given: Option<i64> = row.map(|mut row| take(&mut row, 0)).transpose()?.flatten();
        if given == Some(1) {
            break;
        }
        if started.elapsed() > LOCK_WAIT {
            return Err(Fault::Busy("another migration is under way for a minute".to_owned()));
        }
    }
    let migrated = apply(session).await;
    // A connection that is closed lets go of it as well.
    let _ = session.row(&format!("SELECT RELEASE_LOCK({LOCK_NAME})"), Vec::new()).await;
    migrated
}

async fn apply(session: &mut Session) -> Result<Migration, Fault> {
    let durability = durability(session).await?;
    let from = version(session).await?;
    match from {
        Some(newer) if newer > SCHEMA_VERSION => Err(Fault::Fatal(format!(
            "schema version {newer} is unknown, this build knows up to {SCHEMA_VERSION}: \
             use the newer corecast that made it"
        ))),
        Some(SCHEMA_VERSION) => Ok(Migration { from, to: SCHEMA_VERSION, durability }),
        // Every statement of the file may be run again, so one that was cut short is no harm;
        // the version is written last.
        _ => {
            session.slow_text(TABLES, CHANGE).await?;
            Ok(Migration { from, to: SCHEMA_VERSION, durability })
        }
    }
}

async fn version(session: &mut Session) -> Result<Option<u64>, Fault> {
    let there = "SELECT 1 FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = 'schema_versions'";
    if session.row(there, Vec::new()).await?.is_none() {
        return Ok(None);
    }
    let row = session.row("SELECT MAX(version) FROM schema_versions", Vec::new()).await?;
    Ok(row.map(|mut row| take(&mut row, 0)).transpose()?.flatten())
}

async fn durability(session: &mut Session) -> Result<Durability, Fault> {
    let sql = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";
    let mut row = session.row(sql, Vec::new()).await?.ok_or_else(silent)?;
    Ok(Durability {
        flush_log: unsigned(&mut row, 0)?,
        binlog: unsigned(&mut row, 1)? != 0,
        sync_binlog: unsigned(&mut row, 2)?,
    })
}

async fn look(session: &mut Session) -> Result<Inspection, Fault> {
    let (server, connections_max) = {
        let sql = "SELECT VERSION(), @@version_comment, @@max_connections";
        let mut row = session.row(sql, Vec::new()).await?.ok_or_else(silent)?;
        (format!("{} {}", text(&mut row, 0)?, text(&mut row, 1)?), unsigned(&mut row, 2)?)
    };
    // The variable has another name in MySQL 8 than in MariaDB before 11.1.
    let sql = "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')";
    let mut row = session.row(sql, Vec::new()).await?.ok_or_else(silent)?;
    let isolation = text(&mut row, 1)?;
    // A number or a word, depending on the server's version; here it is the word.
    let sql = "SHOW VARIABLES WHERE Variable_name = 'innodb_doublewrite'";
    let mut row = session.row(sql, Vec::new()).await?.ok_or_else(silent)?;
    let doublewrite = text(&mut row, 1)?;
    let clock = format!("SELECT {NOW_MS}");
    // Once for the preparing, once for the clock.
    session.row(&clock, Vec::new()).await?;
    let (here, started) = (SystemTime::now(), Instant::now());
    let mut row = session.row(&clock, Vec::new()).await?.ok_or_else(silent)?;
    let round_trip = started.elapsed();
    let here = (here + round_trip / 2).duration_since(UNIX_EPOCH).unwrap_or_default();
    let here_ms = i64::try_from(here.as_millis()).unwrap_or(i64::MAX);
    Ok(Inspection {
        server,
        schema: version(session).await?,
        schema_wanted: SCHEMA_VERSION,
        durability: durability(session).await?,
        doublewrite,
        isolation,
        clock_ahead_ms: take::<i64>(&mut row, 0)? - here_ms,
        round_trip,
        connections_max,
    })
}

fn silent() -> Fault {
    Fault::Fatal("the server answered without a row".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_writes_the_version_of_this_build_last() {
        let last = TABLES.trim_end().rsplit("\n\n").next().expect("a last paragraph");
        assert!(last.contains("schema_versions"), "{last}");
        assert!(last.contains(&format!("VALUES ({SCHEMA_VERSION},")), "{last}");
    }
}
