// A checkout that charges at most once: reserves, takes the payment, commits. It can be run again after any error.
//
// This line generates the client, from this folder, with protoc, protoc-gen-go and protoc-gen-go-grpc in PATH:
//
//	protoc -I ../../proto --go_out=. --go_opt=paths=source_relative \
//	  --go-grpc_out=. --go-grpc_opt=paths=source_relative ../../proto/inventory_sentinel/v1/*.proto
//
// connection.go connects to the server. docs/start/first-checkout.md explains it; main.go plays it.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "checkout/inventory_sentinel/v1"
)

// region call

const (
	callTimeout  = 2 * time.Second        // The deadline of one call.
	callAttempts = 5                      // The most attempts of a call.
	firstPause   = 100 * time.Millisecond // The longest pause before the first repeat; doubles with each repeat.
)

// Refused: the service refused the call for this reason, and repeating it does not help.
type Refused struct{ *errdetails.ErrorInfo }

func (refused Refused) Error() string { return fmt.Sprintf("%s %v", refused.Reason, refused.Metadata) }

// Unknown: the call may have been applied. Run the checkout again later, with the same attempt number.
type Unknown struct{ Last error }

func (unknown Unknown) Error() string { return "outcome unknown: " + unknown.Last.Error() }

// PaidButRefused: the order is charged, and the service refuses its units. The order stays open: run the checkout again
// later with the same attempt number, or let a person decide.
type PaidButRefused struct{ Refusal Refused }

func (open PaidButRefused) Error() string { return "paid, but refused: " + open.Refusal.Error() }

// call sends the same request until the service responds, or no attempt is left.
func call[Request, Response any](
	ctx context.Context,
	method func(context.Context, *Request, ...grpc.CallOption) (*Response, error),
	request *Request,
) (*Response, error) {
	var last error
	for attempt := range callAttempts {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		response, err := method(callCtx, request)
		cancel()
		if err == nil {
			return response, nil
		}
		last = err
		var info *errdetails.ErrorInfo
		var retry *errdetails.RetryInfo
		for _, detail := range status.Convert(err).Details() {
			switch detail := detail.(type) {
			case *errdetails.ErrorInfo:
				info = detail
			case *errdetails.RetryInfo:
				retry = detail
			}
		}
		if info.GetDomain() == "inventory-sentinel" && retry == nil {
			return nil, Refused{info}
		}
		// The service permits a retry, or the outcome is unknown because it did not respond. The
		// retry has the same request_id, so it can't have a second effect.
		pause := retry.GetRetryDelay().AsDuration() + rand.N(firstPause<<attempt)
		select {
		case <-ctx.Done():
			return nil, Unknown{last}
		case <-time.After(pause):
		}
	}
	return nil, Unknown{last}
}

// endregion call

// Order is one purchase of one product.
type Order struct {
	ID, Buyer, SKU string
	Quantity       int32
	Hold           time.Duration
}

// Payments: each function is idempotent by Order.ID. An order is charged once, whatever attempts
// and repeats there are.
type Payments struct {
	Pay    func(order Order, attempt int) (accepted bool, err error) // Stores the attempt with the charge.
	IsPaid func(order Order, attempt int) (bool, error)              // Whether this attempt has charged the order.
	Refund func(Order) error
}

// Outcome of a checkout.
type Outcome string

const (
	Bought        Outcome = "bought"
	AlreadyBought Outcome = "bought before, not charged again"
	SoldOut       Outcome = "sold out"
	Declined      Outcome = "payment declined: another payment is attempt + 1"
	Over          Outcome = "this attempt is over and did not charge: continue with attempt + 1"
	Refunded      Outcome = "paid too late and sold out: refunded"
)

// region checkout

// checkout buys one order. Its error is Refused if the order is not charged, PaidButRefused if it is, Unknown, or an
// error of the payments.
func checkout(
	ctx context.Context, sentinel pb.InventorySentinelClient, payments Payments, sale string, order Order, attempt int,
) (Outcome, error) {
	answer, err := call(ctx, sentinel.Reserve, &pb.ReserveRequest{
		NamespaceId: sale,
		RequestId:   fmt.Sprintf("%s-%d", order.ID, attempt),
		BuyerId:     order.Buyer,
		Lines:       []*pb.Line{{Sku: order.SKU, Quantity: order.Quantity}},
		Ttl:         durationpb.New(order.Hold),
	})
	if refused := (Refused{}); errors.As(err, &refused) {
		// An earlier run may have stopped after the payment, and the store has lost or forgotten its hold since.
		if paid, err := payments.IsPaid(order, attempt); err != nil {
			return "", err
		} else if paid {
			return "", PaidButRefused{refused}
		}
	}
	if err != nil {
		return "", err
	}
	var held *pb.Reservation
	switch result := answer.GetResult().(type) {
	case *pb.ReserveResponse_Reservation:
		held = result.Reservation
		fmt.Printf("  %d %s held until %s\n", order.Quantity, order.SKU, held.GetExpiresAt().AsTime().Format(time.RFC3339))
		accepted, err := payments.Pay(order, attempt)
		if err != nil {
			return "", err // It may have been charged: run the checkout again, with the same attempt number.
		}
		if !accepted {
			released, err := call(ctx, sentinel.Rollback,
				&pb.RollbackRequest{NamespaceId: sale, ReservationId: held.GetReservationId()})
			refused := Refused{}
			isBought := errors.As(err, &refused) && refused.Reason == "RESERVATION_ALREADY_COMMITTED"
			if isBought || released.GetReservation().GetPurchaseReservationId() != "" {
				return AlreadyBought, nil // By another run of this attempt, in time or late.
			}
			return Declined, err
		}
	case *pb.ReserveResponse_AlreadyPurchased:
		return AlreadyBought, nil
	case *pb.ReserveResponse_AlreadyReleased:
		held = result.AlreadyReleased
		if paid, err := payments.IsPaid(order, attempt); err != nil || !paid {
			return Over, err
		}
		// The process stopped between payment and Commit, and the hold ran out: the Commit below is a late one.
	case *pb.ReserveResponse_Shortage:
		if paid, err := payments.IsPaid(order, attempt); err != nil || !paid {
			return SoldOut, err
		}
		// The process stopped after the payment, and the store has lost or forgotten the hold since.
		return Refunded, payments.Refund(order)
	default:
		return "", fmt.Errorf("a later server answers %T: charge nothing", result)
	}
	_, err = call(ctx, sentinel.Commit, &pb.CommitRequest{
		NamespaceId:   sale,
		ReservationId: held.GetReservationId(),
		LatePolicy:    pb.LatePolicy_LATE_POLICY_REPURCHASE,
	})
	if refused := (Refused{}); errors.As(err, &refused) {
		switch refused.Reason {
		case "LATE_COMMIT_SOLD_OUT", "RESERVATION_ROLLED_BACK", "BUYER_LIMIT", "BUYER_REQUIRED":
			// The buyer has paid and gets nothing. For any other reason the order stays open.
			return Refunded, payments.Refund(order)
		}
		return "", PaidButRefused{refused}
	}
	if err != nil {
		return "", err
	}
	return Bought, nil
}

// endregion checkout
