//! The commands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::config::apart::{self, Tier};
use crate::config::layers::{Sources, load};
use crate::config::{Config, ConfigError, DEFAULT_TOML, LogFormat};
use crate::{doctor, listening, signals, store_cmd, telemetry, tier, up};

/// Real-time message push: WebSocket gateway, logic and job in one binary.
#[derive(Debug, Parser)]
#[command(name = "corecast", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Shared {
    /// TOML file with the configuration; see `corecast default-config`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, over file and environment; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// More log lines; twice for all of them.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines look.
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all tiers in one process; nothing to install, data in one folder.
    Up(Data),
    /// Run a gateway: WebSockets and HTTP towards browsers.
    Gateway,
    /// Run logic: accounts, rooms, messages.
    Logic,
    /// Run job: log to gateways.
    Job,
    /// Print every key with its default, unit and range.
    DefaultConfig,
    /// Read a configuration and say what is wrong with it.
    CheckConfig {
        /// TOML file.
        file: PathBuf,
        /// Check what this tier needs to run apart. Without it: all tiers, if the registry
        /// names nodes.
        #[arg(long, value_enum)]
        tier: Option<Tier>,
    },
    /// Make or bring up to date the tables of the store's server.
    Migrate,
    /// Look at what a node needs: engines, settings, limits. Changes nothing; exit code 1
    /// when something must be mended.
    Doctor,
    /// Maintain the store.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Raise the epoch of every room: mandatory after a restore from a backup. Logic must be
    /// stopped.
    NewEpoch(Data),
}

/// Where the data are.
#[derive(Debug, Args)]
struct Data {
    /// Data folder, default ./data; the same as --set data_dir=DIR.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 wrong flags or
/// configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecast: {}", told(&error));
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// The error and its causes; many a message names its cause itself.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(cli: Cli) -> Result<()> {
    let shared = &cli.shared;
    match cli.command {
        Command::DefaultConfig => {
            listening::say(DEFAULT_TOML.trim_end());
            Ok(())
        }
        Command::CheckConfig { file, tier } => check_config(shared, file, tier),
        Command::Up(Data { data }) => {
            let config = shared.load(data)?;
            shared.serve(&config, async |config, stop| up::run(config, stop).await)
        }
        Command::Gateway => shared.serve_tier(Tier::Gateway),
        Command::Logic => shared.serve_tier(Tier::Logic),
        Command::Job => shared.serve_tier(Tier::Job),
        Command::Migrate => {
            let config = shared.load(None)?;
            shared.start_telemetry(&config);
            runtime(&config)?.block_on(store_cmd::migrate(&config))
        }
        Command::Doctor => {
            let config = shared.load(None)?;
            shared.start_telemetry(&config);
            runtime(&config)?.block_on(doctor::run(&config))
        }
        Command::Store { command: StoreCommand::NewEpoch(Data { data }) } => {
            let config = shared.load(data)?;
            shared.start_telemetry(&config);
            runtime(&config)?.block_on(store_cmd::new_epoch(&config))
        }
    }
}

fn check_config(shared: &Shared, file: PathBuf, tier: Option<Tier>) -> Result<()> {
    let sources = Sources { file: Some(&file), env: environment(), sets: shared.set.clone() };
    let config = load(&sources)?;
    let urls = config.urls()?;
    let all = [Tier::Gateway, Tier::Logic, Tier::Job];
    let tiers = match tier {
        Some(tier) => vec![tier],
        None if apart::runs_apart(&urls) => all.to_vec(),
        None => Vec::new(),
    };
    apart::check(&tiers, &urls)?;
    apart::check_addresses(&tiers, &config, &urls)?;
    urls.check()?;
    if tiers.is_empty() {
        urls.check_together()?;
    }
    let checked = tier.map_or("all tiers", Tier::name);
    listening::say(&format!("{}: ok for {checked}", file.display()));
    Ok(())
}

impl Shared {
    fn load(&self, data: Option<String>) -> Result<Config> {
        let mut sets = self.set.clone();
        sets.extend(data.map(|data| format!("data_dir={data}")));
        let mut config = load(&Sources { file: self.config.as_deref(), env: environment(), sets })?;
        if let Some(format) = self.log_format {
            config.telemetry.format = format;
        }
        Ok(config)
    }

    fn start_telemetry(&self, config: &Config) {
        telemetry::start(&config.telemetry, self.verbose);
    }

    fn serve_tier(&self, tier: Tier) -> Result<()> {
        let config = self.load(None)?;
        // Before anything starts, so that the reason is the only line that is printed.
        let urls = config.urls()?;
        apart::check(&[tier], &urls)?;
        apart::check_addresses(&[tier], &config, &urls)?;
        self.serve(&config, async |config, stop| tier::run(tier, config, stop).await)
    }

    fn serve(
        &self,
        config: &Config,
        run: impl AsyncFnOnce(&Config, CancellationToken) -> Result<()>,
    ) -> Result<()> {
        self.start_telemetry(config);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "corecast starts");
        tracing::info!("effective configuration\n{}", config.effective());
        runtime(config)?.block_on(async { run(config, signals::shutdown()?).await })
    }
}

fn runtime(config: &Config) -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    builder.enable_all().build().context("no runtime")
}

/// Variables that are no text cannot be ours.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shared_flags_stand_before_or_after_the_command() {
        for line in [
            &["corecast", "--set", "debug.echo=true", "up", "--data", "d"][..],
            &["corecast", "up", "--data", "d", "--set", "debug.echo=true"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.shared.set, ["debug.echo=true"]);
            let Command::Up(Data { data }) = cli.command else { panic!("not up") };
            let config = Shared { set: cli.shared.set.clone(), ..cli.shared }.load(data).unwrap();
            assert!(config.debug.echo);
            assert_eq!(config.data_dir, PathBuf::from("d"));
        }
    }
}
