//! A wire between a store and its server that can be cut at the worst moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the next COMMIT that comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum AtCommit {
    /// It passes.
    Pass,
    /// The connection is cut before the server hears of it.
    CutBefore,
    /// The server commits; its answer is swallowed and the connection cut.
    CutAfter,
    /// Nothing passes any more, and nobody is told: as when a node vanishes.
    Freeze,
}

impl AtCommit {
    fn of(byte: u8) -> Self {
        [Self::Pass, Self::CutBefore, Self::CutAfter, Self::Freeze][usize::from(byte)]
    }
}

/// A TCP proxy on loopback. Ends with the runtime of the test.
pub(super) struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    at_commit: AtomicU8,
    refuses: AtomicBool,
    frozen: AtomicBool,
}

impl Proxy {
    pub(super) async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let addr = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if accepting.refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(relay(client, upstream, Arc::clone(&accepting)));
            }
        });
        Self { addr, state }
    }

    pub(super) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Once, at the next COMMIT.
    pub(super) fn at_commit(&self, what: AtCommit) {
        self.state.at_commit.store(what as u8, Ordering::SeqCst);
    }

    /// Closes new connections at once, or no longer.
    pub(super) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut cut_at_answer = false;
    loop {
        if state.frozen.load(Ordering::SeqCst) {
            // Both ends stay open.
            return std::future::pending().await;
        }
        tokio::select! {
            read = client.read(&mut up) => {
                let count = read.unwrap_or(0);
                if count == 0 {
                    return;
                }
                if up[..count].windows(6).any(|window| window == b"COMMIT") {
                    match AtCommit::of(state.at_commit.swap(AtCommit::Pass as u8, Ordering::SeqCst)) {
                        AtCommit::Pass => {}
                        AtCommit::CutBefore => return,
                        AtCommit::CutAfter => cut_at_answer = true,
                        AtCommit::Freeze => {
                            state.frozen.store(true, Ordering::SeqCst);
                            continue;
                        }
                    }
                }
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let count = read.unwrap_or(0);
                if count == 0 || cut_at_answer || client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
