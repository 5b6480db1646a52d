//! One tier in a process of its own.

use anyhow::{Context as _, Result};
use corecast_backends::log::AnyConsumer;
use corecast_backends::url::{self, Backends, Urls};
use corecast_gateway::control::Gateway;
use corecast_job::Job;
use corecast_logic::Logic;
use tokio_util::sync::CancellationToken;

use crate::config::apart::Tier;
use crate::config::{Config, ConfigError};
use crate::node_id::NodeId;
use crate::{listening, node_id};

/// Runs one tier until `shutdown` and its drain are over. The caller has asked
/// [`apart::check`](crate::config::apart::check) before.
///
/// # Errors
/// The tier does not start, or ends by itself.
pub async fn run(tier: Tier, config: &Config, shutdown: CancellationToken) -> Result<()> {
    let urls = config.urls()?;
    match tier {
        Tier::Gateway => {
            let bus = url::open_bus(&urls.bus)?;
            let registry = url::open_registry(&urls.registry, urls.lease_ttl)?;
            let (section, _id) = gateway_config(config)?;
            let gateway = Gateway::bind(section, config.debug.echo, bus, registry).await?;
            listening::gateway(&gateway);
            Ok(gateway.run(shutdown).await?)
        }
        Tier::Logic => {
            let backends = open(config, &urls).await?;
            let (section, _id) = logic_config(config)?;
            let logic = Logic::bind(section, backends.clone().into()).await?;
            listening::logic(&logic);
            let ended = logic.run(shutdown).await;
            backends.close().await;
            Ok(ended?)
        }
        Tier::Job => {
            let registry = url::open_registry(&urls.registry, urls.lease_ttl)?;
            let log =
                url::open_log(&urls.log, &urls.log_settings)?.context("log.url: not one to run apart on")?;
            let consumers = std::iter::repeat_with(|| log.consumer()).take(config.job.consumers).collect();
            let job = Job::bind(config.job.clone(), consumers, &registry).await?;
            listening::job(job.http_addr());
            Ok(job.run(shutdown).await?)
        }
    }
}

/// Opens all backends, in the data folder where they are files.
///
/// # Errors
/// A folder that cannot be made, a wrong URL, a store that refuses.
pub async fn open(config: &Config, urls: &Urls) -> Result<Backends> {
    let folder = &config.data_dir;
    std::fs::create_dir_all(folder).map_err(|source| ConfigError::Read { path: folder.clone(), source })?;
    Ok(Backends::open(urls, folder).await?)
}

/// As many consumers as are configured; the embedded log has one.
///
/// # Errors
/// The log refuses.
pub async fn consumers(config: &Config, urls: &Urls, backends: &Backends) -> Result<Vec<AnyConsumer>> {
    let count = if url::needs_one_process(&urls.log) { 1 } else { config.job.consumers };
    let mut consumers = Vec::with_capacity(count);
    for _ in 0..count {
        consumers.push(backends.consumer().await?);
    }
    Ok(consumers)
}

/// The gateway's section, with its id and debug switches. The id is this process's for as
/// long as the second value lives.
///
/// # Errors
/// The kept id cannot be read or written, or belongs to another process.
pub fn gateway_config(config: &Config) -> Result<(corecast_gateway::config::Config, NodeId)> {
    let node = node_id::resolve(config.gateway.id.as_deref(), &config.data_dir, "gateway")?;
    let (id, send_per_room) = (Some(node.as_str().to_owned()), config.debug.send_per_room);
    Ok((corecast_gateway::config::Config { id, send_per_room, ..config.gateway.clone() }, node))
}

/// The sections of logic, with its id. The id is this process's for as long as the second
/// value lives.
///
/// # Errors
/// The kept id cannot be read or written, or belongs to another process.
pub fn logic_config(config: &Config) -> Result<(corecast_logic::Config, NodeId)> {
    let node = node_id::resolve(config.logic.id.as_deref(), &config.data_dir, "logic")?;
    let (id, rooms) = (Some(node.as_str().to_owned()), config.rooms.clone());
    Ok((corecast_logic::Config { id, rooms, ..config.logic.clone() }, node))
}
