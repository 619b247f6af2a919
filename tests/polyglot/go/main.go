// Tests the proto in Go: `client ADDRESS NAMESPACE` runs a small sale against a running server, only with the code
// generated from proto/. Touches only that namespace, which must be new.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/inventory-sentinel/inventory-sentinel/gen/go/inventory_sentinel/v1"
)

const (
	domain = "inventory-sentinel"
	// For the whole sale.
	deadline = 30 * time.Second
	sku      = "t-shirt"
)

func main() {
	if len(os.Args) != 3 {
		fatal("usage: client ADDRESS NAMESPACE")
	}
	namespace := os.Args[2]
	channel, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err, "dial")
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	checkout, admin := pb.NewInventorySentinelClient(channel), pb.NewInventoryAdminClient(channel)

	setStock := &pb.SetStockRequest{NamespaceId: namespace, Sku: sku, OnHand: 5, RequestId: rand.Text()}
	stocked, err := admin.SetStock(ctx, setStock)
	must(err, "SetStock")
	expect(stocked.GetStock().GetAvailable(), 5, "available after SetStock")
	expect(stocked.GetReplayed(), false, "SetStock replayed")
	stocked, err = admin.SetStock(ctx, setStock)
	must(err, "SetStock repeated")
	expect(stocked.GetReplayed(), true, "SetStock repeated")

	reserve := func(quantity int32) *pb.ReserveRequest {
		return &pb.ReserveRequest{
			NamespaceId: namespace,
			RequestId:   rand.Text(),
			Lines:       []*pb.Line{{Sku: sku, Quantity: quantity}},
			Ttl:         durationpb.New(time.Minute),
		}
	}
	wanted := reserve(2)
	reserved, err := checkout.Reserve(ctx, wanted)
	must(err, "Reserve")
	held := reserved.GetReservation()
	expect(held.GetState(), pb.ReservationState_RESERVATION_STATE_PENDING, "state after Reserve")
	expect(len(held.GetLines()), 1, "lines after Reserve")
	expect(held.GetLines()[0].GetHeld(), 2, "units held after Reserve")
	expect(held.GetExpiresAt().AsTime().Sub(held.GetCreatedAt().AsTime()), time.Minute, "from created_at to expires_at")
	reserved, err = checkout.Reserve(ctx, wanted)
	must(err, "Reserve repeated")
	expect(reserved.GetReplayed(), true, "Reserve repeated")
	expect(reserved.GetReservation().GetReservationId(), held.GetReservationId(), "id of Reserve repeated")

	reserved, err = checkout.Reserve(ctx, wanted, grpc.UseCompressor(gzip.Name))
	must(err, "Reserve repeated, compressed")
	expect(reserved.GetReplayed(), true, "Reserve repeated, compressed")

	reserved, err = checkout.Reserve(ctx, reserve(100))
	must(err, "Reserve of too many")
	short, isShortage := reserved.GetResult().(*pb.ReserveResponse_Shortage)
	expect(isShortage, true, "Reserve of too many is short")
	expect(short.Shortage.GetLines()[0].GetRequested(), 100, "units requested")
	expect(short.Shortage.GetLines()[0].GetAvailable(), 3, "units there were")

	commit := &pb.CommitRequest{NamespaceId: namespace, ReservationId: held.GetReservationId()}
	for _, replayed := range []bool{false, true} {
		committed, err := checkout.Commit(ctx, commit)
		must(err, "Commit")
		expect(committed.GetReservation().GetState(), pb.ReservationState_RESERVATION_STATE_COMMITTED, "state after Commit")
		expect(committed.GetReplayed(), replayed, "Commit replayed")
	}

	counters, err := checkout.GetStock(ctx, &pb.GetStockRequest{NamespaceId: namespace, Sku: sku})
	must(err, "GetStock")
	stock := counters.GetStock()
	expect([4]int64{stock.GetAvailable(), stock.GetHeld(), stock.GetSold(), stock.GetSupplied()}, [4]int64{3, 0, 2, 5}, "GetStock at the end")

	_, err = checkout.Reserve(ctx, reserve(0))
	violations := refused(err, codes.InvalidArgument, "INVALID_QUANTITY").GetFieldViolations()
	expect(len(violations), 1, "fields at fault")
	expect(strings.HasSuffix(violations[0].GetField(), "quantity"), true, "field at fault "+violations[0].GetField())

	_, err = checkout.Rollback(ctx, &pb.RollbackRequest{NamespaceId: namespace, ReservationId: held.GetReservationId()})
	refused(err, codes.FailedPrecondition, "RESERVATION_ALREADY_COMMITTED")
}

// refused checks that a call was refused for this reason and returns the field violations, possibly none.
func refused(err error, code codes.Code, reason string) *errdetails.BadRequest {
	answer := status.Convert(err)
	expect(answer.Code(), code, "code of the refusal "+reason)
	var info *errdetails.ErrorInfo
	var badRequest *errdetails.BadRequest
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.BadRequest:
			badRequest = detail
		}
	}
	expect(info.GetReason(), reason, "reason of the refusal")
	expect(info.GetDomain(), domain, "domain of the refusal")
	return badRequest
}

func expect[T comparable](actual, expected T, what string) {
	if actual != expected {
		fatal(fmt.Sprintf("%s: expected %v, got %v", what, expected, actual))
	}
}

func must(err error, what string) {
	if err != nil {
		fatal(fmt.Sprintf("%s: %v", what, err))
	}
}

func fatal(message string) {
	fmt.Fprintln(os.Stderr, "go: "+message)
	os.Exit(1)
}
