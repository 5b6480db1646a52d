//! What crosses a wire. Depends on nothing of ours.
//!
//! | module | what |
//! |---|---|
//! | [`protocol`] [`comet`] [`job`] | the public protobuf packages `ChatRoom.*` |
//! | [`logic`] [`push`] | ours: gateway → logic, job → gateway |
//! | [`frame`] | browser frames `{"type","payload"}`: encode, decode; pure |
//! | [`ids`] | room ids, message ids, positions |
//! | [`close`] | close codes: number, name, may the browser reconnect? |
//! | [`op`] | operations of `Proto.op` |
//! | [`refusal`] | stable error codes and what they mean over HTTP |
//! | [`limits`] | limits that more than one tier checks |

pub mod close;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod op;
pub mod refusal;

/// `ChatRoom.Protocol`: the envelope.
pub mod protocol {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("chat_room.protocol");
}

/// `ChatRoom.Comet`: the public gRPC face of a gateway.
pub mod comet {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("chat_room.comet");
}

/// `ChatRoom.Job`: the record on the log.
pub mod job {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("chat_room.job");
}

/// `corecast.push.v1`: the stream from job to gateway.
pub mod push {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("corecast.push.v1");
}

/// `corecast.logic.v1`: what a gateway asks of logic.
pub mod logic {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("corecast.logic.v1");
}

/// The file descriptor set of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
