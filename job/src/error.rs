//! Why job could not start. Once it runs it waits for its peers and never fails.

/// Why job could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value out of its range; names key, value and range. The operator's to mend.
    #[error("{0}")]
    Config(String),
    /// The address is taken, not ours, or does not resolve. The operator's to mend.
    #[error("job.http_addr = {addr:?}: {source}")]
    Bind {
        /// As configured.
        addr: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The health server stopped by itself. Nothing is lost: what was not done is seen again.
    #[error("health server: {0}")]
    Http(std::io::Error),
}
