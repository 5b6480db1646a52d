//! Accounts, rooms and messages over gRPC and HTTP.
