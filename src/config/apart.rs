//! Tiers that run apart cannot meet inside a process: `memory:` and `embedded:` are refused
//! for whatever they share.

use corecast_backends::url::{Urls, needs_one_process};

use super::ConfigError;

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

fn instead(seam: &str) -> &'static str {
    match seam {
        "log" => "kafka://…",
        "bus" => "redis://… or none:",
        _ => "redis://…",
    }
}
