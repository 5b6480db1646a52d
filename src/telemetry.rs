//! Logs: to stderr, for people or for machines. What tools parse goes to stdout instead.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Is this a level, or a list of directives?
///
/// # Errors
/// Key, value and what is allowed.
pub fn check_level(level: &str) -> Result<(), String> {
    match EnvFilter::try_new(level) {
        Ok(_) if !level.trim().is_empty() => Ok(()),
        _ => Err(format!(
            "telemetry.level = {level:?}: must be error, warn, info, debug, trace or directives as \
             info,corecast_job=debug"
        )),
    }
}

/// Starts logging, once in a process. `verbosity`: each step raises the level of our own
/// crates above what the configuration says.
pub fn start(telemetry: &Telemetry, verbosity: u8) {
    let level = match verbosity {
        0 => telemetry.level.clone(),
        1 => format!("{},corecast=debug,{}", telemetry.level, ours("debug")),
        _ => format!("{},corecast=trace,{}", telemetry.level, ours("trace")),
    };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = match telemetry.format {
        LogFormat::Pretty => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

fn ours(level: &str) -> String {
    let crates = ["corecast_gateway", "corecast_logic", "corecast_job", "corecast_backends"];
    crates.map(|name| format!("{name}={level}")).join(",")
}
