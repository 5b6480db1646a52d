//! corecast: a WebSocket push system in three tiers, in one process or in many.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the commands |
//! | [`config`] | one file, the environment, flags; wrong keys name the right one |
//! | [`up`] | all tiers in one process on the embedded backends |
//! | [`tier`] | one tier in a process of its own |
//! | [`store_cmd`] | maintenance of the store |
//! | [`doctor`] | looks at what a node needs |
//! | [`node_id`] | ids of nodes that were given none |
//! | [`signals`] | the first ends gracefully, the second at once |
//! | [`telemetry`] | logs, on stderr |
//! | [`listening`] | real addresses, on stdout |

pub mod cli;
pub mod config;
pub mod doctor;
pub mod listening;
pub mod node_id;
pub mod signals;
pub mod store_cmd;
pub mod telemetry;
pub mod tier;
pub mod up;
