//! A caller learns nothing of a namespace that it may not use: neither its data, nor whether it, its SKUs or its
//! reservations exist. `secrets` has the same for credentials.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use inventory_sentinel::{Reason, v1};
use sentinel_tests::{SentinelProcess, assert_refused, credentials::AccessFiles, new_id, reason};
use tonic::Status;

use super::{
    CallerClients,
    any_rpc::{ADMIN, CHECKOUT, Target, call, entries},
};

/// The SKUs of `sale`: in 8 partitions, so that a page does not list all.
const SKUS: usize = 24;

/// A guarded server with data in `sale` and in `elsewhere`.
struct Fixture {
    files: AccessFiles,
    server: SentinelProcess,
    owner: CallerClients,
    /// A caller with every role in `elsewhere` only, and its token.
    foreigner: CallerClients,
    token: String,
    /// A pending reservation of each SKU of `sale`.
    reservations: Vec<String>,
    /// The request ids that created them.
    request_ids: Vec<String>,
}

impl Fixture {
    async fn start() -> Fixture {
        let files = AccessFiles::new();
        let (everything, token) = (files.token("everything"), files.token("elsewhere"));
        let server = SentinelProcess::launch().guarded(&files).start().await;
        let mut owner = CallerClients::connect(&server, &files, &everything).await;
        for (namespace, partitions, skus) in [("sale", 8, SKUS), ("elsewhere", 1, 2)] {
            let config = Some(v1::NamespaceConfig { partitions: Some(partitions), ..Default::default() });
            let request =
                v1::ConfigureNamespaceRequest { namespace_id: namespace.into(), config, ..Default::default() };
            owner.admin.configure_namespace(request).await.expect("created");
            for number in 0..skus {
                let request = v1::SetStockRequest {
                    namespace_id: namespace.into(),
                    sku: format!("{namespace}-{number}"),
                    on_hand: 10,
                    request_id: new_id(),
                    ..Default::default()
                };
                owner.admin.set_stock(request).await.expect("set");
            }
        }
        let (mut reservations, mut request_ids) = (Vec::new(), Vec::new());
        for number in 0..SKUS {
            let request_id = new_id();
            let request = v1::ReserveRequest {
                namespace_id: "sale".into(),
                request_id: request_id.clone(),
                lines: vec![v1::Line { sku: format!("sale-{number}"), quantity: 1 }],
                ..Default::default()
            };
            let response = owner.checkout.reserve(request).await.expect("held").into_inner();
            let Some(v1::reserve_response::Result::Reservation(held)) = response.result else {
                panic!("no reservation: {response:?}");
            };
            reservations.push(held.reservation_id);
            request_ids.push(request_id);
        }
        let foreigner = CallerClients::connect(&server, &files, &token).await;
        Fixture { files, server, owner, foreigner, token, reservations, request_ids }
    }
}

/// All that a caller can observe of a refusal.
fn observable(status: &Status) -> (tonic::Code, String, Vec<u8>, String) {
    let mut metadata = status.metadata().clone();
    metadata.remove("date");
    (status.code(), status.message().to_owned(), status.details().to_vec(), format!("{metadata:?}"))
}

#[tokio::test]
async fn a_token_of_a_list_of_a_forbidden_namespace_is_refused() {
    let Fixture { server: _server, mut owner, mut foreigner, .. } = Fixture::start().await;
    let stock = |namespace: &str, page_token: &str| v1::ListStockRequest {
        namespace_id: namespace.into(),
        page_size: 1,
        page_token: page_token.into(),
    };
    let reservations = |namespace: &str, page_token: &str| v1::ListReservationsRequest {
        namespace_id: namespace.into(),
        page_size: 1,
        page_token: page_token.into(),
        ..Default::default()
    };
    let of_stock = owner.admin.list_stock(stock("sale", "")).await.expect("a page").into_inner().next_page_token;
    let of_reservations = owner.admin.list_reservations(reservations("sale", "")).await.expect("a page").into_inner();
    let of_reservations = of_reservations.next_page_token;
    let of_namespaces = owner.admin.list_namespaces(v1::ListNamespacesRequest::default()).await.expect("a page");
    let of_namespaces = of_namespaces.into_inner().next_page_token;
    assert!(!of_stock.is_empty() && !of_reservations.is_empty());
    owner.admin.list_stock(stock("sale", &of_stock)).await.expect("the token is valid");

    for token in [&of_stock, &of_reservations] {
        let refused = foreigner.admin.list_stock(stock("sale", token)).await;
        assert_refused(refused, Reason::NamespaceForbidden, None);
        let refused = foreigner.admin.list_reservations(reservations("sale", token)).await;
        assert_refused(refused, Reason::NamespaceForbidden, None);
        let refused = foreigner.admin.list_stock(stock("elsewhere", token)).await;
        assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
        let refused = foreigner.admin.list_reservations(reservations("elsewhere", token)).await;
        assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
        let request = v1::ListNamespacesRequest { page_size: 0, page_token: token.clone() };
        assert_refused(foreigner.admin.list_namespaces(request).await, Reason::InvalidPageToken, Some("page_token"));
    }
    // A token of the list of namespaces is of no namespace. Each page has the namespaces of its caller only.
    let mut names = Vec::new();
    let mut request = v1::ListNamespacesRequest { page_size: 1, page_token: of_namespaces };
    loop {
        let page = foreigner.admin.list_namespaces(request.clone()).await.expect("a page").into_inner();
        names.extend(page.namespaces.into_iter().map(|listed| listed.namespace_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, ["elsewhere"]);
}

#[tokio::test]
async fn a_token_of_a_stream_of_a_forbidden_namespace_gives_no_data() {
    let Fixture { server: _server, mut owner, mut foreigner, .. } = Fixture::start().await;
    let watch = |namespace: &str, token: &str| v1::WatchRequest {
        namespace_id: namespace.into(),
        resume_token: token.into(),
        from_oldest: token.is_empty(),
    };
    let watch_stock = |namespace: &str, token: &str| v1::WatchStockRequest {
        namespace_id: namespace.into(),
        resume_token: token.into(),
        ..Default::default()
    };
    let watch_protected = |namespace: &str, token: &str| v1::WatchProtectedRequest {
        namespace_id: namespace.into(),
        resume_token: token.into(),
    };
    let mut tokens = Vec::new();
    let mut events = owner.events.watch(watch("sale", "")).await.expect("a stream").into_inner();
    tokens.push(events.message().await.expect("a message").expect("a message").resume_token);
    let mut stock = owner.events.watch_stock(watch_stock("sale", "")).await.expect("a stream").into_inner();
    tokens.push(stock.message().await.expect("a message").expect("a message").resume_token);
    let mut protected = owner.checkout.watch_protected(watch_protected("sale", "")).await.expect("a stream");
    tokens.push(protected.get_mut().message().await.expect("a message").expect("a message").resume_token);

    for token in &tokens {
        let refused = foreigner.events.watch(watch("sale", token)).await;
        assert_refused(refused.map(drop), Reason::NamespaceForbidden, None);
        let refused = foreigner.events.watch_stock(watch_stock("sale", token)).await;
        assert_refused(refused.map(drop), Reason::NamespaceForbidden, None);
        let refused = foreigner.checkout.watch_protected(watch_protected("sale", token)).await;
        assert_refused(refused.map(drop), Reason::NamespaceForbidden, None);

        // In a namespace of the caller, a token of another one is like a token of a deleted namespace: a stream of
        // events does not start, and a stream of stock starts over.
        let refused = foreigner.events.watch(watch("elsewhere", token)).await;
        assert_refused(refused.map(drop), Reason::EventsCompacted, None);
        let mut skus = Vec::new();
        let stream = foreigner.events.watch_stock(watch_stock("elsewhere", token)).await.expect("a stream");
        let mut stream = stream.into_inner();
        loop {
            let message = stream.message().await.expect("a message").expect("a message");
            skus.extend(message.skus.into_iter().map(|row| row.sku));
            if !message.is_snapshot {
                break;
            }
        }
        let stream = foreigner.checkout.watch_protected(watch_protected("elsewhere", token)).await;
        let mut stream = stream.expect("a stream").into_inner();
        loop {
            let message = stream.message().await.expect("a message").expect("a message");
            skus.extend([message.added_skus, message.removed_skus].concat());
            if !message.is_snapshot {
                break;
            }
        }
        skus.sort();
        assert_eq!(skus, ["elsewhere-0", "elsewhere-0", "elsewhere-1", "elsewhere-1"]);
    }
}

/// The same id with other bytes before the partition.
fn unknown_reservation(id: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(id).expect("an id");
    bytes[..16].iter_mut().for_each(|byte| *byte ^= 0x5A);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn a_forbidden_namespace_looks_the_same_whether_it_exists_or_not() {
    let Fixture { files, server, mut owner, token, reservations, .. } = Fixture::start().await;
    let real: [String; 5] = std::array::from_fn(|number| reservations[number].clone());
    let existing = Target {
        namespace: "sale".into(),
        sku: "sale-0".into(),
        spare_sku: "sale-1".into(),
        reservations: real.clone(),
    };
    let unknown = real.each_ref().map(|id| unknown_reservation(id));
    let missing_skus =
        Target { sku: "ghost".into(), spare_sku: "ghost-2".into(), reservations: unknown.clone(), ..existing.clone() };
    let missing_namespace = Target { namespace: "ghost".into(), ..existing.clone() };
    let missing_all = Target { namespace: "ghost".into(), ..missing_skus.clone() };
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    let authorization = format!("Bearer {token}");
    let observe = async |target: &Target| {
        let mut observed = Vec::new();
        for entry in entries(target) {
            let result = call(&channel, &authorization, &entry.path, entry.message).await;
            observed.push((entry.path, result.map_err(|status| observable(&status))));
        }
        observed
    };
    let expected = observe(&existing).await;
    let refused = expected.iter().filter(|(_, result)| result.is_err()).count();
    assert!(refused >= 20, "{refused}");
    for target in [&missing_skus, &missing_namespace, &missing_all] {
        for (observed, expected) in observe(target).await.into_iter().zip(&expected) {
            assert_eq!(observed, *expected, "{target:?}");
        }
    }
    let names = owner.admin.list_namespaces(v1::ListNamespacesRequest::default()).await.expect("names");
    assert_eq!(names.into_inner().namespaces.len(), 2, "no refused call created a namespace");
    for path in [format!("{ADMIN}SetStock"), format!("{CHECKOUT}Reserve")] {
        let (_, result) = expected.iter().find(|(listed, _)| *listed == path).expect("an entry");
        assert_eq!(result.as_ref().expect_err("refused").0, tonic::Code::PermissionDenied);
    }
}

/// The refusals of all operations on this reservation, in the namespace of the caller.
async fn operations_on(caller: &mut CallerClients, id: &str) -> Vec<(tonic::Code, String, Vec<u8>, String)> {
    let (namespace_id, reservation_id) = (|| "elsewhere".to_owned(), || id.to_owned());
    let commit = |late_policy: v1::LatePolicy| v1::CommitRequest {
        namespace_id: namespace_id(),
        reservation_id: reservation_id(),
        late_policy: late_policy.into(),
        ..Default::default()
    };
    let part = |sku: &str| v1::RollbackRequest {
        namespace_id: namespace_id(),
        reservation_id: reservation_id(),
        request_id: new_id(),
        lines: vec![v1::Line { sku: sku.into(), quantity: 1 }],
    };
    let rollback =
        v1::RollbackRequest { namespace_id: namespace_id(), reservation_id: reservation_id(), ..Default::default() };
    let extend = v1::ExtendRequest {
        namespace_id: namespace_id(),
        reservation_id: reservation_id(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        request_id: new_id(),
    };
    let get = v1::GetReservationRequest {
        namespace_id: namespace_id(),
        reservation_id: reservation_id(),
        ..Default::default()
    };
    let checkout = &mut caller.checkout;
    let refusals = [
        checkout.commit(commit(v1::LatePolicy::Unspecified)).await.map(|_| ()),
        checkout.commit(commit(v1::LatePolicy::Repurchase)).await.map(|_| ()),
        checkout.rollback(rollback).await.map(|_| ()),
        checkout.rollback(part("sale-0")).await.map(|_| ()),
        checkout.extend(extend).await.map(|_| ()),
        checkout.get_reservation(get).await.map(|_| ()),
    ];
    let refusals = refusals.map(|result| {
        let status = result.expect_err("no reservation of this namespace");
        assert_eq!(reason(&status), Reason::ReservationNotFound);
        observable(&status)
    });
    refusals.to_vec()
}

#[tokio::test]
async fn a_reservation_of_another_namespace_looks_like_an_unknown_one() {
    let Fixture { server: _server, mut owner, mut foreigner, reservations, request_ids, .. } = Fixture::start().await;
    // Those of the first partition, which the other namespace has too, and those of others.
    for id in &reservations {
        let of_another_namespace = operations_on(&mut foreigner, id).await;
        let of_none = operations_on(&mut foreigner, &unknown_reservation(id)).await;
        assert_eq!(of_another_namespace, of_none);
    }
    let partitions: std::collections::BTreeSet<u8> =
        reservations.iter().map(|id| URL_SAFE_NO_PAD.decode(id).expect("an id")[17]).collect();
    assert!(partitions.contains(&0) && partitions.len() > 1, "{partitions:?}");

    let by_request_id = |request_id: &str| v1::GetReservationRequest {
        namespace_id: "elsewhere".into(),
        request_id: request_id.into(),
        ..Default::default()
    };
    let of_another_namespace = foreigner.checkout.get_reservation(by_request_id(&request_ids[0])).await;
    let of_none = foreigner.checkout.get_reservation(by_request_id(&new_id())).await;
    let of_another_namespace = of_another_namespace.expect_err("no reservation of this namespace");
    assert_eq!(observable(&of_another_namespace), observable(&of_none.expect_err("no reservation")));

    // A Reserve that replaces one. The id of the predecessor, which the caller sent, is in the response.
    let replace = |id: &str| v1::ReserveRequest {
        namespace_id: "elsewhere".into(),
        request_id: new_id(),
        lines: vec![v1::Line { sku: "elsewhere-0".into(), quantity: 1 }],
        replaces_reservation_id: id.into(),
        ..Default::default()
    };
    for id in &reservations {
        let of_another_namespace = foreigner.checkout.reserve(replace(id)).await;
        let of_none = foreigner.checkout.reserve(replace(&unknown_reservation(id))).await;
        let of_another_namespace = of_another_namespace.map(|_| ()).map_err(|status| observable(&status));
        assert_eq!(of_another_namespace, of_none.map(|_| ()).map_err(|status| observable(&status)));
    }

    for (id, number) in reservations.iter().zip(0..) {
        let request =
            v1::GetReservationRequest { namespace_id: "sale".into(), reservation_id: id.clone(), ..Default::default() };
        let held = owner.checkout.get_reservation(request).await.expect("found").into_inner().reservation;
        assert_eq!(held.expect("a reservation").state(), v1::ReservationState::Pending, "sale-{number}");
    }
}
