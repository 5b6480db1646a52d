//! Whole-system tests on the real engines: `scripts/cluster up`, every tier twice, MariaDB,
//! Redis, Kafka, etcd, and nginx in front of it all.
//!
//! | module | promise |
//! |---|---|
//! | [`chat`] | any gateway, any logic node, any job: everybody sees everything once and in order |
//! | [`outage`] | a killed gateway is replaced by the other; down and up lose nothing |
//! | [`paths`] | what nginx forwards, and what it never does |
//! | [`proxy`] | what nginx does with a request: headers, fail-over, no POST twice |
//!
//! They run where `scripts/with-middleware` says so, and say so where they do not:
//! `scripts/with-middleware cargo test --test cluster`. All use one cluster, in turn, on free
//! ports; it is deleted when this process ends, however it ends.

#[path = "../system/support/mod.rs"]
#[allow(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "what the tests of one process share; these use a part of it"
)]
mod support;

mod stand;

mod chat;
mod outage;
mod paths;
mod proxy;
