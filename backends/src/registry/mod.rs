//! Who is a gateway, who is a logic node.

pub mod fixed;

use std::future::Future;

/// A node somebody may talk to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// `gateway.id` or `logic.id`.
    pub id: String,
    /// `host:port` of its gRPC server.
    pub grpc_addr: String,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes pushes.
    Gateway,
    /// Answers gateways.
    Logic,
}

/// The registry could not be asked; keep the last answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("registry unavailable: {0}")]
pub struct RegistryError(pub String);

/// Who is there.
///
/// # Contract
/// 1. [`nodes`](Registry::nodes) answers a receiver whose value is `None` until the first
///    answer, then the current set, sorted by id; it keeps the last set while the registry
///    is unreachable.
/// 2. A lease keeps its node in the set until it is dropped or lost; a static registry lists
///    its nodes whether they live or not, and takes additions of nodes in the same process.
/// 3. A lost lease is told to its holder, who draws a new incarnation and registers again.
pub trait Registry: Clone + Send + Sync + 'static {
    /// The watched set.
    fn nodes(&self, role: Role) -> tokio::sync::watch::Receiver<Option<Vec<Node>>>;

    /// Adds this node for as long as the lease lives.
    fn register(&self, role: Role, node: Node) -> impl Future<Output = Result<Lease, RegistryError>> + Send;
}

/// A place in the registry. Dropping it gives the place up.
pub struct Lease {
    /// Resolves to `true` once the lease is lost.
    pub lost: tokio::sync::watch::Receiver<bool>,
    /// Gives the place up when dropped.
    pub release: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

/// The registry that was chosen at start.
#[derive(Clone)]
pub enum AnyRegistry {
    /// A list.
    Fixed(fixed::FixedRegistry),
}

impl Registry for AnyRegistry {
    fn nodes(&self, role: Role) -> tokio::sync::watch::Receiver<Option<Vec<Node>>> {
        match self {
            Self::Fixed(registry) => registry.nodes(role),
        }
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        match self {
            Self::Fixed(registry) => registry.register(role, node).await,
        }
    }
}
