//! Setup: nginx with the project's configuration before gateways that are not ours and tell
//! what reached them. Claim: the rules of tuning/nginx. Why it matters: a POST that is sent
//! twice is two accounts or two messages; a header that a browser invents is a lie.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stand::{installed, repository};
use crate::support::{folder, http, in_time};

/// Something that speaks HTTP and keeps the heads it read. It ends with its test's runtime.
struct Upstream {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

/// What it does with a request it has read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Answers,
    Dies,
}

impl Upstream {
    async fn listen(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manners, Arc::clone(&told)));
            }
        });
        Self { addr, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, manners: Manners, told: Arc<Mutex<Vec<String>>>) {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
    told.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&read).into_owned());
    if manners == Manners::Answers {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// nginx in a folder; dropping it ends it.
struct Nginx {
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start(gateways: &[SocketAddr], logics: &[SocketAddr]) -> Self {
        let (folder, port) = (folder(), corecast_ports::free());
        let list = |nodes: &[SocketAddr]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let output = script()
            .arg("start")
            .arg(folder.path())
            .args([port.to_string(), list(gateways), list(logics)])
            .output()
            .expect("the script starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { addr: SocketAddr::from(([127, 0, 0, 1], port)), folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = script().arg("stop").arg(self.folder.path()).status();
    }
}

fn script() -> Command {
    Command::new(repository().join("scripts/middleware/nginx"))
}

fn has_line(head: &str, line: &str) -> bool {
    head.lines().any(|had| had.eq_ignore_ascii_case(line))
}

fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], corecast_ports::free()))
}

#[tokio::test]
async fn a_post_whose_gateway_died_over_it_is_not_sent_to_another() {
    if !installed() {
        return;
    }
    let (one, two) = (Upstream::listen(Manners::Dies).await, Upstream::listen(Manners::Dies).await);
    let nginx = Nginx::start(&[one.addr, two.addr], &[nobody()]);
    let answer = http::post_with(nginx.addr, "/api/register", &[], "{}").await;
    answer.expect_failure(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(one.heads().len() + two.heads().len(), 1);
}

#[tokio::test]
async fn a_get_whose_gateway_died_over_it_is_sent_to_another() {
    if !installed() {
        return;
    }
    let (dead, alive) = (Upstream::listen(Manners::Dies).await, Upstream::listen(Manners::Answers).await);
    let nginx = Nginx::start(&[dead.addr, alive.addr], &[nobody()]);
    for _ in 0..2 {
        let answer = http::get(nginx.addr, "/api/x").await.expect("nginx answers");
        assert_eq!((answer.status, &*answer.text), (200, "ok"));
    }
    assert_eq!((dead.heads().len(), alive.heads().len()), (1, 2));
}

#[tokio::test]
async fn a_post_that_nobody_has_seen_goes_to_the_gateway_that_listens() {
    if !installed() {
        return;
    }
    let alive = Upstream::listen(Manners::Answers).await;
    let nginx = Nginx::start(&[nobody(), alive.addr], &[nobody()]);
    for _ in 0..4 {
        assert_eq!(http::post_with(nginx.addr, "/api/login", &[], "{}").await.status, 200);
    }
    assert_eq!(alive.heads().len(), 4);
}

#[tokio::test]
async fn the_gateway_is_told_the_truth_about_the_browser() {
    if !installed() {
        return;
    }
    let gateway = Upstream::listen(Manners::Answers).await;
    let nginx = Nginx::start(&[gateway.addr], &[nobody()]);
    let lies = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")];
    http::post_with(nginx.addr, "/api/login?a=b", &lies, "{}").await;
    let head = gateway.heads().pop().expect("it arrived");
    assert!(head.starts_with("POST /api/login?a=b HTTP/1.1\r\n"), "{head}");
    for line in [&format!("host: {}", nginx.addr), "x-forwarded-proto: http", "x-forwarded-for: 127.0.0.1"] {
        assert!(has_line(&head, line), "{line} in {head}");
    }
}

#[tokio::test]
async fn an_upgrade_reaches_the_gateway_on_both_paths() {
    if !installed() {
        return;
    }
    let gateway = Upstream::listen(Manners::Answers).await;
    let nginx = Nginx::start(&[gateway.addr], &[nobody()]);
    for path in ["/", "/api/ws", "/api/v1/ws"] {
        let mut stream = TcpStream::connect(nginx.addr).await.expect("nginx listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: chat.example.org\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: corecast.v1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = [0; 64];
        assert_ne!(in_time("an answer", stream.read(&mut answer)).await.expect("read"), 0);
        let head = gateway.heads().pop().expect("it arrived");
        let asked = if path == "/" { "/api/ws" } else { path };
        assert!(head.starts_with(&format!("GET {asked} HTTP/1.1\r\n")), "{head}");
        let lines = [
            "host: chat.example.org",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-protocol: corecast.v1",
        ];
        for line in lines {
            assert!(has_line(&head, line), "{line} in {head}");
        }
    }
}

#[tokio::test]
async fn pushes_of_other_systems_reach_logic_by_one_path_only() {
    if !installed() {
        return;
    }
    let (gateway, logic) =
        (Upstream::listen(Manners::Answers).await, Upstream::listen(Manners::Answers).await);
    let nginx = Nginx::start(&[gateway.addr], &[logic.addr]);
    for path in ["/api/v1/push", "/logic/../api/v1/push", "/api//v1/%70ush"] {
        raw_post(nginx.addr, path).await;
        let head = logic.heads().pop().expect("it arrived");
        assert!(head.starts_with("POST /api/v1/push HTTP/1.1\r\n"), "{path}: {head}");
    }
    let before = logic.heads().len();
    for path in
        ["/logic/send", "/api/v1/push/more", "/api/v1/push/../../../logic/send", "/api/v1/../../logic/send"]
    {
        raw_post(nginx.addr, path).await;
        assert_eq!(logic.heads().len(), before, "{path}");
    }
}

/// Exactly this path, which an HTTP client would tidy up. Waits for the answer.
async fn raw_post(nginx: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(nginx).await.expect("nginx listens");
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    in_time("the answer", stream.read_to_end(&mut answer)).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 "));
}

#[tokio::test]
async fn the_sample_with_tls_is_a_configuration_that_nginx_takes() {
    if !installed() {
        return;
    }
    let nginx = Nginx::start(&[nobody()], &[nobody()]);
    let conf = nginx.folder.path().join("conf");
    let (certificate, key) = (conf.join("fullchain.pem"), conf.join("privkey.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=corecast.example.org",
    ]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    if !openssl.output().is_ok_and(|output| output.status.success()) {
        println!("not run: openssl is not there");
        return;
    }
    let change = |file: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(file).expect("the copy of a sample");
        assert!(text.contains(from), "{} has no {from:?}", file.display());
        std::fs::write(file, text.replace(from, to)).expect("ours");
    };
    change(&conf.join("nginx.conf"), "# include tls.conf;", "include tls.conf;");
    change(&conf.join("tls.conf"), "/etc/nginx/tls", conf.to_str().expect("a plain path"));
    let output = Command::new("nginx")
        .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
        .args(["-t", "-p"])
        .arg(nginx.folder.path())
        .arg("-c")
        .arg(conf.join("nginx.conf"))
        .arg("-e")
        .arg(nginx.folder.path().join("error.log"))
        .output()
        .expect("nginx is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
