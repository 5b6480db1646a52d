//! Tiers that run apart cannot meet inside a process: `memory:` and `embedded:` are refused
//! for whatever they share.

use corecast_backends::registry::advertise::advertised;
use corecast_backends::url::{Urls, needs_one_process};

use super::{Config, ConfigError};

/// What is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// WebSockets.
    Gateway,
    /// Accounts, rooms, messages.
    Logic,
    /// Log to gateways.
    Job,
}

impl Tier {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
            Self::Job => "job",
        }
    }

    /// The backends this tier shares with the others.
    fn shares(self, urls: &Urls) -> Vec<(&'static str, &str)> {
        let (hotset, log, bus) = (("hotset", &*urls.hotset), ("log", &*urls.log), ("bus", &*urls.bus));
        match self {
            Self::Gateway => vec![bus],
            Self::Logic => vec![hotset, log, bus],
            Self::Job => vec![log],
        }
    }
}

/// Does the registry name nodes, or can it? Then tiers run apart.
pub fn runs_apart(urls: &Urls) -> bool {
    urls.registry.trim_end_matches(';') != "static:"
}

/// Can these tiers run in processes of their own?
///
/// # Errors
/// [`ConfigError::Value`] names the key, its value and what is allowed instead.
pub fn check(tiers: &[Tier], urls: &Urls) -> Result<(), ConfigError> {
    for (seam, url) in tiers.iter().flat_map(|tier| tier.shares(urls)) {
        if needs_one_process(url) {
            return Err(ConfigError::Value(format!(
                "{seam}.url = {url:?}: lives inside one process, so that `corecast up` can use it, but a tier \
                 that runs apart cannot reach the others through it; use {}",
                instead(seam)
            )));
        }
    }
    if tiers.iter().any(|tier| *tier != Tier::Logic) && !runs_apart(urls) {
        return Err(ConfigError::Value(
            "registry.url = \"static:\": names nobody, and a tier that runs apart must find the others; use \
             static:gateway=ID@host:port,…;logic=ID@host:port,… or etcd://…"
                .into(),
        ));
    }
    Ok(())
}

/// Do gateways and logic nodes have an address that the registry may tell others?
///
/// # Errors
/// [`ConfigError::Value`]: bound on all interfaces, and no address is configured.
pub fn check_addresses(tiers: &[Tier], config: &Config, urls: &Urls) -> Result<(), ConfigError> {
    if !urls.registry.starts_with("etcd:") {
        return Ok(());
    }
    for tier in tiers {
        let (bound, configured) = match tier {
            Tier::Gateway => (Some(config.gateway.grpc_addr), &config.gateway.advertise_grpc),
            // A host name is no wildcard.
            Tier::Logic => (config.logic.grpc_addr.parse().ok(), &config.logic.advertise_grpc),
            Tier::Job => continue,
        };
        if let Some(bound) = bound {
            advertised(tier.name(), configured.as_deref(), bound, true).map_err(ConfigError::Value)?;
        }
    }
    Ok(())
}

fn instead(seam: &str) -> &'static str {
    match seam {
        "log" => "kafka://…",
        "bus" => "redis://… or none:",
        _ => "redis://…",
    }
}
