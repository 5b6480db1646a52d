//! The end of a session.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::logic::{LogoutReply, LogoutRequest};

use super::Service;
use crate::domain::session;
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Ends a session at once, on every node: the row first, then a tombstone in the cache
    /// that a fill still under way elsewhere cannot replace. One that does not exist is
    /// ended already.
    ///
    /// # Errors
    /// Unavailable: the session may live on; ask again.
    ///
    /// # Cancel safety
    /// A dropped call may have ended the session; ask again.
    pub async fn logout(&self, request: LogoutRequest) -> Result<LogoutReply, Failure> {
        if session::is_sid(&request.sid) {
            let hash = session::hash(&request.sid);
            self.ask(self.store.delete_session(hash)).await?;
            self.hot(self.hotset.revoke_session(&hash)).await;
        }
        Ok(LogoutReply {})
    }
}
