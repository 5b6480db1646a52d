//! A failure as a gRPC status, for replies without a place for refusals.

use tonic::{Code, Status};

use crate::error::Failure;

/// Metadata that tells how long to wait before a repeat, milliseconds.
const RETRY_AFTER: &str = "retry-after-ms";

pub(super) fn of(failure: Failure) -> Status {
    let code = match &failure {
        Failure::Unavailable(_) => Code::Unavailable,
        Failure::Internal(_) => Code::Internal,
        Failure::Refused(refusal) => match refusal.http_status {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::AlreadyExists,
            413 | 429 => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        },
    };
    let refusal = failure.into_refusal();
    // The stable code comes first, so that a caller need not guess it from the status.
    let mut status = Status::new(code, format!("{}: {}", refusal.code, refusal.message));
    if refusal.retry_after_ms > 0 {
        status.metadata_mut().insert(RETRY_AFTER, refusal.retry_after_ms.into());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated_says_so() {
        let status = of(Failure::Unavailable("the store cannot be reached"));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.metadata().get(RETRY_AFTER).and_then(|v| v.to_str().ok()), Some("1000"));
    }

    #[test]
    fn a_refusal_keeps_its_stable_code() {
        let status = of(corecast_proto::refusal::Code::UnknownUser.with("no such user").into());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "UNKNOWN_USER: no such user");
        assert!(status.metadata().get(RETRY_AFTER).is_none());
    }
}
