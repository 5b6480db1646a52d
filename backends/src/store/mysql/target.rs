//! Where the database is, and what its sessions are told.
//!
//! `mysql://user:password@host:port/database`, with percent-encoding in each part. After `?`:
//!
//! | parameter | |
//! |---|---|
//! | `init=SQL` | run on each new connection, after our own settings |
//! | `begin=SQL` | run before each transaction that writes |
//!
//! Both are for tests and trials; statements are separated by `;`. With
//! `begin=SET timestamp = UNIX_TIMESTAMP(SYSDATE(3)) - 0.3` a node's clock of the database runs
//! 300 ms behind: `SET timestamp` stops the session's clock, so it is set anew each time.

use mysql_async::{Opts, OptsBuilder};

/// Statements kept prepared per connection; there are fewer than this.
const STATEMENTS: usize = 256;

/// A database and how to talk to it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) opts: Opts,
    pub(super) database: String,
    pub(super) init: Option<String>,
    pub(super) begin: Option<String>,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, without the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut init, mut begin) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "init" => init = Some(value),
                "begin" => begin = Some(value),
                other => return Err(format!("unknown parameter {other:?}, known: init, begin")),
            }
        }
        let opts = Opts::from_url(place)
            .map_err(|_| "expected mysql://user:password@host:port/database".to_owned())?;
        let database = match opts.db_name() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => return Err("names no database: mysql://user:password@host:port/database".to_owned()),
        };
        let opts = OptsBuilder::from_opts(opts)
            // A socket beside the port would go around whatever stands before the port.
            .prefer_socket(false)
            .tcp_nodelay(true)
            .stmt_cache_size(STATEMENTS);
        Ok(Self { opts: opts.into(), database, init, begin })
    }

    /// The same server, without a database.
    pub(super) fn server(&self) -> Opts {
        OptsBuilder::from_opts(self.opts.clone()).db_name(None::<String>).into()
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()];
                let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else {
                    return Err("% must be followed by two hexadecimal digits".to_owned());
                };
                bytes.push((high * 16 + low) as u8);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a parameter is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target =
            Target::parse("mysql://me:p%40ss@h:3307/db?init=SET+a%3D1&begin=DO%201").expect("parses");
        assert_eq!((target.opts.user(), target.opts.pass()), (Some("me"), Some("p@ss")));
        assert_eq!((target.opts.ip_or_hostname(), target.opts.tcp_port()), ("h", 3307));
        assert_eq!(target.database, "db");
        assert_eq!((target.init.as_deref(), target.begin.as_deref()), (Some("SET a=1"), Some("DO 1")));
        assert_eq!(target.server().db_name(), None);
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in [
            "mysql://me:secret@h:1",
            "mysql://me:secret@h/",
            "postgres://me:secret@h/db",
            "mysql:db",
            "mysql://me:secret@h/db?unknown=secret",
            "mysql://me:secret@h/db?init=%4",
        ] {
            let refusal = Target::parse(url).expect_err(url);
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }
}
