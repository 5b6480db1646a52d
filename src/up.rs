//! `corecast up`: all tiers in one process on the embedded backends. The links between them
//! are the same gRPC as between machines.
//!
//! Everything is bound before anything runs, so a taken port stops the start while nothing
//! has happened yet. At the end the tiers stop in the order of the stream: the gateway drains
//! while logic still answers its last sends and job still delivers, then job, then logic.

use anyhow::{Context, Result, anyhow};
use corecast_backends::registry::{AnyRegistry, Lease, Node, Presence, Registry, RegistryError, Role};
use corecast_gateway::control::Gateway;
use corecast_job::Job;
use corecast_logic::Logic;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::config::Config;
use crate::{listening, tier};

/// Runs all tiers until `shutdown` and their drains are over.
///
/// # Errors
/// A tier does not start, or ends by itself; the others are stopped then.
pub async fn run(config: &Config, shutdown: CancellationToken) -> Result<()> {
    let urls = config.urls()?;
    let backends = tier::open(config, &urls).await?;
    let (section, _logic_id) = tier::logic_config(config)?;
    let logic = Logic::bind(section, backends.clone().into()).await?;
    let (bus, registry) = (backends.bus.clone(), backends.registry.clone());
    let (section, _gateway_id) = tier::gateway_config(config)?;
    let gateway = Gateway::bind(section, config.debug.echo, bus, registry).await?;
    let consumers = tier::consumers(config, &urls, &backends).await?;
    let registry = OnceThereIsAGateway(backends.registry.clone());
    let job = Job::bind(config.job.clone(), consumers, &registry).await?;

    listening::gateway(&gateway);
    listening::logic(&logic);
    listening::job(job.http_addr());
    listening::say(&format!("open {}", listening::url(gateway.http_addr())));

    // A tier that ends by itself ends the others, too.
    let stop = shutdown.child_token();
    let logic = Running::start("logic", &stop, |token| async { Ok(logic.run(token).await?) });
    let gateway = Running::start("gateway", &stop, |token| async { Ok(gateway.run(token).await?) });
    let job = Running::start("job", &stop, |token| async { Ok(job.run(token).await?) });
    stop.cancelled().await;

    let mut ended = Ok(());
    for tier in [gateway, job, logic] {
        ended = ended.and(tier.end().await);
    }
    backends.close().await;
    ended
}

/// A tier that runs.
struct Running {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Running {
    /// Starts it with a token of its own; cancels `others` when it ends.
    fn start<F>(
        name: &'static str,
        others: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (run, others) = (run(stop.clone()), others.clone());
        let task = tokio::spawn(async move {
            // Also when the task panics.
            let _others = others.drop_guard();
            let ended = run.await;
            if let Err(error) = &ended {
                error!(tier = name, %error, "tier ended");
            }
            ended
        });
        Self { name, stop, task }
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        match self.task.await {
            Ok(ended) => ended.with_context(|| format!("{} ended", self.name)),
            Err(panic) => Err(anyhow!("{} ended: {panic}", self.name)),
        }
    }
}

/// In one process the registry answers "no gateway" until ours is ready. Job must not take
/// that for an answer: after a restart it would call done what nobody was offered.
#[derive(Clone)]
struct OnceThereIsAGateway(AnyRegistry);

impl Registry for OnceThereIsAGateway {
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        let mut inner = self.0.nodes(role);
        let (outer, receiver) = watch::channel(None);
        tokio::spawn(async move {
            let is_answer = |nodes: &Option<Vec<Node>>| nodes.as_ref().is_some_and(|nodes| !nodes.is_empty());
            if inner.wait_for(is_answer).await.is_err() {
                return;
            }
            loop {
                outer.send_replace(inner.borrow_and_update().clone());
                tokio::select! {
                    () = outer.closed() => return,
                    changed = inner.changed() => if changed.is_err() {
                        return outer.closed().await;
                    },
                }
            }
        });
        receiver
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        self.0.register(role, node).await
    }

    async fn presence(&self, role: Role, id: &str) -> Result<Presence, RegistryError> {
        self.0.presence(role, id).await
    }

    async fn lock(&self, name: &str) -> Result<Lease, RegistryError> {
        self.0.lock(name).await
    }

    fn tells_others(&self) -> bool {
        self.0.tells_others()
    }
}
