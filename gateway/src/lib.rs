//! The WebSocket gateway: thread per core, fan-out, resume.
