//! A list of nodes: from the configuration, plus those that register in this process.
//!
//! A registered node takes the place of a listed one with the same id while its lease
//! lives: in one process the list cannot know a port that the system chose.
//! Nobody watches over the nodes of other processes, and locks hold inside this one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Lease, Node, Presence, Registry, RegistryError, Role};

/// The list.
#[derive(Clone)]
pub struct FixedRegistry {
    gateways: Arc<List>,
    logics: Arc<List>,
    locks: Arc<Mutex<Locks>>,
}

/// By name. Names are few and fixed in the code, so none is forgotten.
type Locks = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

struct List {
    nodes: Mutex<Nodes>,
    seen: watch::Sender<Option<Vec<Node>>>,
}

struct Nodes {
    listed: Vec<Node>,
    /// By lease, in the order of registration.
    registered: BTreeMap<u64, Node>,
    next_lease: u64,
}

impl FixedRegistry {
    /// A registry with these nodes; of two with the same id the last one counts.
    pub fn new(gateways: Vec<Node>, logics: Vec<Node>) -> Self {
        Self {
            gateways: Arc::new(List::new(gateways)),
            logics: Arc::new(List::new(logics)),
            locks: Arc::default(),
        }
    }

    /// Reads `gateway=ID@host:port,…;logic=ID@host:port,…`; either part may be absent.
    ///
    /// # Errors
    /// Names the part that cannot be read and what is expected.
    pub fn parse(list: &str) -> Result<Self, String> {
        let (mut gateways, mut logics) = (Vec::new(), Vec::new());
        for part in list.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (role, nodes) = part.split_once('=').ok_or_else(|| expected(part))?;
            let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty()).map(node);
            let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
            match role.trim() {
                "gateway" => gateways.extend(nodes),
                "logic" => logics.extend(nodes),
                _ => return Err(expected(part)),
            }
        }
        Ok(Self::new(gateways, logics))
    }

    fn list(&self, role: Role) -> &Arc<List> {
        match role {
            Role::Gateway => &self.gateways,
            Role::Logic => &self.logics,
        }
    }
}

fn expected(part: &str) -> String {
    format!("{part:?}: expected gateway=ID@host:port,… or logic=ID@host:port,…")
}

fn node(text: &str) -> Result<Node, String> {
    let parsed = text.split_once('@').filter(|(id, address)| {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        !id.is_empty() && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    });
    let (id, grpc_addr) = parsed.ok_or_else(|| format!("{text:?}: expected ID@host:port, port 1–65535"))?;
    Ok(Node { id: id.to_owned(), grpc_addr: grpc_addr.to_owned() })
}

impl List {
    fn new(listed: Vec<Node>) -> Self {
        let nodes = Nodes { listed, registered: BTreeMap::new(), next_lease: 0 };
        let (seen, _) = watch::channel(Some(nodes.current()));
        Self { nodes: Mutex::new(nodes), seen }
    }

    /// Changes the list and tells the watchers, in one step: they never see an older set later.
    fn change<T>(&self, change: impl FnOnce(&mut Nodes) -> T) -> T {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = change(&mut nodes);
        self.seen.send_replace(Some(nodes.current()));
        answer
    }
}

impl Nodes {
    fn current(&self) -> Vec<Node> {
        let by_id: BTreeMap<_, _> =
            self.listed.iter().chain(self.registered.values()).map(|node| (&node.id, node)).collect();
        by_id.into_values().cloned().collect()
    }
}

impl Registry for FixedRegistry {
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        self.list(role).seen.subscribe()
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        let list = Arc::clone(self.list(role));
        let lease = list.change(|nodes| {
            let lease = nodes.next_lease;
            nodes.next_lease += 1;
            nodes.registered.insert(lease, node);
            lease
        });
        let (keep, lost) = watch::channel(false);
        Ok(Lease::new(lost, move || {
            // A sender dropped earlier would look like a lost lease.
            drop(keep);
            list.change(|nodes| nodes.registered.remove(&lease));
            None
        }))
    }

    async fn presence(&self, role: Role, id: &str) -> Result<Presence, RegistryError> {
        let list = self.list(role);
        let nodes = list.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let here = nodes.registered.values().any(|node| node.id == id);
        Ok(if here { Presence::Present } else { Presence::Unknown })
    }

    async fn lock(&self, name: &str) -> Result<Lease, RegistryError> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(name.to_owned()).or_default().clone()
        };
        let held = lock.lock_owned().await;
        let (keep, lost) = watch::channel(false);
        Ok(Lease::new(lost, move || {
            drop((keep, held));
            None
        }))
    }

    fn tells_others(&self) -> bool {
        false
    }
}
