//! Why logic cannot start or go on ([`Error`]), and why it cannot answer a request
//! ([`Failure`]). The faces translate a failure once each: `grpc` to a status, `http` to a
//! response.

use corecast_backends::store::StoreError;
use corecast_proto::logic::Refusal;
use corecast_proto::refusal::Code;

/// Why the tier cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration; the operator's fault.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be bound.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// `host:port` as configured.
        addr: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store refuses for good, so that no request could ever be served.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A server ended while it should have run.
    #[error("{face} server ended: {reason}")]
    Server {
        /// `grpc` or `http`.
        face: &'static str,
        /// What it said.
        reason: String,
    },
}

/// Why a request was not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The caller's fault; nothing happened; a repeat is refused again.
    #[error("refused: {} {}", .0.code, .0.message)]
    Refused(Refusal),
    /// A part is down or a queue is full. The outcome of a write may be unknown: the same
    /// request with the same keys may be sent again.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// A defect or a broken store. A repeat hardly helps.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl Failure {
    /// As data: what an HTTP body or an error frame says.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Unavailable(what) => Code::Unavailable.with(what),
            Self::Internal(what) => Code::Internal.with(what),
        }
    }

    /// The label of metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The detail is logged where it is met, once per change of state; a browser need not know it.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable("the store cannot be reached"),
            StoreError::Unknown(_) => Self::Unavailable("outcome unknown: send again with the same key"),
            StoreError::Fatal(_) => Self::Internal("the store failed"),
        }
    }
}
