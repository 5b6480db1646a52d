//! A cluster that a test may kill, started by the project's own script.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use super::VARIABLE;

/// Brokers of this test alone. They end with it.
pub(super) struct Brokers {
    folder: tempfile::TempDir,
    port: u16,
    nodes: u16,
}

impl Brokers {
    /// Starts them. `None` where the tests on Kafka are not wanted.
    pub(super) fn start(nodes: u16) -> Option<Self> {
        if std::env::var(VARIABLE).is_err() {
            println!("not run: {VARIABLE} is not set");
            return None;
        }
        let brokers = Self { folder: tempfile::tempdir().expect("a folder"), port: free_ports(), nodes };
        brokers.script("start", &[&brokers.port.to_string(), &nodes.to_string()]);
        Some(brokers)
    }

    /// `//host:port,…`.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<_> = (0..self.nodes).map(|n| format!("127.0.0.1:{}", self.port + n)).collect();
        format!("//{}", hosts.join(","))
    }

    /// SIGKILL for broker `node`, counted from 1.
    pub(super) fn kill(&self, node: u16) {
        self.script("kill", &[&node.to_string()]);
    }

    /// On the same folder and port; returns when it answers.
    pub(super) fn restart(&self, node: u16) {
        self.script("restart", &[&node.to_string()]);
    }

    fn script(&self, verb: &str, rest: &[&str]) {
        let Output { status, stderr, .. } = self.run(verb, rest);
        assert!(status.success(), "kafka {verb}: {}", String::from_utf8_lossy(&stderr));
    }

    fn run(&self, verb: &str, rest: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware/kafka");
        Command::new(script).arg(verb).arg(self.folder.path()).args(rest).output().expect("a script")
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // Quicker than a clean stop, and nobody needs the data.
        for node in 1..=self.nodes {
            self.run("kill", &[&node.to_string()]);
        }
    }
}

/// The first of three free ports whose neighbours 100 above are free too.
fn free_ports() -> u16 {
    loop {
        let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
        let first = probe.local_addr().expect("bound").port();
        drop(probe);
        let wanted = (0..3).chain(101..104);
        let free = |offset| {
            first.checked_add(offset).is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        if wanted.into_iter().all(free) {
            return first;
        }
    }
}
