//! One connection, set up as everything here relies on.
//!
//! READ COMMITTED: no gap locks between rooms, and what a lock waited for is seen. A lock is
//! waited for 3 s, and the server ends a connection that is silent for 10 s, so the locks of a
//! vanished node go in time. The session's time zone is UTC: in a zone with summer time
//! `NOW()` names one hour of the year twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row, Value};

use super::barrier::Proof;
use super::counters::{Counters, count};
use super::fault::{Fault, UNMIGRATED};
use super::row::{take, unsigned};
use super::schema::SCHEMA_VERSION;
use super::statement::fitting;
use super::target::Target;
use crate::store::server::Durability;

/// Connecting, logging in and the settings together take no longer.
const CONNECT: Duration = Duration::from_secs(3);
/// A statement takes no longer; above [`LOCK_WAIT_SECONDS`], which ends it in an orderly way.
const STATEMENT: Duration = Duration::from_secs(5);
/// A living server answers a ping far quicker.
const PING: Duration = Duration::from_secs(1);
const LOCK_WAIT_SECONDS: u64 = 3;
/// The pool pings much oftener.
const WAIT_TIMEOUT_SECONDS: u64 = 10;

const _: () = assert!(LOCK_WAIT_SECONDS < STATEMENT.as_secs());

/// Milliseconds since 1970 UTC by the clock of the session; exact, since the fraction is a
/// decimal. Follows `SET timestamp`.
pub(super) const NOW_MS: &str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/// How far a transaction that writes has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    /// To be started in front of the next statement.
    Due,
    Open,
    /// Its last statements took `COMMIT` along.
    Committed,
}

/// A connection. Whoever drops it in the middle of a statement closes it.
pub(super) struct Session {
    conn: Conn,
    counters: Arc<Counters>,
    begin: String,
    transaction: Transaction,
    /// Ids that one statement draws lie this far apart; above 1 where several servers write.
    id_step: u64,
    /// The server shows a transaction before it is on the disk; see [`super::barrier`].
    pub(super) shows_early: bool,
    opened: Instant,
    /// When the last statement was sent that committed a change, by itself or as `COMMIT`.
    committed: Instant,
    /// A statement changed a row since this was last set back.
    pub(super) wrote: bool,
    /// When it was last known to live.
    pub(super) seen: Instant,
    /// When it last worked for somebody.
    pub(super) worked: Instant,
}

impl Session {
    /// Connects, logs in, sets the session up and looks at the schema.
    pub(super) async fn open(target: &Target, counters: &Arc<Counters>) -> Result<Self, Fault> {
        let opening = async {
            let mut session = Self::bare(target, counters).await?;
            session.check_schema().await?;
            Ok(session)
        };
        let late = || Fault::Unreachable(format!("no connection in {CONNECT:?}"));
        let opened = tokio::time::timeout(CONNECT, opening).await.unwrap_or_else(|_| Err(late()));
        // Whatever ended an attempt to connect, nothing was sent.
        opened.map_err(|fault| match fault {
            Fault::Lost(text) | Fault::Busy(text) => Fault::Unreachable(text),
            other => other,
        })
    }

    /// Set up, but whatever tables there are.
    pub(super) async fn bare(target: &Target, counters: &Arc<Counters>) -> Result<Self, Fault> {
        let conn = Conn::new(target.opts.clone()).await?;
        count(&counters.opened);
        let begin = match &target.begin {
            Some(hook) => format!("{hook}; START TRANSACTION"),
            None => "START TRANSACTION".to_owned(),
        };
        let now = Instant::now();
        let counters = Arc::clone(counters);
        let mut session = Self {
            conn,
            counters,
            begin,
            transaction: Transaction::None,
            id_step: 1,
            shows_early: true,
            opened: now,
            committed: now,
            wrote: false,
            seen: now,
            worked: now,
        };
        let settings = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, \
             wait_timeout = {WAIT_TIMEOUT_SECONDS}, time_zone = '+00:00', \
             sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
        );
        session.text(&settings).await?;
        if let Some(init) = &target.init {
            session.text(init).await?;
        }
        Ok(session)
    }

    /// Refuses a schema that this build does not know.
    async fn check_schema(&mut self) -> Result<(), Fault> {
        let sql = "SELECT MAX(version), @@auto_increment_increment, @@innodb_flush_log_at_trx_commit, \
                   @@log_bin, @@sync_binlog FROM schema_versions";
        let row = self.conn.query_first::<Row, _>(sql).await?;
        let mut row = row.ok_or_else(|| Fault::Fatal(UNMIGRATED.to_owned()))?;
        let version: Option<u64> = take(&mut row, 0)?;
        self.id_step = unsigned(&mut row, 1)?.max(1);
        let durability = Durability {
            flush_log: unsigned(&mut row, 2)?,
            binlog: unsigned(&mut row, 3)? != 0,
            sync_binlog: unsigned(&mut row, 4)?,
        };
        self.shows_early = !durability.shows_durable();
        if let Some(fault) = durability.fault()
            && !self.counters.told_lossy.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(fault, "the store's server is not durable");
        }
        match version {
            Some(SCHEMA_VERSION) => Ok(()),
            None | Some(0) => Err(Fault::Fatal(UNMIGRATED.to_owned())),
            Some(older) if older < SCHEMA_VERSION => Err(Fault::Fatal(format!(
                "schema version {older} is older than the {SCHEMA_VERSION} of this build: run `corecast migrate`"
            ))),
            Some(newer) => Err(Fault::Fatal(format!(
                "schema version {newer} is unknown, this build knows up to {SCHEMA_VERSION}: \
                 use the newer corecast that made it"
            ))),
        }
    }

    /// What it counts into.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Of the last commit, which was answered; only after one that wrote something.
    pub(super) fn proof(&self) -> Proof {
        Proof { opened: self.opened, sent: self.committed }
    }

    /// From the next statement on: a transaction that writes. Sends nothing yet.
    pub(super) fn begin(&mut self) {
        self.wrote = false;
        self.transaction = Transaction::Due;
    }

    /// Nothing of the transaction was answered yet.
    pub(super) fn is_at_begin(&self) -> bool {
        self.transaction == Transaction::Due
    }

    /// Starts the transaction if that is still to be done.
    async fn started(&mut self) -> Result<(), Fault> {
        if self.transaction == Transaction::Due {
            let begin = self.begin.clone();
            self.text(&begin).await?;
            self.transaction = Transaction::Open;
        }
        Ok(())
    }

    /// Rows of a statement without parameters. As the first one of a transaction it takes the
    /// start of it along.
    pub(super) async fn text_rows(&mut self, sql: &str) -> Result<Vec<Row>, Fault> {
        count(&self.counters.statements);
        let is_first = self.transaction == Transaction::Due;
        let sql = if is_first { &format!("{}; {sql}", self.begin) } else { sql };
        let asked = async {
            let mut results = self.conn.query_iter(sql).await?;
            let mut rows = results.collect::<Row>().await?;
            while !results.is_empty() {
                rows.extend(results.collect::<Row>().await?);
            }
            Ok(rows)
        };
        let rows = in_time(STATEMENT, asked).await?;
        if is_first {
            self.transaction = Transaction::Open;
        }
        Ok(rows)
    }

    /// Runs statements without parameters, which write, and commits: in one round trip, unless
    /// they are too long for it. Answers the first id that each of them drew, 0: none.
    ///
    /// # Errors
    /// [`Fault::Unknown`]: it may be committed. Everything else: it is not.
    pub(super) async fn commit_with(&mut self, statements: &[String]) -> Result<Vec<u64>, Fault> {
        self.started().await?;
        let mut drawn = Vec::with_capacity(statements.len() + 1);
        let mut rest = statements;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            let is_last = later.is_empty();
            let sql = now.join("; ") + if is_last { "; COMMIT" } else { "" };
            if is_last {
                self.committed = Instant::now();
            }
            count(&self.counters.statements);
            let answers = now.len() + usize::from(is_last);
            let answered = in_time(STATEMENT, each(&mut self.conn, &sql, answers, &mut drawn)).await;
            if let Err(fault) = answered {
                // The server ends at the first statement that fails, and says so.
                let is_refused = fault.is_of_server() && drawn.len() < statements.len();
                return Err(if is_last && !is_refused { fault.of_commit() } else { fault });
            }
            rest = later;
        }
        drawn.truncate(statements.len());
        (self.wrote, self.transaction) = (true, Transaction::Committed);
        Ok(drawn)
    }

    /// Statements without parameters, in one round trip.
    pub(super) async fn text(&mut self, sql: &str) -> Result<(), Fault> {
        count(&self.counters.statements);
        in_time(STATEMENT, self.conn.query_drop(sql)).await
    }

    /// Statements without parameters that may take long: changes of tables.
    pub(super) async fn slow_text(&mut self, sql: &str, deadline: Duration) -> Result<(), Fault> {
        count(&self.counters.statements);
        in_time(deadline, self.conn.query_drop(sql)).await
    }

    /// Rows of a prepared statement.
    pub(super) async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, Fault> {
        self.started().await?;
        count(&self.counters.statements);
        in_time(STATEMENT, self.conn.exec(sql, params)).await
    }

    /// The first row of a prepared statement.
    pub(super) async fn row(&mut self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Runs a prepared statement; answers how many rows it changed.
    pub(super) async fn run(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, Fault> {
        self.started().await?;
        count(&self.counters.statements);
        let sent = Instant::now();
        in_time(STATEMENT, self.conn.exec_drop(sql, params)).await?;
        let changed = self.conn.affected_rows();
        if changed > 0 {
            self.wrote = true;
            self.committed = sent;
        }
        Ok(changed)
    }

    /// Ends the transaction, if that was not done.
    ///
    /// # Errors
    /// As [`commit_with`](Self::commit_with).
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.transaction, Transaction::None) != Transaction::Open {
            return Ok(());
        }
        self.committed = Instant::now();
        self.text("COMMIT").await.map_err(Fault::of_commit)
    }

    /// Ends the transaction, however far it came.
    pub(super) async fn roll_back(&mut self) -> Result<(), Fault> {
        self.transaction = Transaction::None;
        self.text("ROLLBACK").await
    }

    /// The id that the last insert drew.
    pub(super) fn inserted_id(&self) -> Result<u64, Fault> {
        self.conn.last_insert_id().ok_or_else(|| Fault::Fatal("a row got no id".to_owned()))
    }

    /// The ids that an insert of so many rows drew. One statement draws them in one go,
    /// whatever `innodb_autoinc_lock_mode` is, because it names its rows.
    pub(super) fn ids(&self, first: u64, rows: usize) -> impl Iterator<Item = u64> + use<> {
        let step = self.id_step;
        (0..rows as u64).map(move |row| first + row * step)
    }

    /// Does it live?
    pub(super) async fn ping(&mut self) -> Result<(), Fault> {
        count(&self.counters.statements);
        in_time(PING, self.conn.ping()).await?;
        self.seen = Instant::now();
        Ok(())
    }

    /// Says good-bye; the server would notice all the same.
    pub(super) async fn close(self) {
        // There is nobody to tell: what waits for an answer has its own error.
        let _ = tokio::time::timeout(PING, self.conn.disconnect()).await;
    }
}

/// Runs the statements of a text, so many; `drawn` gets the first id that each of those drew
/// which went well.
async fn each(conn: &mut Conn, sql: &str, count: usize, drawn: &mut Vec<u64>) -> mysql_async::Result<()> {
    let mut results = conn.query_iter(sql).await?;
    for _ in 0..count {
        drawn.push(results.last_insert_id().unwrap_or(0));
        // Goes on to the next one's answer.
        results.collect::<Row>().await?;
    }
    Ok(())
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result.map_err(Fault::from),
        Err(_) => Err(Fault::Lost(format!("no answer from the database in {deadline:?}"))),
    }
}
