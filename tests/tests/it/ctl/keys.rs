//! The keys of the JSON objects are the fields of the proto's messages, all of them.

use std::collections::BTreeSet;

use inventory_sentinel::v1;
use prost::Message as _;
use sentinel_tests::SentinelProcess;
use serde_json::Value;

use super::ctl;

/// The names of the fields of a message.
fn fields(message: &str) -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut messages = set.file.iter().flat_map(|file| &file.message_type);
    let found = messages.find(|found| found.name() == message).expect("a message of the proto");
    found.field.iter().map(|field| field.name().to_owned()).collect()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test]
async fn an_object_has_every_field_of_its_message() {
    let server = SentinelProcess::start().await;
    ctl(&server, &["stock", "set", "ps5", "10"]).await.ends(0);
    ctl(&server, &["sku", "rules", "ps5", "--max-quantity", "3"]).await.ends(0);
    let id = server.shop("sale").hold("ps5", 2).await.reservation_id;
    assert_eq!(keys(&ctl(&server, &["stock", "get", "ps5"]).await.ends(0).object()), fields("Stock"));
    let listed = ctl(&server, &["stock", "list"]).await.ends(0).object();
    assert_eq!(keys(&listed), fields("ListedSku"));
    assert_eq!(keys(&listed["rules"]), fields("SkuRules"));
    let shown = ctl(&server, &["reservations", "show", &id]).await.ends(0).object();
    assert_eq!(keys(&shown), fields("Reservation"));
    assert_eq!(keys(&shown["lines"][0]), fields("ReservationLine"));

    let events = ctl(&server, &["events", "tail", "--from-oldest", "--until-now"]).await.ends(0).objects();
    let mut expected = fields("Event");
    expected.insert("resume_token".into());
    for event in &events {
        assert_eq!(keys(event), expected);
    }
    let held = events.iter().find(|event| event["kind"] == "RESERVED").expect("the hold");
    assert_eq!(held["request_id"], shown["request_id"]);
    let configured = events.iter().find(|event| event["kind"] == "SKU_CONFIGURED").expect("the rule");
    assert_eq!(
        (configured["rules"]["max_quantity"].as_i64(), configured["rules_version"].as_i64()),
        (Some(3), Some(1))
    );
    let table = ctl(&server, &["events", "tail", "--from-oldest", "--until-now", "--table"]).await.ends(0);
    assert!(table.out.contains("ps5: protected, max quantity 3"), "{}", table.out);
}
