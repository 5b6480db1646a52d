//! What can go wrong on a connection, by what may be done about it.

use mysql_async::{DriverError, Error};

use crate::store::StoreError;

/// Why a piece of work on a session did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// No connection, or none in time: nothing was sent. Try again later.
    #[error("{0}")]
    Unreachable(String),
    /// The connection went away under the work, or gave no answer in time.
    #[error("{0}")]
    Lost(String),
    /// A deadlock or a lock that was not given in time: the whole work may be tried again.
    #[error("{0}")]
    Conflict(String),
    /// A unique key has the value already.
    #[error("{0}")]
    Duplicate(String),
    /// A value does not fit its column or a packet. Only that value is at fault.
    #[error("{0}")]
    Data(String),
    /// The server takes no work for now: it stops, is read-only, has too many connections.
    #[error("{0}")]
    Busy(String),
    /// Trying again does not help; an operator may.
    #[error("{0}")]
    Fatal(String),
    /// The write may or may not have happened.
    #[error("{0}")]
    Unknown(String),
}

/// Numbers of the server's errors; the same in MySQL and MariaDB where both have them.
mod code {
    pub(super) const LOCK_WAIT: u16 = 1205;
    pub(super) const DEADLOCK: u16 = 1213;
    /// MariaDB with `innodb_snapshot_isolation`: the row changed since the snapshot.
    pub(super) const ROW_CHANGED: u16 = 1020;
    pub(super) const DUPLICATE: u16 = 1062;
    /// Out of range, incorrect value, too long, packet too large.
    pub(super) const DATA: [u16; 6] = [1264, 1366, 1406, 1153, 1300, 3854];
    /// The server ended the connection: killed (MariaDB), silent for too long (MySQL).
    pub(super) const ENDED: [u16; 2] = [1927, 4031];
    /// Too many connections (of all, of a user, of its hour), out of resources, shutdown,
    /// interrupted, read-only, execution time (MySQL, MariaDB), cluster not ready, read-only
    /// transaction.
    pub(super) const BUSY: [u16; 12] =
        [1040, 1203, 1226, 1041, 1053, 1317, 1290, 1836, 3024, 1969, 1047, 1792];
    pub(super) const NO_TABLE: u16 = 1146;
    pub(super) const NO_DATABASE: u16 = 1049;
}

pub(super) const UNMIGRATED: &str = "the database has no tables of corecast: run `corecast migrate`";

impl Fault {
    /// Did the server say so, of a statement?
    pub(super) fn is_of_server(&self) -> bool {
        !matches!(self, Self::Lost(_) | Self::Unreachable(_) | Self::Unknown(_))
    }

    /// The same of a `COMMIT`: a deadlock found there (a cluster does so) says that it was
    /// rolled back, everything else nothing.
    pub(super) fn of_commit(self) -> Self {
        match self {
            Self::Conflict(_) => self,
            other => Self::Unknown(other.to_string()),
        }
    }

    /// Is the connection in step with the server, so that it may be used again?
    pub(super) fn spares_the_connection(&self) -> bool {
        !matches!(self, Self::Lost(_) | Self::Unreachable(_) | Self::Busy(_) | Self::Unknown(_))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let server = match error {
            Error::Server(server) => server,
            Error::Driver(DriverError::PacketTooLarge) => return Self::Data(text),
            Error::Io(_)
            | Error::Driver(
                DriverError::ConnectionClosed
                | DriverError::PacketOutOfOrder
                | DriverError::UnexpectedPacket { .. }
                | DriverError::PoolDisconnected,
            ) => return Self::Lost(text),
            Error::Driver(_) | Error::Other(_) | Error::Url(_) => return Self::Fatal(text),
        };
        // The words behind a colon repeat the value, which is nobody's business; so does a
        // duplicate's whole sentence.
        let words = server.message.split(':').next().unwrap_or_default();
        let text = format!("{words} (error {})", server.code);
        match server.code {
            code::LOCK_WAIT | code::DEADLOCK | code::ROW_CHANGED => Self::Conflict(text),
            code::DUPLICATE => Self::Duplicate("a unique key has this value already (error 1062)".to_owned()),
            code::NO_TABLE => Self::Fatal(UNMIGRATED.to_owned()),
            code::NO_DATABASE => Self::Fatal(format!("{text}: run `corecast migrate`")),
            code if code::ENDED.contains(&code) => Self::Lost(text),
            code if code::DATA.contains(&code) => Self::Data(text),
            code if code::BUSY.contains(&code) => Self::Busy(text),
            _ => Self::Fatal(text),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            // Before the commit, or of a read: nothing happened.
            Fault::Unreachable(text) | Fault::Lost(text) | Fault::Conflict(text) | Fault::Busy(text) => {
                Self::Unavailable(text)
            }
            Fault::Duplicate(text) | Fault::Data(text) | Fault::Fatal(text) => Self::Fatal(text),
            Fault::Unknown(text) => Self::Unknown(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    fn server(code: u16) -> Fault {
        Fault::from(Error::Server(ServerError { code, message: "m".into(), state: "s".into() }))
    }

    #[test]
    fn errors_are_told_apart_by_what_helps() {
        assert!(matches!(server(1213), Fault::Conflict(_)));
        assert!(matches!(server(1205), Fault::Conflict(_)));
        assert!(matches!(server(1062), Fault::Duplicate(_)));
        assert!(matches!(server(1406), Fault::Data(_)));
        assert!(matches!(server(1053), Fault::Busy(_)));
        assert!(matches!(server(1064), Fault::Fatal(_)));
        let closed = Fault::from(Error::Driver(DriverError::ConnectionClosed));
        assert!(matches!(closed, Fault::Lost(_)) && !closed.spares_the_connection());
        assert!(server(1213).spares_the_connection());
    }

    #[test]
    fn values_are_not_repeated() {
        let message = "Incorrect string value: 'secret' for column `db`.`messages`.`content` at row 1";
        let error = ServerError { code: 1366, message: message.into(), state: "s".into() };
        let text = Fault::from(Error::Server(error)).to_string();
        assert_eq!(text, "Incorrect string value (error 1366)");
        let message = "Duplicate entry 'secret' for key 'user_infos_by_email'";
        let error = ServerError { code: 1062, message: message.into(), state: "s".into() };
        assert!(!Fault::from(Error::Server(error)).to_string().contains("secret"));
    }

    #[test]
    fn a_missing_table_names_the_command_that_helps() {
        assert!(StoreError::from(server(1146)).to_string().contains("corecast migrate"));
    }
}
