"""Plays the checkout: `play.py ADDRESS NAMESPACE` against a running server, in a namespace that must be new. Prints one
line for each step, and exits with 1 if a step has another result than expected.
"""
import sys
import time
from datetime import timedelta

import grpc
from checkout import Order, Outcome, PaidButRefused, Payments, Refused, Unknown, call, checkout
from connection import connect
from inventory_sentinel.v1 import (
    inventory_admin_pb2,
    inventory_admin_pb2_grpc,
    inventory_sentinel_pb2,
    inventory_sentinel_pb2_grpc,
)

address, sale = sys.argv[1:]
channel = connect(address)
sentinel = inventory_sentinel_pb2_grpc.InventorySentinelStub(channel)
admin = inventory_admin_pb2_grpc.InventoryAdminStub(channel)
charges: list[str] = []  # The order of each charge, as the bank records it.
refunds: list[str] = []
paid: dict[str, int] = {}  # The attempt that has charged an order.


def payments(accept=True, meanwhile=lambda: None) -> Payments:
    """A bank that accepts or declines. `meanwhile` runs after that."""

    def pay(order, attempt):
        if accept and order.id not in paid:
            paid[order.id] = attempt
            charges.append(order.id)
        meanwhile()
        return accept

    def is_paid(order, attempt):
        return paid.get(order.id) == attempt

    def refund(order):
        if paid.pop(order.id, None):
            refunds.append(order.id)

    return Payments(pay, is_paid, refund)


def outlast_the_hold():
    time.sleep(0.5)  # Longer than the shortest hold below.


def step(name, order, attempt, bank, expected, charged, refunded=0, at=sentinel):
    try:
        outcome = checkout(at, bank, sale, order, attempt, show=lambda text: print(f"  {text}"))
    except (Refused, PaidButRefused, Unknown, InterruptedError) as error:
        outcome = type(error)
    print(f"{name}: {outcome.value if isinstance(outcome, Outcome) else outcome.__name__}")
    actual = outcome, charges.count(order.id), refunds.count(order.id)
    if actual != (expected, charged, refunded):
        sys.exit(f"python: {name}: expected {expected}, {charged} charges, {refunded} refunds, got {actual}")


for sku, units in [("phone", 10), ("last", 1), ("none", 0)]:
    call(
        admin.SetStock,
        inventory_admin_pb2.SetStockRequest(namespace_id=sale, sku=sku, on_hand=units, request_id=f"stock-{sku}"),
    )

amy = Order("order-1", "amy", "phone")
step("a purchase", amy, 1, payments(), Outcome.BOUGHT, 1)
step("the same order again", amy, 1, payments(), Outcome.ALREADY_BOUGHT, 1)
bob = Order("order-2", "bob", "phone")
step("a declined payment", bob, 1, payments(accept=False), Outcome.DECLINED, 0)
step("the same attempt again", bob, 1, payments(), Outcome.OVER, 0)
step("the next attempt", bob, 2, payments(), Outcome.BOUGHT, 1)
step("the attempt before by mistake", bob, 1, payments(), Outcome.OVER, 1)
step("a product that is sold out", Order("order-3", "cleo", "none"), 1, payments(), Outcome.SOLD_OUT, 0)
late = Order("order-4", "dan", "phone", hold=timedelta(milliseconds=100))
step("a payment that takes longer than the hold", late, 1, payments(meanwhile=outlast_the_hold), Outcome.BOUGHT, 1)
step("the same order again", late, 1, payments(), Outcome.ALREADY_BOUGHT, 1)


def crash():
    outlast_the_hold()
    raise InterruptedError


crashed = Order("order-5", "eve", "phone", hold=timedelta(milliseconds=100))
step("a crash after the payment", crashed, 1, payments(meanwhile=crash), InterruptedError, 1)
step("the same attempt after the crash", crashed, 1, payments(), Outcome.BOUGHT, 1)


def sell_the_last():
    outlast_the_hold()
    step("  another buyer meanwhile", Order("order-7", "gus", "last"), 1, payments(), Outcome.BOUGHT, 1)


loser = Order("order-6", "flo", "last", hold=timedelta(milliseconds=100))
step("a payment too late for the last unit", loser, 1, payments(meanwhile=sell_the_last), Outcome.REFUNDED, 1, 1)
step("a product that does not exist", Order("order-8", "hal", "nothing"), 1, payments(), Refused, 0)
twice = Order("order-13", "max", "phone")


def buy_in_another_run():
    step("  another run of the order meanwhile", twice, 1, payments(), Outcome.BOUGHT, 1)


declines = payments(accept=False, meanwhile=buy_in_another_run)
step("a declined payment of an order that is bought", twice, 1, declines, Outcome.ALREADY_BOUGHT, 1)
too_late = Order("order-14", "ned", "phone", hold=timedelta(milliseconds=100))


def buy_late_in_another_run():
    slow = payments(meanwhile=outlast_the_hold)
    step("  another run buys it late meanwhile", too_late, 1, slow, Outcome.BOUGHT, 1)


declines = payments(accept=False, meanwhile=buy_late_in_another_run)
step("a declined payment of an order that is bought late", too_late, 1, declines, Outcome.ALREADY_BOUGHT, 1)
kim = Order("order-11", "kim", "none")
payments().pay(kim, 1)  # Simulates a crash after the payment; the store has lost the hold since.
step("paid, the hold is lost, and the product is sold out", kim, 1, payments(), Outcome.REFUNDED, 1, 1)
lea = Order("order-12", "lea", "nothing")
payments().pay(lea, 1)
step("paid, the hold is lost, and the product was removed", lea, 1, payments(), PaidButRefused, 1)


class Lost(grpc.RpcError):
    """The error of a client library after a broken connection: it has no ErrorInfo."""

    def trailing_metadata(self):
        return None


class LosesAnswers:
    """The same server behind a faulty network: it applies each call, and the first response to each is lost."""

    def __init__(self):
        self.lost = set()

    def __getattr__(self, name):
        def method(request, timeout):
            answer = getattr(sentinel, name)(request, timeout=timeout)
            if name not in self.lost:
                self.lost.add(name)
                raise Lost
            return answer

        return method


step("answers that get lost", Order("order-10", "joe", "phone"), 1, payments(), Outcome.BOUGHT, 1, at=LosesAnswers())
with connect("127.0.0.1:1") as nowhere:
    away = inventory_sentinel_pb2_grpc.InventorySentinelStub(nowhere)
    step("a server that is away", Order("order-9", "ida", "phone"), 1, payments(), Unknown, 0, at=away)

stock = call(sentinel.GetStock, inventory_sentinel_pb2.GetStockRequest(namespace_id=sale, sku="phone")).stock
if (stock.available, stock.held, stock.sold) != (3, 0, 7):
    sys.exit(f"python: seven buyers have bought a phone each, and the stock is {stock}")
