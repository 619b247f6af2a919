"""A checkout that charges at most once: reserves, takes the payment, commits. It can be run again after any error.

Needs the packages of requirements.txt and the code that this line generates, from the root of the repository:
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/inventory_sentinel/v1/*.proto
connection.py connects to the server. docs/start/first-checkout.md explains it; play.py plays it.
"""
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from inventory_sentinel.v1 import inventory_sentinel_pb2, inventory_sentinel_pb2_grpc, types_pb2

# region call
CALL_SECONDS = 2  # The deadline of one call.
CALL_ATTEMPTS = 5  # The most attempts of a call.
FIRST_PAUSE_SECONDS = 0.1  # The longest pause before the first repeat; doubles with each repeat.


class Refused(Exception):
    """The service refused the call for this reason, and repeating it does not help."""

    def __init__(self, info: error_details_pb2.ErrorInfo):
        super().__init__(info.reason, dict(info.metadata))
        self.reason = info.reason


class Unknown(Exception):
    """The call may have been applied. Run the checkout again later, with the same attempt number."""


class PaidButRefused(Exception):
    """The order is charged, and the service refuses its units. The order stays open: run the checkout again later with
    the same attempt number, or let a person decide.
    """


def call(method, request):
    """Sends the same request until the service responds, or no attempt is left."""
    for attempt in range(CALL_ATTEMPTS):
        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            info, retry, failure = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error
            status = rpc_status.from_call(error)
            for detail in status.details if status else []:
                detail.Unpack(info) or detail.Unpack(retry)
        if info.domain == "inventory-sentinel" and not retry.HasField("retry_delay"):
            raise Refused(info)
        # The service permits a retry, or the outcome is unknown because it did not respond. The
        # retry has the same request_id, so it can't have a second effect.
        pause = FIRST_PAUSE_SECONDS * 2**attempt * random.random()
        time.sleep(retry.retry_delay.ToMilliseconds() / 1000 + pause)
    raise Unknown(failure)
# endregion call


@dataclass
class Order:
    id: str
    buyer: str
    sku: str
    quantity: int = 1
    hold: timedelta = timedelta(minutes=5)


@dataclass
class Payments:
    """Each function is idempotent by order.id: an order is charged once, whatever attempts and repeats there are."""

    pay: Callable[[Order, int], bool]  # The order and the attempt, which is stored with the charge. False: declined.
    is_paid: Callable[[Order, int], bool]  # Whether this attempt has charged the order.
    refund: Callable[[Order], None]


class Outcome(Enum):
    BOUGHT = "bought"
    ALREADY_BOUGHT = "bought before, not charged again"
    SOLD_OUT = "sold out"
    DECLINED = "payment declined: another payment is attempt + 1"
    OVER = "this attempt is over and did not charge: continue with attempt + 1"
    REFUNDED = "paid too late and sold out: refunded"


# region checkout
# The reasons of a Commit after which a buyer that has paid gets nothing.
NOT_SOLD = ("LATE_COMMIT_SOLD_OUT", "RESERVATION_ROLLED_BACK", "BUYER_LIMIT", "BUYER_REQUIRED")


def checkout(
    sentinel: inventory_sentinel_pb2_grpc.InventorySentinelStub,
    payments: Payments,
    sale: str,
    order: Order,
    attempt: int,
    show: Callable[[str], None] = print,
) -> Outcome:
    """Buys one order. Raises Refused if the order is not charged, PaidButRefused if it is, and Unknown."""
    reserve = inventory_sentinel_pb2.ReserveRequest(
        namespace_id=sale,
        request_id=f"{order.id}-{attempt}",
        buyer_id=order.buyer,
        lines=[types_pb2.Line(sku=order.sku, quantity=order.quantity)],
        ttl=order.hold,
    )
    try:
        answer = call(sentinel.Reserve, reserve)
    except Refused as refused:
        # An earlier run may have stopped after the payment, and the store has lost or forgotten its hold since.
        if payments.is_paid(order, attempt):
            raise PaidButRefused(refused.reason) from refused
        raise
    match answer.WhichOneof("result"):
        case "reservation":
            held = answer.reservation
            show(f"{order.quantity} {order.sku} held until {held.expires_at.ToJsonString()}")
            if not payments.pay(order, attempt):
                release = inventory_sentinel_pb2.RollbackRequest(namespace_id=sale, reservation_id=held.reservation_id)
                try:
                    is_bought = bool(call(sentinel.Rollback, release).reservation.purchase_reservation_id)
                except Refused as refused:
                    if refused.reason != "RESERVATION_ALREADY_COMMITTED":
                        raise
                    is_bought = True
                # Bought by another run of this attempt, late or in time.
                return Outcome.ALREADY_BOUGHT if is_bought else Outcome.DECLINED
        case "already_purchased":
            return Outcome.ALREADY_BOUGHT
        case "already_released":
            held = answer.already_released
            if not payments.is_paid(order, attempt):
                return Outcome.OVER
            # The process stopped between payment and Commit, and the hold ran out: the Commit below is a late one.
        case "shortage":
            if not payments.is_paid(order, attempt):
                return Outcome.SOLD_OUT
            # The process stopped after the payment, and the store has lost or forgotten the hold since.
            payments.refund(order)
            return Outcome.REFUNDED
        case other:
            raise NotImplementedError(f"a later server answers {other}: charge nothing")
    commit = inventory_sentinel_pb2.CommitRequest(
        namespace_id=sale,
        reservation_id=held.reservation_id,
        late_policy=inventory_sentinel_pb2.LATE_POLICY_REPURCHASE,
    )
    try:
        call(sentinel.Commit, commit)
    except Refused as refused:
        # The buyer has paid and gets nothing. For any other reason the order stays open.
        if refused.reason not in NOT_SOLD:
            raise PaidButRefused(refused.reason) from refused
        payments.refund(order)
        return Outcome.REFUNDED
    return Outcome.BOUGHT
# endregion checkout
