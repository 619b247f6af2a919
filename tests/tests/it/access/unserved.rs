//! Calls of operators that are refused before their service: the audit log has a record of each, and of no other.

use inventory_sentinel::{Reason, v1};
use prost::Message as _;
use sentinel_tests::{SentinelProcess, credentials::AccessFiles, eventually, reason};

use super::{
    any_rpc::{ADMIN, CHECKOUT, call, send},
    audit_log::{records, summary},
};

/// An incomplete field.
const MALFORMED: &[u8] = &[0x0A];

#[tokio::test]
async fn a_call_of_an_operator_that_its_service_never_receives_has_one_record() {
    let files = AccessFiles::new();
    let operator = files.token("everything");
    let flags = "--max-admin-calls 1 --max-failed-authentications 1000";
    let server = SentinelProcess::launch().guarded(&files).flags(flags).start().await;
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    let authorization = format!("Bearer {operator}");
    let refusal = async |path: String, message: Vec<u8>| {
        let refused = call(&channel, &authorization, &path, message).await.expect_err("refused");
        (path, reason(&refused))
    };
    let mut refused = Vec::new();
    for method in ["SetStock", "GetSku", "ImportStock"] {
        refused.push(refusal(format!("{ADMIN}{method}"), MALFORMED.to_vec()).await);
    }
    let large = v1::GetSkuRequest { sku: "x".repeat(300_000), ..Default::default() }.encode_to_vec();
    refused.push(refusal(format!("{ADMIN}GetSku"), large).await);
    let rows = vec![v1::ImportRow::default(); 3_000];
    let long = v1::ImportStockRequest { rows, ..Default::default() }.encode_to_vec();
    refused.push(refusal(format!("{ADMIN}ImportStock"), long).await);
    refused.push(refusal(format!("{ADMIN}Unknown"), Vec::new()).await);
    // Calls of other services have no record.
    refusal(format!("{CHECKOUT}Reserve"), MALFORMED.to_vec()).await;

    // The request of the first call never ends, so that there is no place for a second one. It repeats until it has its
    // place.
    let (unended, held) = (channel.clone(), authorization.clone());
    let holder = tokio::spawn(async move {
        loop {
            let refused = send(&unended, &held, &format!("{ADMIN}ListNamespaces"), tokio_stream::pending()).await;
            assert_eq!(reason(&refused.expect_err("the request has no end")), Reason::Overloaded);
        }
    });
    let overloaded = eventually("a call without a place", async || {
        let call = refusal(format!("{ADMIN}Audit"), MALFORMED.to_vec()).await;
        (call.1 == Reason::Overloaded).then_some(call)
    })
    .await;
    holder.abort();
    refused.push(overloaded);

    let found = eventually("the last record", async || {
        let found = records(&server.log());
        let is_last = |record| summary(record)[0].ends_with("/Audit") && summary(record)[1] == "OVERLOADED";
        found.iter().any(is_last).then_some(found)
    })
    .await;
    // Without the attempts to find, and to have, no place.
    let is_attempt = |[call, outcome, ..]: &[&str; 4]| {
        call.ends_with("/ListNamespaces") || call.ends_with("/Audit") && *outcome == "MALFORMED_REQUEST"
    };
    let found: Vec<_> = found.iter().map(summary).filter(|summary| !is_attempt(summary)).collect();
    // The service of an import receives the stream before its first message.
    fn name(path: &str) -> &str {
        if path.ends_with("ImportStock") { "ImportStock" } else { path }
    }
    let expected: Vec<_> =
        refused.iter().map(|(path, reason)| [name(path), reason.as_str(), "everything", ""]).collect();
    assert_eq!(found, expected);
    let reasons: Vec<_> = refused.iter().map(|(_, reason)| *reason).collect();
    use Reason::{MalformedRequest, Overloaded, RequestTooLarge, UnknownMethod};
    assert_eq!(
        reasons,
        [
            MalformedRequest,
            MalformedRequest,
            MalformedRequest,
            RequestTooLarge,
            RequestTooLarge,
            UnknownMethod,
            Overloaded
        ]
    );
}
