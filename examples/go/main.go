// Plays the checkout: `checkout ADDRESS NAMESPACE` against a running server, in a namespace that must be new. Prints
// one line for each step, and exits with 1 if a step has another result than expected.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "checkout/inventory_sentinel/v1"
)

var (
	errCrash = errors.New("the process stops here")
	// Charges and refunds by order, as the bank records them.
	charges, refunds = map[string]int{}, map[string]int{}
	// The attempt that has charged an order.
	paid = map[string]int{}
)

// bank accepts or declines. meanwhile runs after that.
func bank(accept bool, meanwhile func() error) Payments {
	return Payments{
		Pay: func(order Order, attempt int) (bool, error) {
			if accept && paid[order.ID] == 0 {
				charges[order.ID]++
				paid[order.ID] = attempt
			}
			return accept, meanwhile()
		},
		IsPaid: func(order Order, attempt int) (bool, error) { return paid[order.ID] == attempt, nil },
		Refund: func(order Order) error {
			if paid[order.ID] != 0 {
				refunds[order.ID]++
				delete(paid, order.ID)
			}
			return nil
		},
	}
}

// losesAnswers is the same server behind a faulty network: it applies each call, but the first response to each is
// lost. Client libraries then report an error without ErrorInfo.
type losesAnswers struct {
	pb.InventorySentinelClient
	lost map[string]bool
}

func (line losesAnswers) lose(method string) error {
	if line.lost[method] {
		return nil
	}
	line.lost[method] = true
	return status.Error(codes.Unavailable, "the connection broke")
}

func (line losesAnswers) Reserve(
	ctx context.Context, request *pb.ReserveRequest, options ...grpc.CallOption,
) (*pb.ReserveResponse, error) {
	answer, err := line.InventorySentinelClient.Reserve(ctx, request, options...)
	return answer, errors.Join(err, line.lose("Reserve"))
}

func (line losesAnswers) Commit(
	ctx context.Context, request *pb.CommitRequest, options ...grpc.CallOption,
) (*pb.CommitResponse, error) {
	answer, err := line.InventorySentinelClient.Commit(ctx, request, options...)
	return answer, errors.Join(err, line.lose("Commit"))
}

func main() {
	ctx, sale := context.Background(), os.Args[2]
	connection, err := connect(os.Args[1])
	must(err)
	defer connection.Close()
	sentinel, admin := pb.NewInventorySentinelClient(connection), pb.NewInventoryAdminClient(connection)
	for sku, units := range map[string]int64{"phone": 10, "last": 1, "none": 0} {
		_, err = call(ctx, admin.SetStock,
			&pb.SetStockRequest{NamespaceId: sale, Sku: sku, OnHand: units, RequestId: "stock-" + sku})
		must(err)
	}

	play := func(
		at pb.InventorySentinelClient, name string, order Order, attempt int, payments Payments,
	) (Outcome, error) {
		outcome, err := checkout(ctx, at, payments, sale, order, attempt)
		if err != nil {
			fmt.Printf("%s: %v\n", name, err)
		} else {
			fmt.Printf("%s: %s\n", name, outcome)
		}
		return outcome, err
	}
	booked := func(name string, order Order, expectedCharges, expectedRefunds int) {
		if charges[order.ID] != expectedCharges || refunds[order.ID] != expectedRefunds {
			must(fmt.Errorf("%s: %d charges, %d refunds", name, charges[order.ID], refunds[order.ID]))
		}
	}
	var at pb.InventorySentinelClient = sentinel
	step := func(name string, order Order, attempt int, payments Payments, expected Outcome, charged, refunded int) {
		outcome, err := play(at, name, order, attempt, payments)
		if err != nil || outcome != expected {
			must(fmt.Errorf("%s: expected %q, got %q, %v", name, expected, outcome, err))
		}
		booked(name, order, charged, refunded)
	}
	order := func(id, buyer, sku string, hold time.Duration) Order { return Order{id, buyer, sku, 1, hold} }
	const usual, short = 5 * time.Minute, 100 * time.Millisecond
	nothing := func() error { return nil }
	outlastTheHold := func() error { time.Sleep(5 * short); return nil }
	accepts := bank(true, nothing)

	amy := order("order-1", "amy", "phone", usual)
	step("a purchase", amy, 1, accepts, Bought, 1, 0)
	step("the same order again", amy, 1, accepts, AlreadyBought, 1, 0)
	bob := order("order-2", "bob", "phone", usual)
	step("a declined payment", bob, 1, bank(false, nothing), Declined, 0, 0)
	step("the same attempt again", bob, 1, accepts, Over, 0, 0)
	step("the next attempt", bob, 2, accepts, Bought, 1, 0)
	step("the attempt before by mistake", bob, 1, accepts, Over, 1, 0)
	step("a product that is sold out", order("order-3", "cleo", "none", usual), 1, accepts, SoldOut, 0, 0)
	late := order("order-4", "dan", "phone", short)
	step("a payment that takes longer than the hold", late, 1, bank(true, outlastTheHold), Bought, 1, 0)
	step("the same order again", late, 1, accepts, AlreadyBought, 1, 0)

	crashed := order("order-5", "eve", "phone", short)
	_, err = play(sentinel, "a crash after the payment", crashed, 1,
		bank(true, func() error { return errors.Join(outlastTheHold(), errCrash) }))
	if !errors.Is(err, errCrash) {
		must(fmt.Errorf("no crash: %v", err))
	}
	step("the same attempt after the crash", crashed, 1, accepts, Bought, 1, 0)

	sellTheLast := func() error {
		step("  another buyer meanwhile", order("order-7", "gus", "last", usual), 1, accepts, Bought, 1, 0)
		return nil
	}
	step("a payment too late for the last unit", order("order-6", "flo", "last", short), 1,
		bank(true, func() error { return errors.Join(outlastTheHold(), sellTheLast()) }), Refunded, 1, 1)

	unknown := order("order-8", "hal", "nothing", usual)
	_, err = play(sentinel, "a product that does not exist", unknown, 1, accepts)
	if refused := (Refused{}); !errors.As(err, &refused) || refused.Reason != "SKU_NOT_FOUND" {
		must(fmt.Errorf("not refused: %v", err))
	}
	booked("a product that does not exist", unknown, 0, 0)

	twice := order("order-13", "max", "phone", usual)
	buyInAnotherRun := func() error {
		step("  another run of the order meanwhile", twice, 1, accepts, Bought, 1, 0)
		return nil
	}
	step("a declined payment of an order that is bought", twice, 1, bank(false, buyInAnotherRun), AlreadyBought, 1, 0)
	tooLate := order("order-14", "ned", "phone", short)
	buyLateInAnotherRun := func() error {
		step("  another run buys it late meanwhile", tooLate, 1, bank(true, outlastTheHold), Bought, 1, 0)
		return nil
	}
	step("a declined payment of an order that is bought late", tooLate, 1, bank(false, buyLateInAnotherRun),
		AlreadyBought, 1, 0)
	kim := order("order-11", "kim", "none", usual)
	_, err = accepts.Pay(kim, 1) // Simulates a crash after the payment; the store has lost the hold since.
	must(err)
	step("paid, the hold is lost, and the product is sold out", kim, 1, accepts, Refunded, 1, 1)
	lea := order("order-12", "lea", "nothing", usual)
	_, err = accepts.Pay(lea, 1)
	must(err)
	_, err = play(sentinel, "paid, the hold is lost, and the product was removed", lea, 1, accepts)
	if open := (PaidButRefused{}); !errors.As(err, &open) || open.Refusal.Reason != "SKU_NOT_FOUND" {
		must(fmt.Errorf("not left open: %v", err))
	}
	booked("paid, the hold is lost, and the product was removed", lea, 1, 0)

	at = losesAnswers{sentinel, map[string]bool{}}
	step("answers that get lost", order("order-10", "joe", "phone", usual), 1, accepts, Bought, 1, 0)
	nowhere, err := connect("127.0.0.1:1")
	must(err)
	defer nowhere.Close()
	unheard := order("order-9", "ida", "phone", usual)
	_, err = play(pb.NewInventorySentinelClient(nowhere), "a server that is away", unheard, 1, accepts)
	if unknown := (Unknown{}); !errors.As(err, &unknown) {
		must(fmt.Errorf("not unknown: %v", err))
	}
	booked("a server that is away", unheard, 0, 0)

	counters, err := call(ctx, sentinel.GetStock, &pb.GetStockRequest{NamespaceId: sale, Sku: "phone"})
	must(err)
	if stock := counters.GetStock(); stock.GetAvailable() != 3 || stock.GetHeld() != 0 || stock.GetSold() != 7 {
		must(fmt.Errorf("seven buyers have bought a phone each, and the stock is %v", stock))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
}
