//! Operations that a caller puts into one call, against the scripted server.

use inventory_sentinel::{Reason, v1::batch_operation::Operation};
use tonic::Code;

use super::{Scripted, direct_sale, quick, refusal, sale};
use crate::{BatchError, BatchOutcome, CommitError, ReserveError, RpcError};

#[tokio::test]
async fn each_operation_has_its_own_outcome_in_order() {
    let server = Scripted::refusing([Reason::InvalidSku, Reason::ReservationExpired].map(refusal));
    let sale = sale(&server, quick()).await;
    let batch = sale
        .batch()
        .reserve(sale.reserve("p s", 1))
        .commit(sale.commit("r1").line("ps5", 1).keep_rest())
        .reserve(sale.reserve("ps5", 2).buyer("7").request_id("mine"))
        .rollback(sale.rollback("r2"));
    let outcomes = batch.await.unwrap();
    assert_eq!(outcomes.len(), 4);
    assert!(matches!(&outcomes[0], BatchOutcome::Reserve(Err(ReserveError::InvalidSku(_)))), "{outcomes:?}");
    assert!(matches!(&outcomes[1], BatchOutcome::Commit(Err(CommitError::Expired(_)))), "{outcomes:?}");
    assert!(matches!(&outcomes[2], BatchOutcome::Reserve(Ok(held)) if held.id == "r1"), "{outcomes:?}");
    // The script is at its end: what comes is no answer to a Rollback.
    let BatchOutcome::Rollback(Err(error)) = &outcomes[3] else { panic!("{outcomes:?}") };
    assert_eq!(error.rpc().map(RpcError::code), Some(Code::Internal));
    assert!(error.outcome_unknown());

    let batches = server.batches.lock().unwrap();
    assert_eq!(batches.len(), 1, "one call");
    match batches[0].operations.iter().map(|entry| entry.operation.as_ref().unwrap()).collect::<Vec<_>>()[..] {
        [Operation::Reserve(_), Operation::Commit(part), Operation::Reserve(named), Operation::Rollback(whole)] => {
            assert!(!part.request_id.is_empty() && part.lines.len() == 1 && whole.request_id.is_empty());
            assert_eq!((named.request_id.as_str(), named.buyer_id.as_str()), ("mine", "7"));
            assert_eq!((named.namespace_id.as_str(), whole.reservation_id.as_str()), ("sale", "r2"));
        }
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_that_is_repeated_repeats_each_of_its_operations() {
    let server = Scripted::default();
    *server.refused_batches.lock().unwrap() = [refusal(Reason::OutcomeUnknown)].into();
    let sale = direct_sale(&server).await;
    let batch = sale.batch().reserve(sale.reserve("ps5", 1)).reserve(sale.reserve("ps5", 1));
    batch.clone().await.unwrap();
    batch.await.unwrap();
    let batches = server.batches.lock().unwrap();
    assert_eq!(batches.len(), 3, "a retry of the client, and one of the caller");
    assert!(batches.iter().all(|batch| *batch == batches[0]));
    let ids = batches[0].operations.iter().map(|entry| match &entry.operation {
        Some(Operation::Reserve(request)) => {
            assert!(!request.first_attempt, "a clone may have been sent before");
            request.request_id.clone()
        }
        other => panic!("{other:?}"),
    });
    let ids: Vec<String> = ids.collect();
    assert!(ids[0] != ids[1] && !ids[0].is_empty());
}

#[tokio::test]
async fn a_batch_can_be_refused_as_a_whole() {
    let server = Scripted::default();
    *server.refused_batches.lock().unwrap() = [refusal(Reason::TooManyOperations)].into();
    let sale = sale(&server, quick()).await;
    let refused = sale.batch().reserve(sale.reserve("ps5", 1)).await;
    assert!(matches!(refused, Err(BatchError::TooManyOperations(_))), "{refused:?}");
}

#[tokio::test]
async fn an_operation_of_a_repeated_batch_knows_of_the_earlier_attempt() {
    for reasons in [&[Reason::OutcomeUnknown][..], &[]] {
        let server = Scripted::refusing([refusal(Reason::Overloaded)]);
        *server.refused_batches.lock().unwrap() = reasons.iter().map(|&reason| refusal(reason)).collect();
        let sale = sale(&server, quick()).await;
        let outcomes = sale.batch().reserve(sale.reserve("ps5", 1)).await.unwrap();
        let BatchOutcome::Reserve(Err(error)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(error.rpc().map(RpcError::attempts), Some(1 + u32::try_from(reasons.len()).unwrap()));
        assert_eq!(error.outcome_unknown(), !reasons.is_empty());
    }
}

#[tokio::test]
async fn an_operation_whose_identity_stands_for_another_is_refused_and_not_sent() {
    let server = Scripted::default();
    let sale = sale(&server, quick()).await;
    let order = |sku: &str| sale.reserve(sku, 1).request_id("order-1");
    let reused =
        |outcome: &BatchOutcome| matches!(outcome, BatchOutcome::Reserve(Err(ReserveError::RequestIdReused(_))));
    let batch = sale.batch().reserve(order("ps5")).reserve(order("vita")).reserve(sale.reserve("pad", 1));
    let outcomes = batch.await.unwrap();
    assert!(matches!(&outcomes[0], BatchOutcome::Reserve(Ok(_))), "{outcomes:?}");
    assert!(reused(&outcomes[1]), "{outcomes:?}");
    assert!(matches!(&outcomes[2], BatchOutcome::Reserve(Ok(_))), "{outcomes:?}");
    let outcomes = sale.batch().reserve(order("vita")).await.unwrap();
    assert!(reused(&outcomes[0]), "{outcomes:?}");
    let batches = server.batches.lock().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.operations.len()).collect::<Vec<_>>(), [2], "one message");
}
