//! A child that says where it listens, as `corecast` does:
//! `listening tier=gateway kind=http addr=127.0.0.1:40123`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Setup;
use crate::sys;

/// A running child. Dropping it kills it.
pub struct Process {
    child: Child,
    faces: BTreeMap<(String, String), SocketAddr>,
    data: Option<tempfile::TempDir>,
}

impl Process {
    /// Starts `command` on the server's core and waits until all these faces listen.
    ///
    /// # Errors
    /// It ended, or did not say so within [`START_TIME`].
    pub fn start(mut command: Command, faces: &[(&str, &str)], setup: &Setup) -> Result<Self> {
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("CORECAST")) {
            // Settings of the shell are no part of what is measured.
            command.env_remove(key);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // A child inherits the core of the thread that starts it.
        sys::pin(&[setup.server_core])?;
        let spawned = command.spawn();
        sys::pin(&[setup.client_core])?;
        let mut child = spawned.with_context(|| format!("{:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut process = Self { child, faces: BTreeMap::new(), data: None };
        let (tell, lines) = mpsc::channel();
        // Reads to the end: a full pipe would stop the child.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let start = Instant::now();
        while !faces.iter().all(|(tier, kind)| process.addr(tier, kind).is_ok()) {
            let left = START_TIME.saturating_sub(start.elapsed());
            match lines.recv_timeout(left) {
                Ok(line) => process.note(&line),
                Err(_) => bail!("it does not listen on all of {faces:?}"),
            }
        }
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a face listens.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn addr(&self, tier: &str, kind: &str) -> Result<SocketAddr> {
        let face = self.faces.get(&(tier.to_owned(), kind.to_owned()));
        face.copied().with_context(|| format!("no face {tier} {kind}"))
    }

    /// A folder that is needed as long as the child.
    pub fn keep(&mut self, data: tempfile::TempDir) {
        self.data = Some(data);
    }

    fn note(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("listening ") else { return };
        let field = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name));
        if let (Some(tier), Some(kind), Some(addr)) = (field("tier="), field("kind="), field("addr="))
            && let Ok(addr) = addr.parse()
        {
            self.faces.insert((tier.to_owned(), kind.to_owned()), addr);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good. Its data are removed after it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says where a server of this crate listens.
pub fn say(kind: &str, addr: SocketAddr) {
    println!("listening tier=bench kind={kind} addr={addr}");
}

const START_TIME: Duration = Duration::from_secs(20);
