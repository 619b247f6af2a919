//! Figures in pages that people write, compared with their sources. Tests only; reads the pages.

use std::path::Path;

use inventory_sentinel::v1::{
    BatchOperation, BatchResult, Line, Reservation, ReservationLine, ReservationState, ReserveRequest, ReserveResponse,
    ShortLine, Shortage, batch_operation::Operation, batch_result, reserve_response,
};
use prost::Message as _;
use prost_types::{Duration, Timestamp};

use crate::docs::figures;

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The median of a ratio in the page of benchmarks.
fn median(page: &str, name: &str) -> Option<f64> {
    let prefix = format!("| `{name}` | ");
    let row = page.lines().find_map(|line| line.strip_prefix(&prefix))?;
    row.split(' ').next()?.parse().ok()
}

#[test]
fn the_readme_shows_the_ratios_of_the_last_run() {
    let (readme, benchmarks) = (page("README.md"), page("docs/benchmarks/README.md"));
    let figures = figures(|name| median(&benchmarks, name));
    assert_eq!(figures.matches("- **").count(), 3, "{figures}");
    assert!(readme.contains(&figures), "README.md has other figures than docs/benchmarks:\n{figures}");
}

#[test]
fn the_page_on_capacity_has_the_counts_of_sold_out_answers() {
    let guards: serde_json::Value = serde_json::from_str(&page("bench/guards.json")).expect("guards.json is JSON");
    let count = |name: &str| {
        let count = guards["expected"][name].as_u64().unwrap_or_else(|| panic!("nothing is expected of {name}"));
        match (count / 1_000, count % 1_000) {
            (0, units) => units.to_string(),
            (thousands, units) => format!("{thousands},{units:03}"),
        }
    };
    for (row, name) in [("in a batch of 256", "batch_sold_out"), ("alone", "sold_out")] {
        let [claimed, looked_up] = ["", "_looked_up"].map(|end| count(&format!("redis_instructions_{name}{end}")));
        let expected = format!("| sold out, {row} | {looked_up} | {claimed} |");
        assert!(
            page("docs/operate/capacity.md").contains(&expected),
            "docs/operate/capacity.md does not contain: {expected}"
        );
    }
}

const NAMESPACE: &str = "drop-2026";
const SKU: &str = "t-shirt-black-m";
const UUID: &str = "01940000-0000-7000-8000-000000000000";
/// As long as a reservation id.
const RESERVATION: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

/// Bytes of an entry of a list.
fn entry(message: usize) -> usize {
    1 + prost::length_delimiter_len(message) + message
}

/// The bytes that each entry adds to a message: a Reserve by the Rust client, and both answers.
fn sizes() -> [usize; 3] {
    let reserve = ReserveRequest {
        namespace_id: NAMESPACE.into(),
        request_id: UUID.into(),
        lines: vec![Line { sku: SKU.into(), quantity: 1 }],
        ttl: Some(Duration { seconds: 300, nanos: 0 }),
        buyer_id: UUID.into(),
        ..Default::default()
    };
    let request = BatchOperation { operation: Some(Operation::Reserve(reserve)), ..Default::default() };
    let at = Some(Timestamp { seconds: 1_800_000_000, nanos: 123_000_000 });
    let reservation = Reservation {
        namespace_id: NAMESPACE.into(),
        reservation_id: RESERVATION.into(),
        state: ReservationState::Pending.into(),
        lines: vec![ReservationLine { sku: SKU.into(), quantity: 1, held: 1, ..Default::default() }],
        buyer_id: UUID.into(),
        created_at: at,
        expires_at: at,
        ..Default::default()
    };
    let shortage = Shortage { lines: vec![ShortLine { sku: SKU.into(), requested: 1, available: 0 }] };
    let answers = [reserve_response::Result::Reservation(reservation), reserve_response::Result::Shortage(shortage)];
    let [held, short] = answers.map(|result| {
        let response = ReserveResponse { result: Some(result), replayed: false, sequence: 1_000_000 };
        BatchResult { result: Some(batch_result::Result::Reserve(response)) }.encoded_len()
    });
    [request.encoded_len(), held, short].map(entry)
}

#[test]
fn the_page_on_capacity_has_the_sizes_of_the_messages() {
    let [request, held, short] = sizes();
    let expected = format!("has {request} bytes, its response {held} with a reservation and {short} with a shortage");
    assert!(
        page("docs/operate/capacity.md").contains(&expected),
        "docs/operate/capacity.md does not contain: {expected}"
    );
}
