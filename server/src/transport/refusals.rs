//! Refusals before the services: of requests that are not gRPC calls, and those of the gRPC
//! library, which get a reason of the catalogue here. Touches only the headers of a response.

use http::{HeaderMap, Method, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use inventory_sentinel::Reason;
use tonic::{Code, Status, body::Body, metadata::MetadataValue};
use tonic_types::StatusExt as _;

use super::compression::{ACCEPT_ENCODING, ACCEPTED};
use crate::failure;

/// Start of the library's message for a request that it could not decode.
const UNDECODED: &str = "failed to decode Protobuf message";

/// Whether the head of a request is that of a gRPC call.
pub(super) fn is_call(parts: &Parts) -> bool {
    parts.method == Method::POST && is_grpc(&parts.headers)
}

/// The refusal of a request that is not a gRPC call. It has an HTTP status too.
pub(super) fn of_head(parts: &Parts) -> Response<Body> {
    let (http, why) = if parts.method == Method::POST {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "its content-type is not application/grpc")
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "its method is not POST")
    };
    let mut response = failure::refusal_because(Reason::MalformedRequest, why).into_http();
    *response.status_mut() = http;
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The refusal of a call with an unknown encoding.
pub(super) fn of_encoding() -> Status {
    let mut status = failure::refusal(Reason::UnknownEncoding);
    status.metadata_mut().insert(ACCEPT_ENCODING.as_str(), MetadataValue::from_static(ACCEPTED));
    status
}

/// Adds the reason to a refusal without one. `headers` are those of a head or of trailers.
pub(super) fn complete(headers: &mut HeaderMap) {
    let is_refusal = headers.get(Status::GRPC_STATUS).is_some_and(|code| code.as_bytes() != b"0");
    if !is_refusal || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    // The headers are the message and code of a status, which are valid.
    let _ = reasoned(&status).add_header(headers);
}

/// The reason of a refusal; `None`: the headers are not those of a refusal.
pub(super) fn reason_in(headers: &HeaderMap) -> Option<Reason> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok).then(|| reason_of(&status))
}

/// The reason of a refusal: of the service, or of the gRPC library.
pub(crate) fn reason_of(status: &Status) -> Reason {
    let named = status.get_details_error_info().and_then(|info| Reason::from_name(&info.reason));
    named.unwrap_or_else(|| reason_of_library(status))
}

/// The reason of a refusal of the gRPC library.
fn reason_of_library(status: &Status) -> Reason {
    match status.code() {
        Code::Internal if status.message().starts_with(UNDECODED) => Reason::MalformedRequest,
        Code::InvalidArgument => Reason::MalformedRequest,
        Code::OutOfRange | Code::ResourceExhausted => Reason::RequestTooLarge,
        Code::Unimplemented => Reason::UnknownMethod,
        // Only the health service and reflection search for names.
        Code::NotFound => Reason::UnknownService,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        _ => Reason::Internal,
    }
}

/// The same refusal with its reason.
fn reasoned(status: &Status) -> Status {
    let reason = reason_of_library(status);
    match status.message() {
        "" => failure::refusal(reason),
        why => failure::refusal_because(reason, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_reason_gets_one_and_others_stay() {
        for (code, message, expected) in [
            (Code::Internal, "failed to decode Protobuf message: invalid varint", Reason::MalformedRequest),
            (Code::Internal, "something", Reason::Internal),
            (Code::Unimplemented, "", Reason::UnknownMethod),
            (Code::NotFound, "service not registered", Reason::UnknownService),
            (Code::Unknown, "", Reason::Internal),
        ] {
            let mut headers = HeaderMap::new();
            Status::new(code, message).add_header(&mut headers).unwrap();
            complete(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(status.code(), expected.code());
            assert_eq!(status.get_details_error_info().unwrap().reason, expected.as_str());
            assert_eq!(reason_in(&headers), Some(expected));
            assert!(status.message().contains(message), "{status:?}");
            let before = headers.clone();
            complete(&mut headers);
            assert_eq!(headers, before);
        }
        let mut ok = HeaderMap::new();
        Status::ok("").add_header(&mut ok).unwrap();
        let before = ok.clone();
        complete(&mut ok);
        assert_eq!(ok, before);
    }
}
