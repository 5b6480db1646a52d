//! The system under trial: the cluster of `scripts/cluster`, or one `corecast up`. Knows its
//! parts, their ports, and how to hurt and mend each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::links::Links;
use super::schedule::{Deed, Fault, Kind, Part};
use crate::http;

/// A system. Dropping it ends what it started.
pub struct System {
    body: Body,
    links: Option<Links>,
}

enum Body {
    Cluster(Cluster),
    Embedded(Embedded),
}

/// A running cluster of `scripts/cluster`.
#[derive(Clone)]
pub struct Cluster {
    script: PathBuf,
    environment: Vec<(String, String)>,
    /// Port by (name, face).
    ports: BTreeMap<(String, String), u16>,
    /// Names, without `nginx`.
    names: Vec<String>,
    ours: bool,
}

/// One `corecast up`.
struct Embedded {
    binary: PathBuf,
    sets: Vec<String>,
    folder: tempfile::TempDir,
    entry: u16,
    metrics: u16,
    logic: u16,
    logic_grpc: u16,
    child: Option<Child>,
}

/// What a fault's end needs besides: a command that is waited for elsewhere.
pub type Mending = Box<dyn FnOnce() -> Result<()> + Send>;

impl System {
    /// `corecast up` of this binary in a temporary folder.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub fn embedded(binary: &Path, sets: &[String]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut embedded = Embedded {
            binary: binary.to_owned(),
            sets: sets.to_vec(),
            folder,
            entry: corecast_ports::free(),
            metrics: corecast_ports::free(),
            logic: corecast_ports::free(),
            logic_grpc: corecast_ports::free(),
            child: None,
        };
        embedded.start()?;
        http::wait_for_200(local(embedded.metrics), "/readyz")
            .with_context(|| format!("corecast up; its log:\n{}", embedded.log()))?;
        Ok(Self { body: Body::Embedded(embedded), links: None })
    }

    /// The cluster that `script` runs; started when it is not, and then stopped at the end.
    /// `configured`: it must be started here, to have the configuration that was asked for.
    ///
    /// # Errors
    /// The script fails.
    pub fn cluster(script: &Path, environment: &[(String, String)], configured: bool) -> Result<Self> {
        let mut cluster = Cluster {
            script: script.to_owned(),
            environment: environment.to_vec(),
            ports: BTreeMap::new(),
            names: Vec::new(),
            ours: false,
        };
        let runs =
            cluster.run(&["status"]).is_ok_and(|text| text.lines().any(|line| line.contains(" ready ")));
        if runs && configured {
            bail!(
                "the cluster runs already, so it keeps its configuration: take it down, or leave --set away"
            );
        }
        if !runs {
            cluster.ours = true;
            cluster.run(&["up"])?;
        }
        (cluster.names, cluster.ports) = read_status(&cluster.run(&["status"])?);
        Ok(Self { body: Body::Cluster(cluster), links: None })
    }

    /// From now on links may be cut, where iptables may be used; else that is said once.
    ///
    /// # Errors
    /// The system does not tell its ports.
    pub fn allow_cuts(&mut self) -> Result<()> {
        match Links::new(&format!("chaos-{}", self.entry()?.port())) {
            Ok(links) => self.links = Some(links),
            Err(error) => eprintln!("links are not cut in this run: {error}"),
        }
        Ok(())
    }

    /// Where clients come in: nginx, or the gateway.
    pub fn entry(&self) -> Result<SocketAddr> {
        match &self.body {
            Body::Cluster(cluster) => Ok(local(cluster.port("nginx", "http")?)),
            Body::Embedded(embedded) => Ok(local(embedded.entry)),
        }
    }

    /// The JSON face of a logic node, where its metrics are, too.
    ///
    /// # Errors
    /// It has none.
    pub fn logic(&self) -> Result<SocketAddr> {
        match &self.body {
            Body::Cluster(cluster) => Ok(local(cluster.port("logic-1", "http")?)),
            Body::Embedded(embedded) => Ok(local(embedded.logic)),
        }
    }

    /// The gRPC face of the same logic node.
    ///
    /// # Errors
    /// It has none.
    pub fn logic_grpc(&self) -> Result<SocketAddr> {
        match &self.body {
            Body::Cluster(cluster) => Ok(local(cluster.port("logic-1", "grpc")?)),
            Body::Embedded(embedded) => Ok(local(embedded.logic_grpc)),
        }
    }

    /// Parts whose name begins so, in order; one process has none.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        match &self.body {
            Body::Cluster(cluster) => {
                cluster.names.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
            }
            Body::Embedded(_) => Vec::new(),
        }
    }

    /// One face of a part.
    ///
    /// # Errors
    /// There is no such part, or it has no such face.
    pub fn address(&self, name: &str, face: &str) -> Result<SocketAddr> {
        match &self.body {
            Body::Cluster(cluster) => Ok(local(cluster.port(name, face)?)),
            Body::Embedded(_) => bail!("one process has no part {name}: this needs a cluster"),
        }
    }

    /// That face of each part whose name begins so; at least one.
    ///
    /// # Errors
    /// There is no such part, or it has no such face.
    pub fn faces(&self, prefix: &str, face: &str) -> Result<Vec<SocketAddr>> {
        let names = self.names(prefix);
        if names.is_empty() {
            bail!("there is no {prefix}… here: this needs a cluster");
        }
        names.iter().map(|name| self.address(name, face)).collect()
    }

    /// What `corecast doctor` says of the engines, as the logic node sees them.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn doctor(&self) -> Result<String> {
        match &self.body {
            Body::Cluster(cluster) => cluster.run(&["doctor", "logic-1"]),
            Body::Embedded(embedded) => embedded.doctor(),
        }
    }

    /// Process ids of our own processes.
    pub fn pids(&self) -> Vec<u32> {
        match &self.body {
            Body::Cluster(cluster) => {
                let nodes = cluster.names.iter().filter(|name| is_node(name));
                nodes.filter_map(|name| cluster.pid(name).ok()).collect()
            }
            Body::Embedded(embedded) => embedded.child.iter().map(Child::id).collect(),
        }
    }

    /// One line for a report.
    pub fn describe(&self) -> String {
        match &self.body {
            Body::Cluster(cluster) => format!("cluster: nginx, {}", cluster.names.join(", ")),
            Body::Embedded(_) => "corecast up: all tiers in one process, embedded backends".to_owned(),
        }
    }

    /// What can be done to it: each kill twice, each pause and cut once.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = match &self.body {
            Body::Cluster(cluster) => kinds_of(&cluster.names),
            Body::Embedded(_) => vec![
                Kind::new(Deed::Kill, Part::of("corecast"), 2),
                Kind::new(Deed::Pause, Part::of("corecast"), 1),
                Kind::new(Deed::Cut, Part::face("corecast", "http"), 1),
            ],
        };
        if self.links.is_none() {
            kinds.retain(|kind| kind.deed != Deed::Cut);
        }
        kinds
    }

    /// Can links be cut here?
    pub fn cuts_links(&self) -> bool {
        self.links.is_some()
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// It could not be made.
    pub fn inject(&mut self, fault: &Fault) -> Result<()> {
        match fault.deed {
            Deed::Cut => {
                let ports = self.ports(&fault.part)?;
                self.links.as_ref().context("links cannot be cut here")?.cut(&ports)
            }
            Deed::Kill => match &mut self.body {
                Body::Cluster(cluster) => cluster.run(&["kill", &fault.part.name]).map(drop),
                Body::Embedded(embedded) => embedded.kill(),
            },
            Deed::Pause => self.signal(&fault.part, Signal::STOP),
        }
    }

    /// Orders the end of a fault. What takes time (a restart that waits until the part
    /// answers) is in the answer, to be run where it may block.
    ///
    /// # Errors
    /// It could not be ended.
    pub fn mend(&mut self, fault: &Fault) -> Result<Mending> {
        match fault.deed {
            Deed::Cut => self.links.as_ref().context("links cannot be cut here")?.mend()?,
            Deed::Pause => self.signal(&fault.part, Signal::CONT)?,
            Deed::Kill => match &mut self.body {
                Body::Cluster(cluster) => {
                    let (cluster, name) = (cluster.clone(), fault.part.name.clone());
                    return Ok(Box::new(move || cluster.run(&["restart", &name]).map(drop)));
                }
                Body::Embedded(embedded) => embedded.start()?,
            },
        }
        Ok(Box::new(|| Ok(())))
    }

    /// The last lines of a part's log.
    pub fn log_of(&self, part: &Part) -> String {
        match &self.body {
            Body::Cluster(cluster) => {
                cluster.run(&["logs", &part.name]).map_or_else(|error| error.to_string(), last_lines)
            }
            Body::Embedded(embedded) => embedded.log(),
        }
    }

    fn signal(&self, part: &Part, signal: Signal) -> Result<()> {
        let pids = match &self.body {
            Body::Cluster(cluster) => {
                let named =
                    |name: &&String| **name == part.name || name.starts_with(&format!("{}-", part.name));
                let pids = cluster.names.iter().filter(named).map(|name| cluster.pid(name));
                pids.collect::<Result<Vec<u32>>>()?
            }
            Body::Embedded(embedded) => embedded.child.iter().map(Child::id).collect(),
        };
        for pid in pids {
            let pid = Pid::from_raw(pid as i32).context("a process id")?;
            kill_process(pid, signal).with_context(|| format!("signal to {part}"))?;
        }
        Ok(())
    }

    fn ports(&self, part: &Part) -> Result<Vec<u16>> {
        let ports: Vec<u16> = match &self.body {
            Body::Embedded(embedded) => vec![embedded.entry],
            Body::Cluster(cluster) => {
                let all = cluster.ports.iter().filter(|((name, face), _)| {
                    let named = *name == part.name || name.starts_with(&format!("{}-", part.name));
                    named && (part.face.is_empty() || *face == part.face)
                });
                all.map(|(_, port)| *port).collect()
            }
        };
        if ports.is_empty() {
            bail!("no port of {part} is known");
        }
        Ok(ports)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Cluster(cluster) if cluster.ours => {
                if let Err(error) = cluster.run(&["down"]) {
                    eprintln!("the cluster does not go down: {error}");
                }
            }
            Body::Cluster(_) => {}
            // Gone already is as good.
            Body::Embedded(embedded) => drop(embedded.kill()),
        }
    }
}

impl Cluster {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.script);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output =
            command.stdin(Stdio::null()).output().with_context(|| format!("{}", self.script.display()))?;
        let Output { status, stdout, stderr } = output;
        if !status.success() {
            let words = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            bail!("{} {}: {status}\n{}", self.script.display(), arguments.join(" "), last_lines(words));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        self.run(&["pid", name])?.trim().parse().with_context(|| format!("process id of {name}"))
    }

    fn port(&self, name: &str, face: &str) -> Result<u16> {
        let port = self.ports.get(&(name.to_owned(), face.to_owned()));
        port.copied().with_context(|| format!("the cluster does not tell the {face} port of {name}"))
    }
}

impl Embedded {
    /// Without this shell's configuration.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORECAST"))
        {
            command.env_remove(name);
        }
        command
    }

    fn start(&mut self) -> Result<()> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = self.command();
        command.arg("up").arg("--data").arg(self.folder.path().join("data"));
        let faces = [
            ("gateway.http_addr", self.entry),
            ("gateway.grpc_addr", 0),
            ("gateway.metrics_addr", self.metrics),
            ("logic.http_addr", self.logic),
            ("logic.grpc_addr", self.logic_grpc),
            ("job.http_addr", 0),
        ];
        for (key, port) in faces {
            command.args(["--set", &format!("{key}=127.0.0.1:{port}")]);
        }
        for set in &self.sets {
            command.args(["--set", set]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("{}", self.binary.display()))?);
        Ok(())
    }

    fn doctor(&self) -> Result<String> {
        let mut command = self.command();
        let data_dir = format!("data_dir={}", self.folder.path().join("data").display());
        command.args(["doctor", "--set", &data_dir]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        let output = command.output().with_context(|| format!("{}", self.binary.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log"))
            .map_or_else(|error| error.to_string(), last_lines)
    }
}

/// The kinds of a cluster with these parts.
fn kinds_of(names: &[String]) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let brokers: Vec<Part> =
        names.iter().filter(|name| name.starts_with("kafka-")).map(|name| Part::of(name)).collect();
    for name in names.iter().filter(|name| !name.starts_with("kafka")) {
        kinds.push(Kind::new(Deed::Kill, Part::of(name), 2));
    }
    if brokers.len() > 1 {
        kinds.push(Kind { deed: Deed::Kill, parts: brokers.clone(), least: 2 });
    }
    kinds.push(Kind::new(Deed::Kill, Part::of("kafka"), 2));
    let of_tier = |tier: &str, face: &str| -> Vec<Part> {
        names.iter().filter(|name| name.starts_with(tier)).map(|name| Part::face(name, face)).collect()
    };
    for tier in ["gateway-", "logic-", "job-"] {
        kinds.push(Kind { deed: Deed::Pause, parts: of_tier(tier, ""), least: 1 });
    }
    kinds.push(Kind { deed: Deed::Pause, parts: brokers, least: 1 });
    kinds.push(Kind::new(Deed::Pause, Part::of("mariadb"), 1));
    for (tier, face) in [("gateway-", "http"), ("gateway-", "grpc"), ("logic-", "grpc")] {
        kinds.push(Kind { deed: Deed::Cut, parts: of_tier(tier, face), least: 1 });
    }
    for engine in ["mariadb", "redis", "kafka", "etcd"] {
        kinds.push(Kind::new(Deed::Cut, Part::of(engine), 1));
    }
    kinds.retain(|kind| !kind.parts.is_empty());
    kinds
}

/// Names and ports from what `scripts/cluster status` prints:
/// `gateway-1 4711 ready http 8010, gRPC 8011, metrics 8012`.
fn read_status(text: &str) -> (Vec<String>, BTreeMap<(String, String), u16>) {
    let (mut names, mut ports) = (Vec::new(), BTreeMap::new());
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(_pid), Some(_state)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let place: Vec<&str> = words.collect();
        for pair in place.join(" ").split(", ") {
            let (face, port) = match pair.rsplit_once(' ') {
                Some((face, port)) => (face.to_lowercase(), port.parse().ok()),
                None => ("http".to_owned(), port_in(pair)),
            };
            if let Some(port) = port {
                ports.insert((name.to_owned(), face), port);
            }
        }
        if name != "nginx" {
            names.push(name.to_owned());
        }
    }
    (names, ports)
}

/// The port of `127.0.0.1:8192` and of `mysql://root@127.0.0.1:8133/corecast`.
fn port_in(place: &str) -> Option<u16> {
    let digits: String = place.rsplit_once(':')?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn is_node(name: &str) -> bool {
    ["gateway-", "logic-", "job-"].iter().any(|tier| name.starts_with(tier))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn last_lines(text: String) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
NAME            PID STATE    WHERE
nginx          4700 ready    http://localhost:8000
gateway-1      4711 ready    http 8010, gRPC 8011, metrics 8012
logic-1        4712 ready    http 8040, gRPC 8041
job-1          4713 paused   http 8060
mariadb        4714 up       mysql://root@127.0.0.1:8133/corecast
redis          4715 ready    127.0.0.1:8163
kafka-1        4716 ready    127.0.0.1:8192
kafka-2           - down     127.0.0.1:8193
etcd           4718 ready    127.0.0.1:8179
";

    #[test]
    fn names_and_ports_are_read_from_the_status() {
        let (names, ports) = read_status(STATUS);
        assert_eq!(
            names,
            ["gateway-1", "logic-1", "job-1", "mariadb", "redis", "kafka-1", "kafka-2", "etcd"]
        );
        let port = |name: &str, face: &str| ports.get(&(name.to_owned(), face.to_owned())).copied();
        assert_eq!(port("nginx", "http"), Some(8000));
        assert_eq!(port("gateway-1", "grpc"), Some(8011));
        assert_eq!(port("gateway-1", "metrics"), Some(8012));
        assert_eq!(port("mariadb", "http"), Some(8133));
        assert_eq!(port("kafka-2", "http"), Some(8193));
    }

    #[test]
    fn every_part_of_a_cluster_is_killed_and_links_and_pauses_are_there() {
        let (names, _) = read_status(STATUS);
        let kinds = kinds_of(&names);
        for name in ["gateway-1", "logic-1", "job-1", "mariadb", "redis", "etcd", "kafka"] {
            let kind = Kind::new(Deed::Kill, Part::of(name), 2);
            assert!(kinds.contains(&kind), "{name}: {kinds:?}");
        }
        let brokers = vec![Part::of("kafka-1"), Part::of("kafka-2")];
        assert!(kinds.contains(&Kind { deed: Deed::Kill, parts: brokers, least: 2 }));
        assert!(kinds.iter().filter(|kind| kind.deed == Deed::Cut).count() >= 2);
        assert!(kinds.iter().filter(|kind| kind.deed == Deed::Pause).count() >= 2);
    }
}
