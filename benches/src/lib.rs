//! The yardstick: how near the gateway is to what the kernel allows, and how far from what
//! one writes in an afternoon.
//!
//! | module | what |
//! |---|---|
//! | [`load`] | the client: thousands of connections a thread, each one checked |
//! | [`floor`] [`baseline`] | what the gateway is compared with |
//! | [`subject`] | starts any of the three, and how messages enter it |
//! | [`scenarios`] | one question each |
//! | [`measure`] | CPU, counters and the verdict over one run |
//! | [`report`] | rounds to one table |
//! | [`control`] [`wire`] [`http`] [`procfs`] [`clock`] [`sys`] | what they stand on |

pub mod baseline;
pub mod clock;
pub mod control;
pub mod floor;
pub mod http;
pub mod load;
pub mod measure;
pub mod procfs;
pub mod report;
pub mod scenarios;
pub mod subject;
pub mod sys;
pub mod wire;
