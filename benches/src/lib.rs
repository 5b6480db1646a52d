//! The yardstick: how near the gateway is to what the kernel allows, and how far from what
//! one writes in an afternoon.
//!
//! | module | what |
//! |---|---|
//! | [`load`] | the client: thousands of connections a thread, each one checked |
//! | [`floor`] [`baseline`] | what the gateway is compared with |
//! | [`subject`] | starts any of the three, and how messages enter it |
//! | [`probe`] | a process with one connection, to see how long others wait |
//! | [`scenarios`] | one question each |
//! | [`measure`] | CPU, counters and the verdict over one run |
//! | [`chaos`] | the campaign: is anything lost when parts of a cluster die? |
//! | [`figures`] | latency and throughput of the whole system |
//! | [`report`] [`chart`] | rounds to one table and its pictures |
//! | [`control`] [`wire`] [`http`] [`procfs`] [`clock`] [`sockmem`] [`sys`] | what they stand on |

pub mod baseline;
pub mod chaos;
pub mod chart;
pub mod clock;
pub mod control;
pub mod figures;
pub mod floor;
pub mod http;
pub mod load;
pub mod measure;
pub mod probe;
pub mod procfs;
pub mod report;
pub mod scenarios;
pub mod sockmem;
pub mod subject;
pub mod sys;
pub mod wire;
