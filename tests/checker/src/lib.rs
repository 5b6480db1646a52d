//! Judges a run: which messages were lost, duplicated, reordered, or left a gap.
//!
//! A test hands everything it sends and every frame a client sees to a [`Recorder`], and
//! at the end asks it for a [`Verdict`]. The checker knows the contract and nothing of the
//! product: it depends on no crate of ours.
//!
//! | module | what |
//! |---|---|
//! | [`recorder`] | what a test tells: connections, offers, frames |
//! | [`line`] | one client in one room: what it holds, what broke its order |
//! | [`verdict`] | the counts and the details |
//!
//! # What is judged
//! * *lost*: acknowledged, and a client that is connected at the end and was a member
//!   before never saw it; or nobody ever saw it.
//! * *duplicated*: a connection got a number twice, or one it said it has; or one offer
//!   was stored under two numbers.
//! * *reordered*: a number came after a higher one; or two messages of one connection were
//!   numbered against the order they were sent in.
//! * *gaps*: runs of numbers that a client never got, below one it got.
//! * *conflicting*: two answers about one message differ (id, content, author, number).
//!
//! A `cut` is no loss: the server says that numbers are left out, and they can be paged.
//! What a client did not page is counted as *uncaught*, which spoils no verdict by itself.
//!
//! # What a test must do
//! Give every offer a content of its own: that is how an offer is found again when its
//! acknowledgement was lost.

pub mod line;
pub mod recorder;
pub mod verdict;

pub use recorder::{Connection, Recorder};
pub use verdict::Verdict;
