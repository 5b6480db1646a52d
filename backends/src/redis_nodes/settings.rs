//! A URL says where Redis is and how it is used.
//!
//! ```text
//! redis://[user:password@]host:port[/db][?prefix=…&timeout_ms=…]
//! redis-cluster://[user:password@]host:port,host:port[?prefix=…&timeout_ms=…]
//! ```

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo};

/// What every key and channel begins with unless the URL says otherwise.
const PREFIX: &str = "corecast:";
const TIMEOUT: Duration = Duration::from_millis(300);
/// A connection that is not there after this is given up.
const CONNECT: Duration = Duration::from_secs(1);
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=10_000;
const PORT: u16 = 6379;

/// Where Redis is and how it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `host:port`, at least one; of a cluster some of its nodes, the others are found.
    pub addresses: Vec<String>,
    /// A Redis Cluster?
    pub cluster: bool,
    /// `None`: the default user.
    pub username: Option<String>,
    /// `None`: no authentication.
    pub password: Option<String>,
    /// Number of the database; 0 in a cluster.
    pub db: i64,
    /// What every key and channel begins with. Default `corecast:`.
    pub prefix: String,
    /// How long things may take.
    pub timeouts: RedisTimeouts,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisTimeouts {
    /// One command, 10 ms to 10 s. Default 300 ms. More makes a request wait longer in the
    /// moment Redis dies; less mistakes a busy machine for a dead one.
    pub call: Duration,
    /// A connection with its greeting: 1 s, or `call` where that is more.
    pub connect: Duration,
}

impl Default for RedisTimeouts {
    fn default() -> Self {
        Self { call: TIMEOUT, connect: CONNECT }
    }
}

// Without the password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("addresses", &self.addresses)
            .field("cluster", &self.cluster)
            .field("db", &self.db)
            .field("prefix", &self.prefix)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that says what is wrong; it never holds the password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or("expected redis://host:port or redis-cluster://…")?;
        let cluster = match scheme {
            "redis" => false,
            "redis-cluster" => true,
            _ => return Err("expected redis:// or redis-cluster://".to_owned()),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (hosts, db) = place.split_once('/').unwrap_or((place, ""));
        let (username, password) = credentials(login)?;
        let db = match db {
            "" => 0,
            text => text.parse().ok().filter(|db| *db >= 0).ok_or("the database must be a number")?,
        };
        if cluster && db != 0 {
            return Err("a cluster has database 0 only".to_owned());
        }
        let addresses: Vec<String> = hosts.split(',').map(address).collect::<Result<_, _>>()?;
        if !cluster && addresses.len() != 1 {
            return Err("several servers are redis-cluster://host:port,host:port".to_owned());
        }
        let mut settings = Self {
            addresses,
            cluster,
            username,
            password,
            db,
            prefix: PREFIX.to_owned(),
            timeouts: RedisTimeouts::default(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "prefix" => {
                // Braces would decide the slot of every key.
                if value.contains(['{', '}']) || value.len() > 64 {
                    return Err("prefix must be at most 64 bytes without braces".to_owned());
                }
                self.prefix = decoded(value)?;
            }
            "timeout_ms" => {
                let ms = value.parse().ok().filter(|ms| TIMEOUT_MS.contains(ms));
                let ms = ms.ok_or(format!("timeout_ms must be {TIMEOUT_MS:?}"))?;
                self.timeouts.call = Duration::from_millis(ms);
                self.timeouts.connect = CONNECT.max(self.timeouts.call);
            }
            _ => return Err(format!("unknown setting {name:?}, allowed: prefix, timeout_ms")),
        }
        Ok(())
    }

    /// How the library connects to one of the addresses. `resp3`: with push messages.
    pub(crate) fn connection_info(&self, address: &str, resp3: bool) -> Result<ConnectionInfo, String> {
        let (host, port) = address.rsplit_once(':').ok_or("an address is host:port")?;
        let port = port.parse().map_err(|_| "an address is host:port")?;
        let mut redis = RedisConnectionInfo::default().set_db(self.db).set_skip_set_lib_name();
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        if resp3 {
            redis = redis.set_protocol(ProtocolVersion::RESP3);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let info =
            ConnectionAddr::Tcp(host, port).into_connection_info().map_err(|error| error.to_string())?;
        // Without it a small command waits for the answer to the one before.
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(info.set_redis_settings(redis).set_tcp_settings(tcp))
    }
}

fn credentials(login: &str) -> Result<(Option<String>, Option<String>), String> {
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let given = |text: &str| match text {
        "" => Ok(None),
        text => decoded(text).map(Some),
    };
    Ok((given(username)?, given(password)?))
}

fn address(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not host:port");
    // The colons of an IPv6 address stand in brackets.
    let has_port =
        text.rsplit_once(':').is_some_and(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    let (host, port) = match has_port {
        true => text.rsplit_once(':').ok_or_else(wrong)?,
        false => (text, ""),
    };
    let port = if port.is_empty() { PORT } else { port.parse().map_err(|_| wrong())? };
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

/// `%41` → `A`.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("% must be followed by two hexadecimal digits")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "what % stands for must be UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> RedisSettings {
        RedisSettings::parse(url).expect("accepted")
    }

    #[test]
    fn a_url_without_more_has_the_defaults() {
        let settings = parsed("redis://h");
        assert_eq!((settings.addresses, settings.db), (vec!["h:6379".to_owned()], 0));
        assert_eq!((settings.prefix.as_str(), settings.cluster), ("corecast:", false));
        assert_eq!((settings.username, settings.password), (None, None));
    }

    #[test]
    fn a_url_may_say_everything() {
        let settings = parsed("redis://me:p%40ss:w@[::1]:7/3?prefix=a:b:&timeout_ms=500");
        assert_eq!(settings.addresses, ["[::1]:7"]);
        assert_eq!(
            (settings.username.as_deref(), settings.password.as_deref()),
            (Some("me"), Some("p@ss:w"))
        );
        assert_eq!((settings.db, settings.prefix.as_str()), (3, "a:b:"));
        assert_eq!(settings.timeouts.call, Duration::from_millis(500));
        assert_eq!(parsed("redis://:x@h").password.as_deref(), Some("x"));
        assert_eq!(parsed("redis-cluster://a:1,b:2").addresses, ["a:1", "b:2"]);
    }

    #[test]
    fn the_password_is_not_printed() {
        let text = format!("{:?}", parsed("redis://:s3cret@h"));
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for url in [
            "redis:",
            "redis://",
            "redis://h:x",
            "redis://h/x",
            "redis://h/-1",
            "redis://a,b",
            "redis://h?x=1",
            "redis://h?timeout_ms=9",
            "redis://h?timeout_ms=10001",
            "redis://h?prefix={a}",
            "rediss://h",
            "redis-cluster://h/1",
            "redis-cluster://a,,b",
            "redis://:%4@h",
            "redis://:%zz@h",
        ] {
            assert!(RedisSettings::parse(url).is_err(), "{url}");
        }
        assert!(RedisSettings::parse("redis://h?timeout_ms=10").is_ok());
        assert!(RedisSettings::parse("redis://h?timeout_ms=10000").is_ok());
    }
}
