//! Consumes the log and pushes to every gateway.
