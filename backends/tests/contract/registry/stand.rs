//! An etcd for these tests: the given one, one of our own that may be killed, and a link to
//! it that can be cut or stalled.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::registry::AnyRegistry;
use corecast_backends::url::open_registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The shortest lease that etcd grants.
pub(super) const TTL: Duration = Duration::from_secs(2);

/// A prefix of its own on an etcd.
pub(super) struct Place {
    hosts: String,
    prefix: String,
}

impl Place {
    /// On the etcd that the environment names; `None`, and a line about it, without one.
    pub(super) fn given() -> Option<Self> {
        let Ok(url) = std::env::var("CORECAST_TEST_ETCD") else {
            println!("not run: CORECAST_TEST_ETCD is not set; scripts/with-middleware sets it");
            return None;
        };
        Some(Self::at(url.strip_prefix("etcd://").expect("etcd://host:port")))
    }

    /// On these, as `host:port,host:port`.
    pub(super) fn at(hosts: &str) -> Self {
        Self { hosts: hosts.to_owned(), prefix: format!("test-{}", uuid::Uuid::new_v4()) }
    }

    /// A registry with connections and watches of its own.
    pub(super) fn open(&self) -> AnyRegistry {
        self.open_by(&self.hosts)
    }

    /// The same place, reached by other addresses.
    pub(super) fn open_by(&self, hosts: &str) -> AnyRegistry {
        open_registry(&format!("etcd://{hosts}/{}", self.prefix), TTL).expect("the URL is right")
    }

    /// The first address.
    pub(super) fn host(&self) -> &str {
        self.hosts.split(',').next().expect("one at least")
    }

    /// A plain client.
    pub(super) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.host()], None).await.expect("connects")
    }

    /// The key of a node.
    pub(super) fn key(&self, role: &str, id: &str) -> String {
        format!("/{}/{role}/{id}", self.prefix)
    }
}

/// An etcd of our own; ends with this value.
pub(super) struct Etcd {
    dir: tempfile::TempDir,
    port: u16,
    members: u16,
}

impl Etcd {
    /// Starts one, if the engines are there.
    pub(super) async fn start() -> Option<Self> {
        Self::start_members(1).await
    }

    pub(super) async fn start_members(members: u16) -> Option<Self> {
        let etcd = Self::prepare(members)?;
        etcd.run(&["start", etcd.path(), &etcd.port.to_string(), &members.to_string()]).await;
        Some(etcd)
    }

    /// A place for one that does not run yet.
    pub(super) fn prepare(members: u16) -> Option<Self> {
        Place::given()?;
        let dir = tempfile::tempdir().expect("a folder");
        Some(Self { dir, port: corecast_ports::free_range(0..2 * members), members })
    }

    /// All addresses.
    pub(super) fn place(&self) -> Place {
        let hosts: Vec<_> = (0..self.members).map(|n| format!("127.0.0.1:{}", self.port + 2 * n)).collect();
        Place::at(&hosts.join(","))
    }

    /// SIGKILL for one member, counted from 1.
    pub(super) async fn kill(&self, member: u16) {
        self.run(&["kill", self.path(), &member.to_string()]).await;
    }

    /// Starts what was killed or never ran.
    pub(super) async fn restart(&self) {
        let (port, members) = (self.port.to_string(), self.members.to_string());
        self.run(&["start", self.path(), &port, &members]).await;
    }

    /// All data of a killed one are gone.
    pub(super) fn forget_everything(&self) {
        for member in 1..=self.members {
            std::fs::remove_dir_all(self.dir.path().join(format!("{member}/data"))).expect("it has data");
        }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().expect("a path of plain letters")
    }

    async fn run(&self, words: &[&str]) {
        let output =
            tokio::process::Command::new(script()).args(words).output().await.expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/middleware/etcd {words:?}: {said}");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // One that never ran has nothing to kill.
        let _ = Command::new(script()).args(["kill", self.path()]).output();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware/etcd")
}

/// What a link does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Passes them on.
    Open,
    /// Keeps them until it is open again.
    Stalled,
    /// Breaks every connection and takes none.
    Cut,
}

/// A link to an address. Ends with its last handle.
#[derive(Clone)]
pub(super) struct Link {
    addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Link {
    pub(super) async fn to(host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (state, watched) = watch::channel(State::Open);
        tokio::spawn(accept(listener, host.to_owned(), watched));
        Self { addr, state: Arc::new(state) }
    }

    pub(super) fn host(&self) -> String {
        self.addr.to_string()
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn accept(listener: TcpListener, host: String, mut state: watch::Receiver<State>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            gone = async { while state.changed().await.is_ok() {} } => return gone,
        };
        let Ok((from, _)) = accepted else { return };
        if *state.borrow() == State::Cut {
            continue;
        }
        let Ok(to) = TcpStream::connect(&host).await else { continue };
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        let (there, back) = (state.clone(), state.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = pass(from_read, to_write, there) => {}
                () = pass(to_read, from_write, back) => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = state.wait_for(|state| *state == State::Cut) => return,
        };
        let Ok(count @ 1..) = read else { return };
        // Gone with the link, or open, or cut meanwhile.
        let passes =
            state.wait_for(|state| *state != State::Stalled).await.is_ok_and(|state| *state == State::Open);
        if !passes || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
