//! A cluster that a test may kill, started by the project's own script.

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
        // Of each a port for clients, and one 100 above for its controller.
        let port = corecast_ports::free_range((0..nodes).flat_map(|n| [n, n + 101]));
        let brokers = Self { folder: tempfile::tempdir().expect("a folder"), port, nodes };
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
