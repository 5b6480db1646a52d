//! A new account, with its first session.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{CreateUser, NewUser, Store, User};
use corecast_proto::logic::{RegisterRequest, SessionReply};
use corecast_proto::refusal::Code;

use super::{Service, now_ms};
use crate::domain::account;
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Creates the account and opens a session. Usernames and emails are unique without
    /// regard to case; when both are taken the username is reported.
    ///
    /// # Errors
    /// `BAD_INPUT`, `USERNAME_EXISTS`, `EMAIL_EXISTS`; unavailable: the account may exist
    /// now, so this is not to be repeated blindly.
    ///
    /// # Cancel safety
    /// A dropped call may have created the account.
    pub async fn register(&self, request: RegisterRequest) -> Result<SessionReply, Failure> {
        let accepted = account::registration(&request.username, &request.email, &request.password)?;
        let hashed = self.passwords.hash(request.password).await?;
        let user = User {
            user_id: uuid::Uuid::new_v4().to_string(),
            username: accepted.username,
            email: accepted.email,
            password_hash: hashed.phc,
        };
        let new_user = NewUser {
            user_id: user.user_id.clone(),
            username: user.username.clone(),
            username_folded: accepted.username_folded,
            email: user.email.clone(),
            email_folded: accepted.email_folded,
            password_hash: user.password_hash.clone(),
            salt: hashed.salt,
            now_ms: now_ms(),
        };
        match self.ask(self.store.create_user(new_user)).await? {
            CreateUser::Created => self.open_session(user).await,
            CreateUser::UsernameExists => Err(Code::UsernameExists.with("username already exists").into()),
            CreateUser::EmailExists => Err(Code::EmailExists.with("email already exists").into()),
        }
    }
}
