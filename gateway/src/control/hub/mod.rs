//! The shell around [`Lines`](crate::core::lines::Lines): one task owns every line of this
//! gateway, so that commands of a room reach a core in one order.
//!
//! | module | what |
//! |---|---|
//! | [`handle`](self) | what others call: [`Hub`] |
//! | [`task`] | the loop: messages in, actions out |
//! | [`interest`] | which rooms job has to send |
//! | [`openings`] | connections on their way in: hello and join |
//! | [`reads`] | what is read from logic, off the loop |

mod handle;
mod interest;
mod openings;
mod reads;
mod task;

pub(super) use interest::InterestBoard;

pub use handle::{Hub, HubGone, HubParts, JoinError, JoinReply, NumberedFrame};
