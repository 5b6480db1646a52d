//! Which server of a cluster has which key.
//!
//! The map is read from any server that answers, every 10 s, and at once after a redirection
//! or where a server is down (a replica may have taken over), at most every 500 ms. Calls go
//! on with the old map meanwhile: a dead master costs only the calls of its own slots.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::{Link, LinkError};
use super::{Answer, RedisSettings};

const SLOTS: usize = 16_384;
const READ_EVERY: Duration = Duration::from_secs(10);
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Redirections of one call: moved, and asked while it moves on.
const REDIRECTIONS: usize = 3;

/// All servers of a cluster. Clones share them; they end with the last clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Reading>,
    _end: Arc<DropGuard>,
}

struct Shared {
    settings: RedisSettings,
    links: Mutex<HashMap<String, Link>>,
    /// The map may be old.
    stale: Notify,
}

#[derive(Clone)]
enum Reading {
    /// The first attempt has not ended.
    First,
    Failed,
    Map(Arc<Map>),
}

/// For each slot its server.
struct Map {
    owners: Vec<Option<Link>>,
}

impl Cluster {
    pub(super) fn open(settings: &RedisSettings) -> Self {
        let shared =
            Arc::new(Shared { settings: settings.clone(), links: Mutex::default(), stale: Notify::new() });
        let (sender, map) = watch::channel(Reading::First);
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(read_maps(Arc::clone(&shared), sender)));
        Self { shared, map, _end: Arc::new(end.drop_guard()) }
    }

    pub(super) async fn run_id(&self, key: &str) -> Option<Arc<str>> {
        self.owner(key).await.ok()?.run_id().await
    }

    /// Sends a command to the server that has the slot of `key`, following redirections.
    pub(super) async fn call(&self, key: &str, command: &Cmd) -> Result<Answer, LinkError> {
        let mut link = self.owner(key).await?;
        let mut asking = false;
        for _ in 0..REDIRECTIONS {
            let result = match asking {
                true => link.call_asking(command).await,
                false => link.call(command).await,
            };
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let LinkError::Refused(refused) = &error else {
                self.shared.stale.notify_one();
                return Err(error);
            };
            asking = refused.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            if !asking {
                self.shared.stale.notify_one();
            }
            let Some((address, _)) = refused.redirect_node() else { return Err(error) };
            // A server that does not know its own name leaves out the host.
            let address = match address.strip_prefix(':') {
                Some(port) => format!("{}:{port}", host(link.address())),
                None => address.to_owned(),
            };
            link = self.shared.link(&address);
        }
        Err(LinkError::Unanswered(link.address().to_owned(), "redirected too often".to_owned()))
    }

    async fn owner(&self, key: &str) -> Result<Link, LinkError> {
        let down = |why: &str| LinkError::Down(format!("redis cluster, {why}"));
        let mut maps = self.map.clone();
        let read = maps.wait_for(|reading| !matches!(reading, Reading::First));
        let map = match timeout(self.shared.settings.timeouts.call, read).await {
            Ok(Ok(reading)) => match &*reading {
                Reading::Map(map) => Some(Arc::clone(map)),
                _ => None,
            },
            _ => None,
        };
        let map = map.ok_or_else(|| down("no server tells who has what"))?;
        map.owners[slot(key.as_bytes())].clone().ok_or_else(|| {
            self.shared.stale.notify_one();
            down("nobody has the slot")
        })
    }
}

impl Shared {
    fn link(&self, address: &str) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || Link::open(&self.settings, address.to_owned());
        links.entry(address.to_owned()).or_insert_with(open).clone()
    }

    fn retain(&self, keeps: impl Fn(&str) -> bool) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|address, _| keeps(address));
    }

    /// Every server known, those that are up first.
    fn candidates(&self) -> Vec<Link> {
        for seed in &self.settings.addresses {
            self.link(seed);
        }
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates: Vec<Link> = links.values().cloned().collect();
        candidates.sort_by_key(|link| !link.is_up());
        candidates
    }
}

/// Reads the map now and then, until it is dropped.
async fn read_maps(shared: Arc<Shared>, maps: watch::Sender<Reading>) {
    loop {
        let mut found = None;
        for link in shared.candidates() {
            if let Ok(answer) = link.call(redis::cmd("CLUSTER").arg("SLOTS")).await
                && let Some(owners) = owners(&answer.value, host(link.address()))
            {
                found = Some(owners);
                break;
            }
        }
        if let Some(owners) = found {
            let mut known: HashSet<&str> = owners.iter().flatten().map(|owner| &**owner).collect();
            known.extend(shared.settings.addresses.iter().map(String::as_str));
            shared.retain(|address| known.contains(address));
            let mut links: HashMap<&str, Link> = HashMap::new();
            let owners = owners.iter().map(|owner| {
                let address = owner.as_deref()?;
                Some(links.entry(address).or_insert_with(|| shared.link(address)).clone())
            });
            maps.send_replace(Reading::Map(Arc::new(Map { owners: owners.collect() })));
        } else if !matches!(*maps.borrow(), Reading::Map(_)) {
            maps.send_replace(Reading::Failed);
            shared.stale.notify_one();
        }
        tokio::time::sleep(READ_PAUSE).await;
        // Whether it is old or the time is over, it is read again.
        let _ = timeout(READ_EVERY, shared.stale.notified()).await;
    }
}

/// The address of each slot's master, from the answer to `CLUSTER SLOTS`: a list of (first,
/// last, (host, port, …), replicas …). `None`: not such an answer.
fn owners(answer: &Value, asked_host: &str) -> Option<Vec<Option<Arc<str>>>> {
    let Value::Array(ranges) = answer else { return None };
    let mut owners = vec![None; SLOTS];
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::SimpleString(host) => host,
            _ => "",
        };
        let host = if host.is_empty() || host == "?" { asked_host } else { host };
        let address: Arc<str> = format!("{host}:{port}").into();
        let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
        owners.get_mut(slots)?.fill(Some(address));
    }
    Some(owners)
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// The slot of a key: CRC16 (XMODEM) of what stands between the first braces, else of all
/// (Redis Cluster specification, "Hash tags").
fn slot(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let mut crc: u16 = 0;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // 0x31C3, the check value of CRC16-XMODEM.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn only_what_is_between_the_first_braces_counts() {
        assert_eq!(slot(b"a{foo}b"), slot(b"foo"));
        assert_eq!(slot(b"{foo}{bar}"), slot(b"foo"));
        assert_eq!(slot(b"x{u:}}y"), slot(b"u:"));
        assert_ne!(slot(b"a{}foo"), slot(b""));
        assert_ne!(slot(b"a{foo"), slot(b"foo"));
    }

    #[test]
    fn a_map_is_read_with_and_without_the_name_of_the_host() {
        let master = |host: Value, port| Value::Array(vec![host, Value::Int(port)]);
        let range = |first, last, master| Value::Array(vec![Value::Int(first), Value::Int(last), master]);
        let answer = Value::Array(vec![
            range(0, 5, master(Value::BulkString(b"a".to_vec()), 1)),
            range(7, 16_383, master(Value::Nil, 2)),
        ]);
        let owners = owners(&answer, "asked").expect("read");
        assert_eq!(owners[5].as_deref(), Some("a:1"));
        assert_eq!(owners[6], None);
        assert_eq!(owners[16_383].as_deref(), Some("asked:2"));
    }

    #[test]
    fn an_answer_of_another_form_is_no_map() {
        assert!(owners(&Value::Nil, "h").is_none());
        let beyond = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(16_384),
            Value::Array(vec![Value::Nil, Value::Int(1)]),
        ])]);
        assert!(owners(&beyond, "h").is_none());
    }
}
