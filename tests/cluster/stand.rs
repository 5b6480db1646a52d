//! The cluster of `scripts/cluster`, driven from tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use crate::support::{Account, DEADLINE, http};

/// The variable that `scripts/with-middleware` sets where the engines are installed.
const INSTALLED: &str = "CORECAST_TEST_KAFKA";

/// The cluster, complete and ready, for one test at a time.
pub(crate) struct Stand {
    dir: &'static Path,
    _turn: MutexGuard<'static, ()>,
}

impl Stand {
    /// Starts what is down of the cluster; `None`, and a line about it, where the engines are
    /// not there.
    pub(crate) async fn ready() -> Option<Self> {
        if !installed() {
            return None;
        }
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let stand = Self { dir: dir(), _turn: turn };
        stand.run(&["up"]);
        Some(stand)
    }

    /// nginx: the only address that browsers know.
    pub(crate) fn nginx(&self) -> SocketAddr {
        self.address("nginx", "http")
    }

    /// Where a node listens; `kind` is `http`, `grpc` or `metrics`.
    pub(crate) fn address(&self, name: &str, kind: &str) -> SocketAddr {
        self.run(&["address", name, kind]).trim().parse().expect("host:port")
    }

    /// A new account, registered through nginx.
    pub(crate) async fn account(&self, name: &str) -> Account {
        Account::register(self.nginx(), self.address("logic-1", "http"), name).await
    }

    /// WebSockets of a gateway.
    pub(crate) async fn connections(&self, gateway: &str) -> u64 {
        let answer = http::get(self.address(gateway, "metrics"), "/metrics").await.expect("it answers");
        let counts = answer.text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            name.starts_with("corecast_gateway_open{").then(|| value.parse::<u64>().ok()).flatten()
        });
        counts.sum()
    }

    /// `scripts/cluster` with these words; answers what it printed.
    ///
    /// # Panics
    /// When it fails, with everything it wrote.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = script(self.dir).args(words).output().expect("the script starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "scripts/cluster {words:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }
}

/// Are the engines there? Says so when they are not.
pub(crate) fn installed() -> bool {
    let installed = std::env::var_os(INSTALLED).is_some();
    if !installed {
        println!("not run: {INSTALLED} is not set; scripts/with-middleware sets it");
    }
    installed
}

/// Like [`eventually`](crate::support::eventually) with as much time as a restart of a node needs.
pub(crate) async fn soon<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < 2 * DEADLINE, "not within {:?}: {what}", 2 * DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The cluster's folder, of this process alone.
fn dir() -> &'static Path {
    static PLACE: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (dir, _) = PLACE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("corecast-cluster-{}", std::process::id()));
        let guard = guard(&dir);
        (dir, guard)
    });
    dir
}

/// Deletes the cluster when this process ends: its end of the pipe closes then, even if it is
/// killed. In a session of its own, so that what ends the tests does not end it.
fn guard(dir: &Path) -> Child {
    let mut command = Command::new("setsid");
    command
        .args(["bash", "-c", "cat >/dev/null; exec \"$0\" clean"])
        .arg(repository().join("scripts/cluster"));
    command.env("DIR", dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("bash and setsid are there")
}

fn script(dir: &Path) -> Command {
    let mut command = Command::new(repository().join("scripts/cluster"));
    // Settings of the shell that runs the tests must not reach the nodes.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("CORECAST")) {
        command.env_remove(key);
    }
    command.env("DIR", dir).env("PORT_BASE", "auto").env("CORECAST_BIN", env!("CARGO_BIN_EXE_corecast"));
    command.stdin(Stdio::null());
    command
}

/// Root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
