//! SIGTERM and SIGINT: the first one drains, the second one ends the process at once.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that the first signal cancels.
///
/// # Errors
/// The system refuses handlers.
pub fn shutdown() -> Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = term.recv() => SIGTERM,
                _ = int.recv() => SIGINT,
            };
            if first.is_cancelled() {
                warn!("second signal, ending at once");
                std::process::exit(128 + number);
            }
            info!("signal, draining; a second one ends at once");
            first.cancel();
        }
    });
    Ok(token)
}

/// Numbers as a shell shows them in `$?`, 128 higher.
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
