//! The chaos campaign: many clients talk through the front door while parts of the system are
//! killed, paused and cut off by a seeded schedule; at the end everything that every client
//! saw, and everything that is stored, is held against what was acknowledged.
//!
//! | module | what |
//! |---|---|
//! | [`command`] | the command line, and the report that is kept |
//! | [`campaign`] | the course: talk, hurt, mend, look |
//! | [`schedule`] | which faults, drawn from the seed |
//! | [`system`] [`links`] | what is hurt, and how: `scripts/cluster` or one `corecast up` |
//! | [`crowd`] | accounts, rooms, who says what when |
//! | [`client`] [`session`] [`frames`] | one client: its sockets, its decisions, its frames |
//! | [`ledger`] | what all of them count |
//! | [`audit`] | the store, read back through history |
//! | [`judge`] | the limits |
//! | [`report`] [`chart`] | the outcome for people |
//!
//! The clients share this process with the schedule: it asks for correctness, not for speed.

pub mod audit;
pub mod campaign;
pub mod chart;
pub mod client;
pub mod command;
pub mod crowd;
pub mod frames;
pub mod judge;
pub mod ledger;
pub mod links;
pub mod report;
pub mod schedule;
pub mod session;
pub mod system;
