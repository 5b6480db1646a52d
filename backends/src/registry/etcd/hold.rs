//! A key bound to a lease: taking it, keeping it, giving it up.
//!
//! ```text
//!  grant ─▶ key free? ─▶ put with lease ─▶ every third of its time: renew, is the key still ours? ─▶ revoke
//!               │                                   │ no answer: ask on, the lease lives on in etcd
//!               └─ another's: Hold::Another         └ the lease or the key is gone: lost
//! ```

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::endpoints::Endpoints;
use crate::registry::{Lease, RegistryError};

/// gRPC's code of a lease that is gone.
const NOT_FOUND: i32 = 5;

/// A key that is wanted.
pub(super) struct Taking {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) ttl: Duration,
    pub(super) takeover: Takeover,
    pub(super) loss: Loss,
}

/// May a key that has a holder be taken?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takeover {
    /// Never.
    Never,
    /// From a holder with the very same value: the place of a predecessor at our address.
    SameValue,
}

/// When a lease counts as lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// When etcd says so. While it is unreachable nobody else can take the place either.
    WhenTold,
    /// Also when it was not renewed for its whole time.
    ByTheClockToo,
}

/// Who has the key.
pub(super) enum Hold {
    /// We, until the lease is dropped or lost.
    Ours(Lease),
    /// Somebody else, with this value.
    Another(Vec<u8>),
}

/// The outcome of one try.
enum Try {
    Ours,
    Another(KeyValue),
}

impl Taking {
    /// Takes the key if it may be taken.
    ///
    /// # Errors
    /// No address answered. The key may be ours; it ends with its lease then.
    pub(super) async fn take(self) -> Result<Hold, RegistryError> {
        let asked = Instant::now();
        let seconds = self.ttl.as_secs().max(1) as i64;
        let granted =
            self.endpoints.call(|client| async move { client.lease_client().grant(seconds, None).await });
        let lease = granted.await?.id();
        let taken = self.endpoints.call(|client| self.try_key(client, lease)).await;
        match taken {
            Ok(Try::Ours) => Ok(Hold::Ours(self.keep(lease, asked))),
            Ok(Try::Another(entry)) => {
                revoke(&self.endpoints, lease).await;
                Ok(Hold::Another(entry.value().to_vec()))
            }
            Err(error) => {
                revoke(&self.endpoints, lease).await;
                Err(error)
            }
        }
    }

    async fn try_key(&self, client: Client, lease: i64) -> Result<Try, Error> {
        let mut kv = client.kv_client();
        let key = self.key.as_str();
        let mut condition = Compare::create_revision(key, CompareOp::Equal, 0);
        loop {
            let put = TxnOp::put(key, self.value.as_slice(), Some(PutOptions::new().with_lease(lease)));
            let txn = Txn::new().when([condition]).and_then([put]).or_else([TxnOp::get(key, None)]);
            let answer = kv.txn(txn).await?;
            if answer.succeeded() {
                return Ok(Try::Ours);
            }
            let found = answer.op_responses().into_iter().find_map(|answer| match answer {
                TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
                _ => None,
            });
            condition = match found {
                // It was ours already: an earlier try arrived though its answer did not.
                Some(entry) if entry.lease() == lease => return Ok(Try::Ours),
                Some(entry) if self.takeover == Takeover::SameValue && entry.value() == self.value => {
                    info!(key, "a predecessor at the same address is replaced");
                    Compare::mod_revision(key, CompareOp::Equal, entry.mod_revision())
                }
                Some(entry) => return Ok(Try::Another(entry)),
                // Gone meanwhile.
                None => Compare::create_revision(key, CompareOp::Equal, 0),
            };
        }
    }

    fn keep(self, lease: i64, renewed: Instant) -> Lease {
        let (tell, lost) = watch::channel(false);
        let released = CancellationToken::new();
        let keeper = Keeper {
            endpoints: self.endpoints,
            key: self.key,
            lease,
            ttl: self.ttl,
            loss: self.loss,
            renewed,
            released: released.clone(),
        };
        let kept = tokio::spawn(keeper.drive(tell));
        Lease::new(lost, move || {
            released.cancel();
            Some(kept)
        })
    }
}

/// Renews a lease until it is lost or given up.
struct Keeper {
    endpoints: Arc<Endpoints>,
    key: String,
    lease: i64,
    ttl: Duration,
    loss: Loss,
    /// When the last renewal that arrived was asked for.
    renewed: Instant,
    released: CancellationToken,
}

impl Keeper {
    async fn drive(mut self, tell: watch::Sender<bool>) {
        let mut told = false;
        let mut next = Instant::now() + self.ttl / 3;
        loop {
            let asked = Instant::now().max(next);
            let renewal = async {
                sleep_until(next).await;
                self.renew().await
            };
            let end = self.renewed + self.ttl;
            let answer = tokio::select! {
                () = self.released.cancelled() => break,
                answer = renewal => Some(answer),
                () = sleep_until(end), if self.loss == Loss::ByTheClockToo => None,
            };
            let mut pause = self.ttl / 3;
            match answer {
                Some(Ok(true)) => {
                    self.renewed = asked;
                    if std::mem::take(&mut told) {
                        info!(key = self.key, "lease renewed again");
                    }
                }
                Some(Ok(false)) => {
                    warn!(key = self.key, "lease lost: its time was over, or another has the place");
                    tell.send_replace(true);
                    break;
                }
                Some(Err(error)) => {
                    // Several tries while the lease lives.
                    pause = self.ttl / 10;
                    if !std::mem::replace(&mut told, true) {
                        warn!(key = self.key, %error, "lease cannot be renewed, trying on");
                    }
                }
                None => {
                    warn!(key = self.key, "lease not renewed for its whole time: given up");
                    tell.send_replace(true);
                    break;
                }
            }
            next = Instant::now() + pause;
        }
        revoke(&self.endpoints, self.lease).await;
    }

    /// Is the lease renewed and the key still bound to it?
    async fn renew(&self) -> Result<bool, RegistryError> {
        let (key, lease) = (self.key.as_str(), self.lease);
        self.endpoints
            .call(|client| async move {
                match client.lease_client().keep_alive(lease).await {
                    Ok(_) => {}
                    Err(Error::LeaseKeepAliveError(_)) => return Ok(false),
                    Err(error) => return Err(error),
                }
                let answer = client.kv_client().get(key, None).await?;
                Ok(answer.kvs().first().is_some_and(|entry| entry.lease() == lease))
            })
            .await
    }
}

/// Ends a lease and with it its key. Where that fails it ends by itself.
async fn revoke(endpoints: &Endpoints, lease: i64) {
    let revoked = endpoints.call(|client| async move {
        match client.lease_client().revoke(lease).await {
            Err(Error::GRpcStatus(status)) if i32::from(status.code()) == NOT_FOUND => Ok(()),
            answer => answer.map(drop),
        }
    });
    // The next one to want the key is told who has it.
    let _ = revoked.await;
}
