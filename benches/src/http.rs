//! Plain HTTP requests, one connection each: accounts, readiness, metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// An answer, read to its end.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    head: String,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The session of its `Set-Cookie`.
    ///
    /// # Errors
    /// There is none.
    pub fn sid(&self) -> Result<String> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"));
        let sid = line.and_then(|line| line.split_once("sid=")?.1.split(';').next());
        sid.map(str::to_owned).with_context(|| format!("no session in {} {}", self.status, self.body))
    }
}

/// GET.
///
/// # Errors
/// No answer within [`PATIENCE`].
pub fn get(addr: SocketAddr, path: &str) -> Result<Answer> {
    exchange(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

/// POST with a JSON body.
///
/// # Errors
/// No answer within [`PATIENCE`].
pub fn post(addr: SocketAddr, path: &str, body: &serde_json::Value) -> Result<Answer> {
    let body = body.to_string();
    let length = body.len();
    exchange(
        addr,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Asks until the answer is 200.
///
/// # Errors
/// It was not within [`PATIENCE`].
pub fn wait_for_200(addr: SocketAddr, path: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        match get(addr, path) {
            Ok(answer) if answer.status == 200 => return Ok(()),
            _ if start.elapsed() > PATIENCE => bail!("{addr}{path} does not answer 200"),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Sum over all labels of a metric in Prometheus text; 0 when it is not there.
pub fn sum_of(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        (rest.starts_with('{') || rest.starts_with(' '))
            .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    lines.sum()
}

fn exchange(addr: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    let text = String::from_utf8_lossy(&raw);
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length.trim(), 16) else { break };
        let Some(chunk) = rest.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
        whole += chunk;
        body = rest.get(length + 2..).unwrap_or_default();
    }
    whole
}

/// Time a request may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels_and_not_over_longer_names() {
        let text = "# TYPE writes counter\nwrites{shard=\"0\"} 3\nwrites{shard=\"1\"} 4\nwrites_short{shard=\"0\"} 9\nplain 2\n";
        assert_eq!(sum_of(text, "writes"), 7.0);
        assert_eq!(sum_of(text, "plain"), 2.0);
        assert_eq!(sum_of(text, "absent"), 0.0);
    }

    #[test]
    fn chunks_become_one_body() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
