//! The real binary as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http::{self, Account};
use super::{DEADLINE, eventually};

/// Faces that `corecast up` opens, as (tier, kind).
const FACES: [(&str, &str); 6] = [
    ("gateway", "http"),
    ("gateway", "grpc"),
    ("gateway", "metrics"),
    ("logic", "http"),
    ("logic", "grpc"),
    ("job", "http"),
];

/// How to start `corecast`.
#[derive(Clone)]
pub struct Setup {
    /// `up`, or one tier.
    command: String,
    faces: Vec<(&'static str, &'static str)>,
    data: PathBuf,
    /// `gateway.http_addr` → value.
    settings: BTreeMap<String, String>,
    wrapper: Vec<String>,
}

/// A running `corecast`, all tiers or one. Dropping it kills it.
pub struct Corecast {
    child: Child,
    faces: BTreeMap<(String, String), SocketAddr>,
    output: Output,
}

/// What a process has written, both streams, by line.
#[derive(Clone, Default)]
pub struct Output {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    /// `corecast up --data DATA`, every face on a free port of loopback.
    pub fn new(data: &Path) -> Self {
        Self::of("up", FACES.to_vec(), data)
    }

    /// `corecast gateway`, `logic` or `job` with this folder, every face on a free port of
    /// loopback.
    pub fn tier(tier: &str, data: &Path) -> Self {
        Self::of(tier, FACES.into_iter().filter(|(of, _)| *of == tier).collect(), data)
    }

    fn of(command: &str, faces: Vec<(&'static str, &'static str)>, data: &Path) -> Self {
        let (command, data) = (command.to_owned(), data.to_owned());
        let (settings, wrapper) = (BTreeMap::new(), Vec::new());
        let mut setup = Self { command, faces: faces.clone(), data, settings, wrapper };
        for (tier, kind) in faces {
            setup = setup.set(&format!("{tier}.{kind}_addr"), "127.0.0.1:0");
        }
        match super::driver() {
            Some(driver) => setup.set("gateway.driver", driver),
            None => setup,
        }
    }

    /// A key of the configuration, `gateway.limits.drain_ms`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Runs the binary by way of another program, which gets its path and arguments.
    pub fn under(mut self, program: &str, arguments: &[&str]) -> Self {
        self.wrapper = [program].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts and waits until the gateway, or the one tier, is ready.
    pub async fn start(&self) -> Corecast {
        let corecast = self.start_unready().await;
        corecast.ready().await;
        corecast
    }

    /// Waits until every face listens.
    pub async fn start_unready(&self) -> Corecast {
        let (child, output) = self.spawn();
        let mut corecast = Corecast { child, faces: BTreeMap::new(), output };
        let start = Instant::now();
        while corecast.faces.len() < self.faces.len() {
            if let Some(status) = corecast.child.try_wait().expect("the child can be asked") {
                panic!("corecast ended with {status} at its start:\n{}", corecast.output.text());
            }
            assert!(start.elapsed() < DEADLINE, "corecast does not listen:\n{}", corecast.output.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
            corecast.faces = corecast.output.faces();
        }
        corecast
    }

    /// Starts what must end by itself; answers its status and what it wrote.
    pub async fn run_to_end(&self) -> (ExitStatus, String) {
        let (child, output) = self.spawn();
        (wait(child).await, output.text())
    }

    fn spawn(&self) -> (Child, Output) {
        let data = self.data.to_str().expect("a temporary folder has a plain name");
        let set = format!("data_dir={data}");
        spawn(&self.wrapper, &["--set", &set, &self.command], &self.settings)
    }
}

impl Corecast {
    /// `corecast up` on this folder.
    pub async fn up(data: &Path) -> Self {
        Setup::new(data).start().await
    }

    /// HTTP and WebSocket of the gateway.
    pub fn http(&self) -> SocketAddr {
        self.face("gateway", "http")
    }

    /// gRPC of the gateway.
    pub fn grpc(&self) -> SocketAddr {
        self.face("gateway", "grpc")
    }

    /// Metrics of the gateway.
    pub fn metrics(&self) -> SocketAddr {
        self.face("gateway", "metrics")
    }

    /// The JSON face of logic.
    pub fn logic(&self) -> SocketAddr {
        self.face("logic", "http")
    }

    /// Health and metrics of job.
    pub fn job(&self) -> SocketAddr {
        self.face("job", "http")
    }

    /// Waits until the gateway, or the one tier, is ready.
    pub async fn ready(&self) {
        let faces = [("gateway", "metrics"), ("logic", "http"), ("job", "http")];
        let told = faces.into_iter().find_map(|(tier, kind)| self.faces.get(&(tier.into(), kind.into())));
        let addr = *told.expect("every tier tells");
        eventually("it is ready", || async move {
            http::get(addr, "/readyz").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// A new account with this name.
    pub async fn account(&self, name: &str) -> Account {
        Account::register(self.http(), self.logic(), name).await
    }

    /// What it wrote so far.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// A signal by its name: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh is there");
        assert!(status.success(), "{kill}");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "corecast does not end:\n{}", self.output.text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn face(&self, tier: &str, kind: &str) -> SocketAddr {
        self.faces[&(tier.to_owned(), kind.to_owned())]
    }
}

impl Drop for Corecast {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- last lines of corecast ---\n{}", self.output.tail());
        }
    }
}

impl Output {
    /// All of it.
    pub fn text(&self) -> String {
        self.lock().join("\n")
    }

    /// What it said last, without the configuration it prints at its start.
    fn tail(&self) -> String {
        let lines = self.lock();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Lines that contain `words`.
    pub fn lines_with(&self, words: &str) -> Vec<String> {
        self.lock().iter().filter(|line| line.contains(words)).cloned().collect()
    }

    fn collect(&self, stream: impl Read + Send + 'static) {
        let lines = self.lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }

    /// Reads the lines `listening tier=gateway kind=http addr=127.0.0.1:8080`.
    fn faces(&self) -> BTreeMap<(String, String), SocketAddr> {
        let field = |line: &str, name: &str| {
            let value = line.split(name).nth(1)?.split_whitespace().next()?;
            Some(value.trim_matches('"').to_owned())
        };
        let lines = self.lock();
        let faces = lines.iter().filter(|line| line.contains("listening tier=")).filter_map(|line| {
            let addr = field(line, "addr=")?.parse().ok()?;
            Some(((field(line, "tier=")?, field(line, "kind=")?), addr))
        });
        faces.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `corecast` with these arguments until it ends; answers its status, its standard
/// output and everything it wrote.
pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let output = binary().args(arguments).output().expect("the binary starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status, out.to_string(), format!("{out}{err}"))
}

fn spawn(wrapper: &[String], arguments: &[&str], settings: &BTreeMap<String, String>) -> (Child, Output) {
    let mut command = match wrapper.split_first() {
        None => binary(),
        Some((program, before)) => {
            let mut command = Command::new(program);
            command.args(before).arg(env!("CARGO_BIN_EXE_corecast"));
            forget_settings(&mut command);
            command
        }
    };
    for (key, value) in settings {
        command.env(format!("CORECAST__{}", key.to_uppercase().replace('.', "__")), value);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let output = Output::default();
    output.collect(child.stdout.take().expect("piped"));
    output.collect(child.stderr.take().expect("piped"));
    (child, output)
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    forget_settings(&mut command);
    command
}

/// Settings of the shell that runs the tests must not reach the binary.
fn forget_settings(command: &mut Command) {
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("CORECAST")) {
        command.env_remove(key);
    }
}

async fn wait(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            // Its last lines may still be on the way through the pipe.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("corecast did not end within {DEADLINE:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
