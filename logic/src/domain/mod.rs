//! The rules of accounts, sessions, rooms and messages. Pure: no I/O, no clock, no runtime.
//! Time arrives as an argument, randomness is drawn by the caller; a test scans these files
//! for names that would break that.
//!
//! | module | what |
//! |---|---|
//! | [`account`] | names, emails, passwords: limits and the folded forms that decide uniqueness |
//! | [`session`] | session ids, their hash, expiry and when it slides, the cookie |
//! | [`message`] | what a client frame may hold |
//! | [`room`] | names and ids of rooms, kinds on the wire |
//! | [`frames`] | rows to browser frames, cut to size |
//! | [`hello`] | how the rooms of a hello share its size |
//! | [`page`] | which page of history may be believed |

pub mod account;
pub mod frames;
pub mod hello;
pub mod message;
pub mod page;
pub mod room;
pub mod session;
