//! A session for an account that exists.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::logic::{LoginRequest, SessionReply};
use corecast_proto::refusal::Code;

use super::Service;
use crate::domain::account;
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Opens a session. An unknown email is refused like a wrong password, and as slowly.
    ///
    /// # Errors
    /// `LOGIN_FAILED`, `BAD_INPUT`; unavailable.
    ///
    /// # Cancel safety
    /// A dropped call may leave a session that nobody holds; it expires.
    pub async fn login(&self, request: LoginRequest) -> Result<SessionReply, Failure> {
        let email_folded = account::login(&request.email, &request.password)?;
        let user = self.ask(self.store.user_by_email(&email_folded)).await?;
        let phc = user.as_ref().map(|user| user.password_hash.clone());
        let matches = self.passwords.verify(request.password, phc).await?;
        match user {
            Some(user) if matches => self.open_session(user).await,
            _ => Err(Code::LoginFailed.with(account::LOGIN_FAILED).into()),
        }
    }

    /// Makes the first login for an unknown email as quick as the later ones.
    ///
    /// # Errors
    /// Unavailable when all cores hash and too many wait.
    pub async fn warm_up(&self) -> Result<(), Failure> {
        self.passwords.warm_up().await
    }
}
