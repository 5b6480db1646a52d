//! Whole-system tests: the real binary, real sockets, clients that share no code with it.
//!
//! | module | promise |
//! |---|---|
//! | [`accounts`] | CONTRACT §2: register, log in, log out |
//! | [`upgrade`] | CONTRACT §2: who gets a WebSocket, and how the others are told |
//! | [`chat`] | CONTRACT §3: what two people see of each other |
//! | [`rooms`] | CONTRACT §3, §9: rooms appear, are joined and left |
//! | [`history`] | CONTRACT §3: paging to the very first message |
//! | [`refusals`] | CONTRACT §3, DESIGN §8: what is refused, and what survives it |
//! | [`resume`] | CONTRACT §9: `corecast.v1` |
//! | [`keys`] | one message per `clientMessageId`, however often it is sent |
//! | [`logic_http`] | CONTRACT §4 |
//! | [`pushes`] | CONTRACT §1: `ChatRoom.Comet.Comet` through reflection |
//! | [`delivery`] | DESIGN §3: everything arrives once and in order, whatever the fast path does |
//! | [`crash`] | an ack survives `kill -9`; the start is fast; writes are few |
//! | [`epoch`] | `store new-epoch` voids what clients hold |
//! | [`gateways`] | DESIGN §3.6: what job owes a gateway that is slow or away |
//! | [`interest`] | DESIGN §5: job leaves out what a gateway has no members for, and nobody notices |
//! | [`leases`] | DESIGN §3.6, §3.11: whatever etcd says or does not say, nothing is lost |
//! | [`apart`] | every tier as processes of its own, on the real engines |
//! | [`clocks`] | DESIGN §3.2, §4: two logic nodes whose database clocks differ write one room |
//! | [`drain`] | SIGTERM loses nothing |
//! | [`slow_reader`] | DESIGN §3.7: who does not read is set aside, catches up, and delays nobody |
//! | [`outage`] | a tier that is away degrades, it does not corrupt |
//! | [`redis`] | DESIGN §3.11: Redis may die and come back under people who talk |
//! | [`operations`] | metrics, health, log words, configuration, a kernel without io_uring |
//!
//! One test: `cargo test --test system chat::two_users`.

#[allow(unreachable_pub, reason = "a test binary has no outside; `pub` says what the tests may use")]
mod support;

mod accounts;
mod apart;
mod chat;
mod clocks;
mod crash;
mod delivery;
mod drain;
mod epoch;
mod gateways;
mod history;
mod interest;
mod keys;
mod leases;
mod logic_http;
mod operations;
mod outage;
mod pushes;
mod redis;
mod refusals;
mod resume;
mod rooms;
mod slow_reader;
mod upgrade;
