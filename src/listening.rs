//! Where everything really listens: on stdout, one line each, in a form that scripts and
//! tests read. Never changed without a word in the changelog.
//!
//! ```text
//! listening tier=gateway kind=http addr=127.0.0.1:40123
//! ```

use std::io::Write;
use std::net::SocketAddr;

use corecast_gateway::control::Gateway;
use corecast_logic::Logic;

/// Says where a gateway listens.
pub fn gateway(gateway: &Gateway) {
    line("gateway", "http", gateway.http_addr());
    line("gateway", "grpc", gateway.grpc_addr());
    line("gateway", "metrics", gateway.metrics_addr());
}

/// Says where a logic node listens.
pub fn logic(logic: &Logic) {
    line("logic", "http", logic.http_addr());
    line("logic", "grpc", logic.grpc_addr());
}

/// Says where a job listens.
pub fn job(http_addr: SocketAddr) {
    line("job", "http", http_addr);
}

/// The URL a person opens.
pub fn url(http_addr: SocketAddr) -> String {
    let ip = http_addr.ip();
    match ip.is_unspecified() || ip.is_loopback() {
        true => format!("http://localhost:{}", http_addr.port()),
        false => format!("http://{http_addr}"),
    }
}

/// One line of stdout, at once. A reader that went away is no reason to end.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn line(tier: &str, kind: &str, addr: SocketAddr) {
    say(&format!("listening tier={tier} kind={kind} addr={addr}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_names_a_host_that_a_browser_can_open() {
        let at = |addr: &str| url(addr.parse().unwrap());
        assert_eq!(at("0.0.0.0:8080"), "http://localhost:8080");
        assert_eq!(at("127.0.0.1:40123"), "http://localhost:40123");
        assert_eq!(at("[::]:8080"), "http://localhost:8080");
        assert_eq!(at("192.0.2.1:80"), "http://192.0.2.1:80");
    }
}
