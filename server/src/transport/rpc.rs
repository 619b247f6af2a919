//! The limits of each RPC before its request is read: the size of a request, whether it is a
//! stream, and whether its response can be large. Pure, no I/O.

use inventory_sentinel_access::Role;

use crate::access::Requirement;

/// The largest request of an RPC that takes no list of operations or rows, in bytes. 1,000 SKUs of
/// 128 bytes fit.
pub(super) const MAX_SMALL_REQUEST: usize = 256 * 1_024;
/// Most fields of the outermost message of a Batch or an import. More than 512 operations or 1,000
/// rows have, and far fewer than would take much memory after decoding.
pub(super) const MAX_FIELDS: usize = 2_048;

/// The form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestForm {
    /// One message of this many bytes at most. `is_list`: its fields are counted.
    Message { max: usize, is_list: bool },
    /// A stream of such messages.
    Stream { max: usize, is_list: bool },
    /// There is no such RPC.
    Unknown,
}

/// One RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rpc {
    pub(super) form: RequestForm,
    /// Its response can be large or endless: unread bytes are counted.
    pub(super) is_tracked: bool,
    /// A call of an operator: it is recorded in the audit log, and the number of running unary ones is limited.
    pub(super) is_admin: bool,
    /// A stream of the health service: a client needs one for each connection.
    pub(super) is_health_watch: bool,
    /// A stream that only watches and lasts as long as its caller keeps it. It ends when the server
    /// drains.
    pub(super) is_observer: bool,
    /// The credential that it needs.
    pub(super) requirement: Requirement,
}

impl Rpc {
    /// The RPC of this path. `large` is the largest request with a list, in bytes.
    pub(super) fn of(path: &str, large: usize) -> Self {
        let small = RequestForm::Message { max: MAX_SMALL_REQUEST, is_list: false };
        let group = Group::of(path);
        let (form, is_tracked) = match group {
            Some((Group::Checkout, "Batch")) => (RequestForm::Message { max: large, is_list: true }, true),
            Some((Group::Checkout, "BatchGetStock" | "WatchProtected")) => (small, true),
            Some((Group::Checkout, _)) => (small, false),
            Some((Group::Admin, "ImportStock")) => (RequestForm::Stream { max: large, is_list: true }, true),
            Some((Group::Admin | Group::Events, _)) => (small, true),
            Some((Group::Health, method)) => (small, method != "Check"),
            Some((Group::Reflection, _)) => (RequestForm::Stream { max: MAX_SMALL_REQUEST, is_list: false }, true),
            None => (RequestForm::Unknown, false),
        };
        let is_admin = matches!(group, Some((Group::Admin, _)));
        let is_health_watch = matches!(group, Some((Group::Health, "Watch")));
        let is_observer = is_health_watch
            || matches!(group, Some((Group::Checkout, "WatchProtected") | (Group::Events | Group::Reflection, _)));
        let requirement = match group {
            Some((Group::Checkout, _)) => Requirement::Role(Role::Checkout),
            Some((Group::Events, _)) => Requirement::Role(Role::Events),
            Some((Group::Admin, _)) => Requirement::Role(Role::Operator),
            Some((Group::Reflection, _)) => Requirement::AnyIdentity,
            // There is nothing behind an unknown path.
            Some((Group::Health, _)) | None => Requirement::Nothing,
        };
        Self { form, is_tracked, is_admin, is_health_watch, is_observer, requirement }
    }
}

/// The services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Checkout,
    Admin,
    Events,
    Health,
    Reflection,
}

impl Group {
    /// The service and the method of a path.
    fn of(path: &str) -> Option<(Self, &str)> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let group = match service {
            "inventory_sentinel.v1.InventorySentinel" => Self::Checkout,
            "inventory_sentinel.v1.InventoryAdmin" => Self::Admin,
            "inventory_sentinel.v1.InventoryEvents" => Self::Events,
            "grpc.health.v1.Health" => Self::Health,
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => Self::Reflection,
            _ => return None,
        };
        Some((group, method))
    }
}

/// Whether the outermost message in these bytes has too many fields. Of bytes that are not a
/// message, the readable fields are counted; the decoder refuses the message.
pub(super) fn has_too_many_fields(mut bytes: &[u8]) -> bool {
    for _ in 0..=MAX_FIELDS {
        if bytes.is_empty() {
            return false;
        }
        let Some(rest) = after_field(bytes) else { return false };
        bytes = rest;
    }
    true
}

/// The bytes after the first field (protocol buffers, encoding).
fn after_field(bytes: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = varint(bytes)?;
    match tag & 7 {
        0 => Some(varint(rest)?.1),
        1 => rest.get(8..),
        2 => {
            let (length, rest) = varint(rest)?;
            rest.get(usize::try_from(length).ok()?..)
        }
        5 => rest.get(4..),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use inventory_sentinel::v1;
    use prost::Message as _;

    use super::*;

    /// Every RPC of the descriptors has its rule here: a new one needs a decision.
    #[test]
    fn every_rpc_is_known() {
        let files = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap().file;
        let mut paths = Vec::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let rpc = Rpc::of(&path, 4 << 20);
                    let is_stream = matches!(rpc.form, RequestForm::Stream { .. });
                    assert_eq!(is_stream, method.client_streaming(), "{path}");
                    assert_ne!(rpc.form, RequestForm::Unknown, "{path}");
                    assert!(matches!(rpc.requirement, Requirement::Role(_)), "{path}");
                    assert!(rpc.is_tracked || !method.server_streaming(), "{path}");
                    // A stream either only watches, or does work for each message of its caller.
                    assert_eq!(rpc.is_observer, method.server_streaming() && !method.client_streaming(), "{path}");
                    paths.push(path);
                }
            }
        }
        assert!(paths.len() > 20, "{paths:?}");
        assert_eq!(Rpc::of("/grpc.health.v1.Health/Watch", 1).form, Rpc::of("/grpc.health.v1.Health/Check", 1).form);
        assert_eq!(Rpc::of("/unknown.Service/Method", 1).form, RequestForm::Unknown);
    }

    #[test]
    fn what_the_documented_counts_allow_fits() {
        let text = |length| "x".repeat(length);
        let line = |sku: usize| v1::Line { sku: format!("{sku:0>128}"), quantity: 1_000_000 };
        let reserve = v1::ReserveRequest {
            namespace_id: text(63),
            request_id: text(128),
            lines: (0..32).map(line).collect(),
            ttl: Some(prost_types::Duration { seconds: 2_592_000, nanos: 999_999_999 }),
            buyer_id: text(128),
            replaces_reservation_id: text(64),
            first_attempt: true,
        };
        assert!(reserve.encoded_len() <= MAX_SMALL_REQUEST);
        let entry = v1::BatchOperation {
            timeout: Some(prost_types::Duration { seconds: 3_600, nanos: 999_999_999 }),
            operation: Some(v1::batch_operation::Operation::Reserve(reserve)),
        };
        let batch = v1::BatchRequest { operations: vec![entry; 512] }.encode_to_vec();
        let large = crate::config::Config::default().max_request_bytes;
        assert!(batch.len() <= large, "{} bytes", batch.len());
        assert!(!has_too_many_fields(&batch));
        let skus = v1::SetProtectionRequest {
            namespace_id: text(63),
            skus: vec![text(128); 1_000],
            ..v1::SetProtectionRequest::default()
        };
        assert!(skus.encoded_len() <= MAX_SMALL_REQUEST, "{} bytes", skus.encoded_len());
    }

    #[test]
    fn a_list_of_empty_entries_is_refused_before_it_is_decoded() {
        assert!(has_too_many_fields(&[0x0A, 0].repeat(MAX_FIELDS + 1)));
        assert!(!has_too_many_fields(&[0x0A, 0].repeat(MAX_FIELDS)));
        for torn in [&[0x0A][..], &[0x0A, 200], &[0xFF; 30], &[0x0B], &[0x0D, 1], &[0x09, 1, 2], &[8]] {
            assert!(!has_too_many_fields(torn), "{torn:?}");
        }
    }
}
