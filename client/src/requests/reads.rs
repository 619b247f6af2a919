//! The reads of the checkout service: reservations, counters, protection. Sends by a scope; keeps no state.

use inventory_sentinel::v1;

use crate::{
    convert::StockRead,
    operation_errors::{BatchGetStockError, GetReservationError, GetStockError, IsProtectedError},
    rpc_error::RpcError,
    scope::Scope,
    transport::stubs::checkout_client,
    types::{Reservation, Snapshot, Stock},
};

/// SKUs of one message: the most that the server accepts.
const SKUS_PER_MESSAGE: usize = 512;

/// Reads a reservation by its id or by the `request_id` of its Reserve; the other is empty.
pub(crate) async fn reservation(
    scope: &Scope,
    reservation_id: &str,
    request_id: &str,
) -> Result<Snapshot<Reservation>, GetReservationError> {
    let message = v1::GetReservationRequest {
        namespace_id: scope.namespace_id(),
        reservation_id: reservation_id.to_owned(),
        request_id: request_id.to_owned(),
    };
    let send = |channel, request| async { checkout_client(channel).get_reservation(request).await };
    Ok(scope.read(message, send).await?)
}

pub(crate) async fn stock(scope: &Scope, sku: &str) -> Result<Snapshot<Stock>, GetStockError> {
    let message = v1::GetStockRequest { namespace_id: scope.namespace_id(), sku: sku.to_owned() };
    let send = |channel, request| async { checkout_client(channel).get_stock(request).await };
    Ok(scope.read(message, send).await?)
}

pub(crate) async fn is_protected(scope: &Scope, sku: &str) -> Result<bool, IsProtectedError> {
    let message = v1::IsProtectedRequest { namespace_id: scope.namespace_id(), sku: sku.to_owned() };
    let send = |channel, request| async { checkout_client(channel).is_protected(request).await };
    Ok(scope.read(message, send).await?)
}

/// Reads the counters of these SKUs, one message after the other.
pub(crate) async fn stock_of(
    scope: &Scope,
    skus: Vec<String>,
) -> Result<Vec<Option<Snapshot<Stock>>>, BatchGetStockError> {
    let mut stocks = Vec::with_capacity(skus.len());
    for skus in skus.chunks(SKUS_PER_MESSAGE) {
        let message = v1::BatchGetStockRequest { namespace_id: scope.namespace_id(), skus: skus.to_vec() };
        let send = |channel, request| async { checkout_client(channel).batch_get_stock(request).await };
        let read = scope.read(message, send).await?;
        stocks.extend(in_order(skus, read).map_err(RpcError::into_read)?);
    }
    Ok(stocks)
}

/// Sorts the response into the order of the request. Each SKU is either found or unknown.
fn in_order(skus: &[String], read: StockRead) -> Result<Vec<Option<Snapshot<Stock>>>, RpcError> {
    if read.found.len() + read.unknown.len() != skus.len() {
        return Err(RpcError::malformed("not one result for each sku"));
    }
    let (mut found, mut unknown) = (read.found.into_iter().peekable(), read.unknown.into_iter());
    let stock_of = |sku: &String| match found.next_if(|stock| stock.sku == *sku) {
        Some(stock) => Ok(Some(stock)),
        None if unknown.next().as_ref() == Some(sku) => Ok(None),
        None => Err(RpcError::malformed("neither the stock of a sku nor that it is unknown")),
    };
    skus.iter().map(stock_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Decode as _;

    fn read(found: &[&str], unknown: &[&str]) -> StockRead {
        let found = found.iter().map(|&sku| v1::GetStockResponse {
            stock: Some(v1::Stock { sku: sku.into(), ..v1::Stock::default() }),
            sequence: 1,
        });
        let unknown_skus = unknown.iter().map(|&sku| sku.to_owned()).collect();
        v1::BatchGetStockResponse { found: found.collect(), unknown_skus }.decode().unwrap()
    }

    fn known(skus: &[&str], read: StockRead) -> Result<Vec<bool>, RpcError> {
        let skus: Vec<String> = skus.iter().map(|&sku| sku.to_owned()).collect();
        let stocks = in_order(&skus, read)?;
        assert!(stocks.iter().zip(&skus).all(|(stock, sku)| stock.as_ref().is_none_or(|stock| stock.sku == *sku)));
        Ok(stocks.iter().map(Option::is_some).collect())
    }

    #[test]
    fn stock_is_told_in_the_order_of_the_skus() {
        assert_eq!(
            known(&["a", "x", "b", "a", "x"], read(&["a", "b", "a"], &["x", "x"])).unwrap(),
            [true, false, true, true, false]
        );
        assert!(known(&[], read(&[], &[])).unwrap().is_empty());
    }

    #[test]
    fn a_sku_that_is_not_answered_is_not_taken_for_unknown() {
        assert!(known(&["a", "b"], read(&["a"], &[])).is_err());
        assert!(known(&["a"], read(&["a"], &["b"])).is_err());
        assert!(known(&["a"], read(&[], &["b"])).is_err());
    }
}
