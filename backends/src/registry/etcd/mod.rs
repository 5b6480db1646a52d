//! The registry on etcd (API of 3.4).
//!
//! | module | what |
//! |---|---|
//! | [`endpoints`] | one connection at a time, the next address when it fails, a deadline on every call |
//! | [`follow`] | the watched set of a role |
//! | [`hold`] | a key bound to a lease: taking it, keeping it, giving it up |
//!
//! ```text
//!  <prefix>/gateway/<id>   {"grpc_addr":"host:port"}   bound to the gateway's lease
//!  <prefix>/logic/<id>     {"grpc_addr":"host:port"}   bound to the logic node's lease
//!  <prefix>/lock/<name>    who holds it                bound to the holder's lease
//! ```
//!
//! `prefix` is `/corecast`, or the path of the URL: systems that share an etcd need one each.
//! A reader ignores fields it does not know and skips what it cannot read.

mod endpoints;
mod follow;
mod hold;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use self::endpoints::{Endpoints, Login};
use self::hold::{Hold, Loss, Takeover, Taking};
use super::{Lease, Node, Presence, Registry, RegistryError, Role};

/// Where keys lie unless the URL says otherwise.
const PREFIX: &str = "/corecast";
/// A lock that somebody else has is looked at again after this time.
const LOCK_PERIOD: Duration = Duration::from_millis(250);

/// The registry on etcd. Cheap to clone; clones share connections and watches.
#[derive(Clone)]
pub struct EtcdRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Arc<Endpoints>,
    prefix: String,
    lease_ttl: Duration,
    gateways: Watched,
    logics: Watched,
}

/// The set of a role; its watch begins when somebody first asks. The receiver in here keeps
/// it going for as long as the registry lives.
type Watched = OnceLock<watch::Receiver<Option<Vec<Node>>>>;

/// The value of a node's key.
#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    grpc_addr: String,
}

impl EtcdRegistry {
    /// A registry at `[user:password@]host:port,…[/prefix]`. Connects when it is first used.
    /// `lease_ttl`: whole seconds, how long a node that vanished stays in the set.
    ///
    /// # Errors
    /// Says what cannot be read and what is expected; never repeats a password.
    pub fn parse(place: &str, lease_ttl: Duration) -> Result<Self, String> {
        let place = place.strip_prefix("//").unwrap_or(place);
        let (login, place) = match place.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, place),
        };
        let login = match login.map(|login| login.split_once(':')) {
            None => None,
            Some(Some((user, password))) if !user.is_empty() => {
                Some(Login { user: user.to_owned(), password: password.to_owned() })
            }
            Some(_) => return Err(EXPECTED.to_owned()),
        };
        let (hosts, path) = place.split_once('/').map_or((place, ""), |(hosts, path)| (hosts, path));
        let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
        if !hosts.iter().all(|host| is_address(host)) {
            return Err(EXPECTED.to_owned());
        }
        let path = path.trim_matches('/');
        let prefix = if path.is_empty() { PREFIX.to_owned() } else { format!("/{path}") };
        let deadline = lease_ttl / 3;
        let endpoints = Arc::new(Endpoints::new(&hosts, login, deadline));
        let (gateways, logics) = (Watched::new(), Watched::new());
        Ok(Self { inner: Arc::new(Inner { endpoints, prefix, lease_ttl, gateways, logics }) })
    }

    fn key(&self, role: Role, id: &str) -> String {
        format!("{}/{}/{id}", self.inner.prefix, role.name())
    }

    fn taking(&self, key: String, value: Vec<u8>, takeover: Takeover, loss: Loss) -> Taking {
        let endpoints = self.inner.endpoints.clone();
        Taking { endpoints, key, value, ttl: self.inner.lease_ttl, takeover, loss }
    }
}

const EXPECTED: &str = "expected etcd://[user:password@]host:port,host:port…[/prefix]";

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl Entry {
    fn of(node: &Node) -> Vec<u8> {
        let entry = Self { grpc_addr: node.grpc_addr.clone() };
        serde_json::to_vec(&entry).expect("a struct of text has a JSON form")
    }

    /// `None`, with a word in the log: somebody else wrote there.
    fn read(key: &str, value: &[u8]) -> Option<Self> {
        match serde_json::from_slice(value) {
            Ok(entry) => Some(entry),
            Err(error) => {
                warn!(key, %error, "an entry of the registry cannot be read and is skipped");
                None
            }
        }
    }
}

impl Registry for EtcdRegistry {
    fn nodes(&self, role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        let watched = match role {
            Role::Gateway => &self.inner.gateways,
            Role::Logic => &self.inner.logics,
        };
        let follow = || {
            let (seen, watched) = watch::channel(None);
            let (endpoints, prefix) = (self.inner.endpoints.clone(), self.key(role, ""));
            tokio::spawn(follow::follow(endpoints, role, prefix, seen));
            watched
        };
        watched.get_or_init(follow).clone()
    }

    async fn register(&self, role: Role, node: Node) -> Result<Lease, RegistryError> {
        let key = self.key(role, &node.id);
        let taking = self.taking(key.clone(), Entry::of(&node), Takeover::SameValue, Loss::WhenTold);
        match taking.take().await? {
            Hold::Ours(lease) => Ok(lease),
            Hold::Another(value) => Err(RegistryError::Taken {
                role: role.name(),
                holder: Entry::read(&key, &value)
                    .map_or("an unknown address".to_owned(), |entry| entry.grpc_addr),
                id: node.id,
            }),
        }
    }

    async fn presence(&self, role: Role, id: &str) -> Result<Presence, RegistryError> {
        let present = self.inner.endpoints.read(&self.key(role, id)).await?.is_some();
        Ok(if present { Presence::Present } else { Presence::Absent })
    }

    async fn lock(&self, name: &str) -> Result<Lease, RegistryError> {
        let key = format!("{}/lock/{name}", self.inner.prefix);
        // The value is for people who look; the lease decides whose it is.
        let holder = format!("process {}", std::process::id()).into_bytes();
        loop {
            if self.inner.endpoints.read(&key).await?.is_none() {
                let taking = self.taking(key.clone(), holder.clone(), Takeover::Never, Loss::ByTheClockToo);
                if let Hold::Ours(lease) = taking.take().await? {
                    return Ok(lease);
                }
            }
            tokio::time::sleep(LOCK_PERIOD.mul_f64(rand::random_range(0.5..=1.5))).await;
        }
    }

    fn tells_others(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(place: &str) -> Result<EtcdRegistry, String> {
        EtcdRegistry::parse(place, Duration::from_secs(5))
    }

    #[test]
    fn several_endpoints_a_prefix_and_a_login_are_understood() {
        let registry = parse("//h1:1,[::1]:2").expect("parses");
        assert_eq!(registry.key(Role::Gateway, "g"), "/corecast/gateway/g");
        let registry = parse("//me:se@cret@h1:1/staging/two/").expect("parses");
        assert_eq!(registry.key(Role::Logic, "l"), "/staging/two/logic/l");
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_its_password() {
        for place in
            ["", "//", "//h", "//h:0", "//h:1,", "//h:65536", "//:1", "//:secret@h:1", "//secret@h:1"]
        {
            let text = parse(place).err().unwrap_or_else(|| panic!("{place:?} was taken"));
            assert!(text.contains("host:port") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_entry_of_a_later_version_is_read_and_nonsense_is_skipped() {
        let entry = Entry::read("k", br#"{"grpc_addr":"h:1","zone":"b"}"#).expect("reads");
        assert_eq!(entry.grpc_addr, "h:1");
        assert!(Entry::read("k", b"h:1").is_none());
    }
}
