//! A place of its own on an etcd: the given one, or one of our own that may be killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corecast_backends::url::Urls;

/// The shortest lease that etcd grants.
pub const LEASE: Duration = Duration::from_secs(2);

/// A prefix on an etcd.
pub struct Etcd {
    hosts: String,
    prefix: String,
    own: Option<Own>,
}

/// A process of ours; ends with this value.
struct Own {
    dir: tempfile::TempDir,
}

impl Etcd {
    /// On the etcd of `scripts/with-middleware`; `None`, and a line about it, without one.
    pub fn given() -> Option<Self> {
        let Ok(url) = std::env::var("CORECAST_TEST_ETCD") else {
            println!("not run: CORECAST_TEST_ETCD is not set; scripts/with-middleware sets it");
            return None;
        };
        let hosts = url.strip_prefix("etcd://").expect("etcd://host:port").to_owned();
        Some(Self { hosts, prefix: prefix(), own: None })
    }

    /// On one of our own, where the engines are there.
    pub fn start() -> Option<Self> {
        Self::given()?;
        let (dir, port) = (super::folder(), corecast_ports::free_range([0, 1]));
        run(&["start", text(dir.path()), &port.to_string()]);
        Some(Self { hosts: format!("127.0.0.1:{port}"), prefix: prefix(), own: Some(Own { dir }) })
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        format!("etcd://{}/{}", self.hosts, self.prefix)
    }

    /// Embedded backends, but this registry.
    pub fn urls(&self) -> Urls {
        Urls { registry: self.url(), lease_ttl: LEASE, ..Urls::default() }
    }

    /// Is the node in the registry?
    pub fn has(&self, role: &str, id: &str) -> bool {
        let key = format!("/{}/{role}/{id}", self.prefix);
        !self.ctl(&["get", "--keys-only", &key]).trim().is_empty()
    }

    /// Takes a node's place away, as if its lease had ended.
    pub fn forget(&self, role: &str, id: &str) {
        self.ctl(&["del", &format!("/{}/{role}/{id}", self.prefix)]);
    }

    /// Takes everybody's place away.
    pub fn forget_everybody(&self) {
        self.ctl(&["del", "--prefix", &format!("/{}/", self.prefix)]);
    }

    /// SIGKILL for our own one.
    pub fn kill(&self) {
        run(&["kill", text(self.own_dir())]);
    }

    /// Starts our own one again.
    pub fn restart(&self) {
        run(&["restart", text(self.own_dir())]);
    }

    fn own_dir(&self) -> &Path {
        self.own.as_ref().expect("only our own one is touched").dir.path()
    }

    fn ctl(&self, words: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.hosts]).args(words);
        let output = command.output().expect("etcdctl is there");
        assert!(output.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = Command::new(script()).args(["kill", text(self.dir.path())]).output();
    }
}

fn run(words: &[&str]) {
    let output = Command::new(script()).args(words).output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/middleware/etcd {words:?}: {said}");
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/middleware/etcd")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

fn prefix() -> String {
    format!("test-{}", rand::random::<u64>())
}
