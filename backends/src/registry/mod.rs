//! Who is a gateway, who is a logic node, and who may do what only one may do.
//!
//! | module | what |
//! |---|---|
//! | [`advertise`] | which address a node tells |
//! | [`fixed`] | a list from the configuration; locks hold inside this process |
//! | `etcd` | leases, watches and locks on etcd (feature `etcd`) |

pub mod advertise;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod fixed;

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node somebody may talk to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// `gateway.id` or `logic.id`.
    pub id: String,
    /// `host:port` of its gRPC server; the host may be a name.
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

impl Role {
    /// As it stands in keys and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
        }
    }
}

/// What the registry itself says about one node at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its lease lives.
    Present,
    /// It has no lease: it died, it was cut off, or it left.
    Absent,
    /// This registry has no leases of other processes, so it cannot tell.
    Unknown,
}

/// Why the registry did not do what it was asked. Nothing is lost; a later repeat may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It could not be asked, or did not answer in time; keep the last answer.
    #[error("registry unavailable: {0}")]
    Unavailable(String),
    /// Another node holds this id from another address. It is free when that node leaves or
    /// its lease ends.
    #[error("{role} id {id:?} is held by the node at {holder}: waiting for its lease to end")]
    Taken {
        /// What the node wanted to be.
        role: &'static str,
        /// The id both want.
        id: String,
        /// Address of who has it.
        holder: String,
    },
}

/// Who is there.
///
/// # Contract
/// 1. [`nodes`](Registry::nodes) answers a receiver whose value is `None` until the first
///    answer, then the current set, sorted by id; it keeps the last set while the registry
///    is unreachable. A set may be wrong for a while (flapping, emptied): whoever reads it
///    owes a node by what it sees of the node itself, too.
/// 2. A lease keeps its node in the set until it is dropped or lost; a static registry lists
///    its nodes whether they live or not, and takes additions of nodes in the same process.
/// 3. A lost lease is told to its holder, who draws a new incarnation and registers again. A
///    registry that cannot be reached has lost nothing yet: it tells when it answers again.
/// 4. An id has one holder. The same id from the same address takes the place of its
///    predecessor at once (nobody else can listen there); from another address it is
///    [`RegistryError::Taken`] until the first one's lease ends. A static registry takes the
///    newest registration.
/// 5. A lock has one holder at a time, as far as clocks run at the same speed: its holder is
///    told that it is lost before another can have it, also while the registry is
///    unreachable. What the lock guards must still bear two at once (a stopped process wakes
///    up without being told). A static registry locks inside its process only.
/// 6. *Cancel safety.* A dropped call may have registered or locked; that ends with its lease
///    time, and a repeat from the same address succeeds at once.
///
/// All of it needs a tokio runtime.
pub trait Registry: Clone + Send + Sync + 'static {
    /// The watched set.
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>>;

    /// Adds this node for as long as the lease lives.
    fn register(&self, role: Role, node: Node) -> impl Future<Output = Result<Lease, RegistryError>> + Send;

    /// Does this node live? Asked of the registry, not of the last set: for decisions that
    /// must not rest on an old answer.
    fn presence(&self, role: Role, id: &str) -> impl Future<Output = Result<Presence, RegistryError>> + Send;

    /// Waits until this process holds the lock of this name, however long another has it.
    fn lock(&self, name: &str) -> impl Future<Output = Result<Lease, RegistryError>> + Send;

    /// Do nodes of other processes read here where this one is? Then its address must be one
    /// that they can reach.
    fn tells_others(&self) -> bool;
}

/// A place in the registry, or a lock. Dropping it gives it up in the background;
/// [`end`](Self::end) waits for that.
pub struct Lease {
    /// Turns `true` once the lease is lost. A sender that is gone tells nothing: the lease is
    /// held until it is given up.
    pub lost: watch::Receiver<bool>,
    release: Option<Release>,
}

/// Gives a lease up; what still runs after it may be waited for.
type Release = Box<dyn FnOnce() -> Option<JoinHandle<()>> + Send>;

/// A registry that does not take a lease back in this time keeps it for its lease time.
const END_DEADLINE: Duration = Duration::from_millis(800);

impl Lease {
    fn new(
        lost: watch::Receiver<bool>,
        release: impl FnOnce() -> Option<JoinHandle<()>> + Send + 'static,
    ) -> Self {
        Self { lost, release: Some(Box::new(release)) }
    }

    /// Is it lost?
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Returns when the lease is lost; never, if nobody can tell.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_lost(&mut self) {
        if self.lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives it up and waits until the registry knows, for at most 0.8 s.
    pub async fn end(mut self) {
        let under_way = self.release.take().and_then(|release| release());
        if let Some(task) = under_way {
            let _ = tokio::time::timeout(END_DEADLINE, task).await;
        }
    }
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
    /// etcd.
    #[cfg(feature = "etcd")]
    Etcd(etcd::EtcdRegistry),
}

macro_rules! ask {
    ($self:ident, $registry:ident => $answer:expr) => {
        match $self {
            Self::Fixed($registry) => $answer,
            #[cfg(feature = "etcd")]
            Self::Etcd($registry) => $answer,
        }
    };
}

impl Registry for AnyRegistry {
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        ask!(self, registry => registry.nodes(role))
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        ask!(self, registry => registry.register(role, node).await)
    }

    async fn presence(&self, role: Role, id: &str) -> Result<Presence, RegistryError> {
        ask!(self, registry => registry.presence(role, id).await)
    }

    async fn lock(&self, name: &str) -> Result<Lease, RegistryError> {
        ask!(self, registry => registry.lock(name).await)
    }

    fn tells_others(&self) -> bool {
        ask!(self, registry => registry.tells_others())
    }
}
