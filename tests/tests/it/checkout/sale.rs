//! Many buyers, few units: exactly as many buyers succeed as there are units, through one server or several.

use std::time::Instant;

use inventory_sentinel::v1::reserve_response::Result as Reserved;
use sentinel_tests::{Event, History, Redis, SentinelProcess, reserve_request};
use tokio::task::JoinSet;

/// The event in the answer to a buyer of one unit.
fn event(response: &inventory_sentinel::v1::ReserveResponse) -> Event {
    match response.result.as_ref().expect("an answer has a result") {
        Reserved::Reservation(reservation) => Event::Held(reservation.reservation_id.clone(), 1),
        Reserved::Shortage(shortage) => Event::Short(1, shortage.lines[0].available),
        over => panic!("a new request has a reservation that is over: {over:?}"),
    }
}

#[tokio::test]
async fn of_fifty_buyers_of_the_last_unit_exactly_one_wins() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let mut buyers = JoinSet::new();
    for _ in 0..50 {
        let shop = shop.clone();
        buyers.spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await.expect("an answer") });
    }
    let answers = buyers.join_all().await;
    let winners = answers.iter().filter(|answer| matches!(event(answer), Event::Held(..))).count();
    assert_eq!(winners, 1);
    assert_eq!(shop.counts("ps5").await, (0, 1, 0));
    shop.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_buyers_through_four_servers_buy_exactly_what_there_is() {
    let redis = Redis::start().await;
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(SentinelProcess::on(&redis).await);
    }
    let shop = servers[0].shop("sale");
    let began = Instant::now();
    let supplied = shop.set_stock("ps5", 100, "opening").await.expect("the stock is set");
    let mut history = History::default();
    history.note(began, supplied.sequence, Event::Supplied(100));

    let mut buyers = JoinSet::new();
    for i in 0..10_000 {
        let shop = servers[i % 4].shop("sale");
        buyers.spawn(async move {
            let mut events = Vec::new();
            let began = Instant::now();
            let answer = shop.reserve(reserve_request(&[("ps5", 1)])).await.expect("an answer");
            let event = event(&answer);
            events.push((began, Instant::now(), answer.sequence, event.clone()));
            // Of those who have one, every second pays; the others keep holding it.
            if let (Event::Held(id, _), 0) = (event, i % 2) {
                let began = Instant::now();
                let answer = shop.commit(&id).await.expect("a sale");
                events.push((began, Instant::now(), answer.sequence, Event::Committed(id)));
            }
            events
        });
    }
    let events: Vec<_> = buyers.join_all().await.into_iter().flatten().collect();
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|(.., event)| wanted(event)).count() as i64;
    let won = count(|event| matches!(event, Event::Held(..)));
    let sold = count(|event| matches!(event, Event::Committed(_)));
    assert_eq!(won, 100);
    for (began, ended, sequence, event) in events {
        history.note_ended(began, ended, sequence, event);
    }
    for server in &servers {
        assert_eq!(server.shop("sale").counts("ps5").await, (0, 100 - sold, sold));
    }
    history.check().expect("one history explains all answers");
    shop.audit().await;
}
