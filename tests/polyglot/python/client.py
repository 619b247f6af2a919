# Tests the proto in Python: `client.py ADDRESS NAMESPACE` runs a small sale against a running server, only with the
# code generated from proto/. Touches only that namespace, which must be new.
import sys
import uuid

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from inventory_sentinel.v1 import (
    inventory_admin_pb2,
    inventory_admin_pb2_grpc,
    inventory_sentinel_pb2,
    inventory_sentinel_pb2_grpc,
    types_pb2,
)

DEADLINE_SECONDS = 10
DOMAIN = "inventory-sentinel"


def expect(actual, expected, what):
    if actual != expected:
        sys.exit(f"python: {what}: expected {expected!r}, got {actual!r}")


def refusal(call, request):
    """The gRPC code, the ErrorInfo and the BadRequest (or None) of a call that must be refused."""
    try:
        call(request, timeout=DEADLINE_SECONDS)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            sys.exit(f"python: no google.rpc.Status in {error!r}")
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        found = [any_.Unpack(info) or any_.Unpack(bad_request) for any_ in status.details]
        expect(any(found), True, "details of the refusal")
        expect(info.domain, DOMAIN, "domain of the refusal")
        return error.code(), info, bad_request
    sys.exit(f"python: not refused: {request}")


def main(address, namespace):
    sku = "t-shirt"
    with grpc.insecure_channel(address) as channel:
        checkout = inventory_sentinel_pb2_grpc.InventorySentinelStub(channel)
        admin = inventory_admin_pb2_grpc.InventoryAdminStub(channel)

        def call(method, request):
            return method(request, timeout=DEADLINE_SECONDS)

        def reserve(quantity, request_id):
            return inventory_sentinel_pb2.ReserveRequest(
                namespace_id=namespace,
                request_id=request_id,
                lines=[types_pb2.Line(sku=sku, quantity=quantity)],
                ttl=duration_pb2.Duration(seconds=60),
            )

        set_stock = inventory_admin_pb2.SetStockRequest(
            namespace_id=namespace, sku=sku, on_hand=5, request_id=str(uuid.uuid4())
        )
        answer = call(admin.SetStock, set_stock)
        expect((answer.stock.available, answer.replayed), (5, False), "SetStock")
        expect(call(admin.SetStock, set_stock).replayed, True, "SetStock repeated")

        wanted = reserve(2, str(uuid.uuid4()))
        answer = call(checkout.Reserve, wanted)
        expect(answer.WhichOneof("result"), "reservation", "Reserve")
        held = answer.reservation
        expect(held.state, types_pb2.RESERVATION_STATE_PENDING, "state after Reserve")
        expect([(line.sku, line.held) for line in held.lines], [(sku, 2)], "lines after Reserve")
        life = held.expires_at.ToMilliseconds() - held.created_at.ToMilliseconds()
        expect(life, 60_000, "milliseconds from created_at to expires_at")
        packed = checkout.Reserve(wanted, timeout=DEADLINE_SECONDS, compression=grpc.Compression.Gzip)
        expect(packed.replayed, True, "Reserve repeated, compressed")
        again = call(checkout.Reserve, wanted)
        expect((again.reservation.reservation_id, again.replayed), (held.reservation_id, True), "Reserve repeated")

        answer = call(checkout.Reserve, reserve(100, str(uuid.uuid4())))
        expect(answer.WhichOneof("result"), "shortage", "Reserve of too many")
        short = answer.shortage.lines[0]
        expect((short.sku, short.requested, short.available), (sku, 100, 3), "shortage")

        commit = inventory_sentinel_pb2.CommitRequest(namespace_id=namespace, reservation_id=held.reservation_id)
        answer = call(checkout.Commit, commit)
        expect(answer.reservation.state, types_pb2.RESERVATION_STATE_COMMITTED, "state after Commit")
        expect((answer.replayed, call(checkout.Commit, commit).replayed), (False, True), "Commit and its repeat")

        stock = call(
            checkout.GetStock, inventory_sentinel_pb2.GetStockRequest(namespace_id=namespace, sku=sku)
        ).stock
        expect((stock.available, stock.held, stock.sold, stock.supplied), (3, 0, 2, 5), "GetStock at the end")

        code, info, bad_request = refusal(checkout.Reserve, reserve(0, str(uuid.uuid4())))
        expect((code, info.reason), (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUANTITY"), "Reserve of nothing")
        fields = [violation.field for violation in bad_request.field_violations]
        expect([field.endswith("quantity") for field in fields], [True], f"fields at fault {fields}")

        rollback = inventory_sentinel_pb2.RollbackRequest(namespace_id=namespace, reservation_id=held.reservation_id)
        code, info, _ = refusal(checkout.Rollback, rollback)
        expect(
            (code, info.reason),
            (grpc.StatusCode.FAILED_PRECONDITION, "RESERVATION_ALREADY_COMMITTED"),
            "Rollback after Commit",
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
