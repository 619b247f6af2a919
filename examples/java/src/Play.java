// Plays the checkout: `Play ADDRESS NAMESPACE` against a running server, in a namespace that must be new. Prints one
// line for each step, and exits with 1 if a step has another result than expected.
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.inventorysentinel.v1.GetStockRequest;
import io.inventorysentinel.v1.InventoryAdminGrpc;
import io.inventorysentinel.v1.InventorySentinelGrpc;
import io.inventorysentinel.v1.InventorySentinelGrpc.InventorySentinelBlockingStub;
import io.inventorysentinel.v1.SetStockRequest;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

final class Play {
    static final class Crash extends RuntimeException {}

    /**
     * The same server behind a faulty network: it applies each call, and the first response to each is lost. The client
     * library then reports an error without ErrorInfo.
     */
    static final class LosesAnswers implements ClientInterceptor {
        private final Set<String> lost = new HashSet<>();

        public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            var call = next.newCall(method, options);
            if (!lost.add(method.getFullMethodName())) {
                return call;
            }
            return new SimpleForwardingClientCall<>(call) {
                @Override
                public void start(Listener<R> caller, Metadata headers) {
                    super.start(new SimpleForwardingClientCallListener<>(caller) {
                        @Override
                        public void onMessage(R answer) {}

                        @Override
                        public void onClose(Status status, Metadata trailers) {
                            super.onClose(Status.UNAVAILABLE.withDescription("the connection broke"), new Metadata());
                        }
                    }, headers);
                }
            };
        }
    }

    interface Meanwhile {
        void happen() throws InterruptedException;
    }

    private final String sale;
    // The order of each charge and refund, as the bank records them.
    private final List<String> charges = new ArrayList<>();
    private final List<String> refunds = new ArrayList<>();
    // The attempt that has charged an order.
    private final Map<String, Integer> paid = new HashMap<>();

    private Play(String sale) {
        this.sale = sale;
    }

    /** A bank that accepts or declines. `meanwhile` runs after that. */
    private Checkout.Payments bank(boolean accepts, Meanwhile meanwhile) {
        return new Checkout.Payments() {
            public boolean pay(Checkout.Order order, int attempt) throws InterruptedException {
                if (accepts && paid.putIfAbsent(order.id(), attempt) == null) {
                    charges.add(order.id());
                }
                meanwhile.happen();
                return accepts;
            }

            public boolean isPaid(Checkout.Order order, int attempt) {
                return paid.getOrDefault(order.id(), 0) == attempt;
            }

            public void refund(Checkout.Order order) {
                if (paid.remove(order.id()) != null) {
                    refunds.add(order.id());
                }
            }
        };
    }

    private Checkout.Payments bank() {
        return bank(true, () -> {});
    }

    private void step(InventorySentinelBlockingStub at, String name, Checkout.Order order, int attempt,
        Checkout.Payments payments, Object expected, int charged, int refunded) throws InterruptedException {
        Object outcome;
        try {
            var result = Checkout.checkout(at, payments, sale, order, attempt);
            System.out.println(name + ": " + result.text);
            outcome = result;
        } catch (Checkout.Refused | Checkout.PaidButRefused | Checkout.Unknown | Crash error) {
            System.out.println(name + ": " + error);
            outcome = error.getClass();
        }
        var booked = List.of(Collections.frequency(charges, order.id()), Collections.frequency(refunds, order.id()));
        if (!outcome.equals(expected) || !booked.equals(List.of(charged, refunded))) {
            System.err.println("java: " + name + ": not " + expected + ", or charges and refunds are " + booked);
            System.exit(1);
        }
    }

    private static Checkout.Order order(String id, String buyer, String sku, Duration hold) {
        return new Checkout.Order(id, buyer, sku, 1, hold);
    }

    public static void main(String[] arguments) throws InterruptedException, IOException {
        var play = new Play(arguments[1]);
        var channel = Connection.connect(arguments[0]);
        var sentinel = InventorySentinelGrpc.newBlockingStub(channel);
        var admin = InventoryAdminGrpc.newBlockingStub(channel);
        for (var stock : Map.of("phone", 10, "last", 1, "none", 0).entrySet()) {
            var request = SetStockRequest.newBuilder().setNamespaceId(play.sale).setSku(stock.getKey())
                .setOnHand(stock.getValue()).setRequestId("stock-" + stock.getKey()).build();
            Checkout.call(admin, stub -> stub.setStock(request));
        }
        final Duration usual = Duration.ofMinutes(5), brief = Duration.ofMillis(100);
        Meanwhile outlastTheHold = () -> Thread.sleep(brief.multipliedBy(5).toMillis());

        var amy = order("order-1", "amy", "phone", usual);
        play.step(sentinel, "a purchase", amy, 1, play.bank(), Checkout.Outcome.BOUGHT, 1, 0);
        play.step(sentinel, "the same order again", amy, 1, play.bank(), Checkout.Outcome.ALREADY_BOUGHT, 1, 0);
        var bob = order("order-2", "bob", "phone", usual);
        play.step(sentinel, "a declined payment", bob, 1, play.bank(false, () -> {}), Checkout.Outcome.DECLINED, 0, 0);
        play.step(sentinel, "the same attempt again", bob, 1, play.bank(), Checkout.Outcome.OVER, 0, 0);
        play.step(sentinel, "the next attempt", bob, 2, play.bank(), Checkout.Outcome.BOUGHT, 1, 0);
        play.step(sentinel, "the attempt before by mistake", bob, 1, play.bank(), Checkout.Outcome.OVER, 1, 0);
        play.step(sentinel, "a product that is sold out", order("order-3", "cleo", "none", usual), 1, play.bank(),
            Checkout.Outcome.SOLD_OUT, 0, 0);
        var late = order("order-4", "dan", "phone", brief);
        play.step(sentinel, "a payment that takes longer than the hold", late, 1, play.bank(true, outlastTheHold),
            Checkout.Outcome.BOUGHT, 1, 0);
        play.step(sentinel, "the same order again", late, 1, play.bank(), Checkout.Outcome.ALREADY_BOUGHT, 1, 0);

        var crashed = order("order-5", "eve", "phone", brief);
        Meanwhile crash = () -> {
            outlastTheHold.happen();
            throw new Crash();
        };
        play.step(sentinel, "a crash after the payment", crashed, 1, play.bank(true, crash), Crash.class, 1, 0);
        play.step(sentinel, "the same attempt after the crash", crashed, 1, play.bank(), Checkout.Outcome.BOUGHT, 1, 0);

        Meanwhile sellTheLast = () -> {
            outlastTheHold.happen();
            play.step(sentinel, "  another buyer meanwhile", order("order-7", "gus", "last", usual), 1, play.bank(),
                Checkout.Outcome.BOUGHT, 1, 0);
        };
        play.step(sentinel, "a payment too late for the last unit", order("order-6", "flo", "last", brief), 1,
            play.bank(true, sellTheLast), Checkout.Outcome.REFUNDED, 1, 1);
        play.step(sentinel, "a product that does not exist", order("order-8", "hal", "nothing", usual), 1, play.bank(),
            Checkout.Refused.class, 0, 0);

        var twice = order("order-13", "max", "phone", usual);
        Meanwhile buyInAnotherRun = () -> play.step(sentinel, "  another run of the order meanwhile", twice, 1,
            play.bank(), Checkout.Outcome.BOUGHT, 1, 0);
        play.step(sentinel, "a declined payment of an order that is bought", twice, 1,
            play.bank(false, buyInAnotherRun), Checkout.Outcome.ALREADY_BOUGHT, 1, 0);
        var tooLate = order("order-14", "ned", "phone", brief);
        Meanwhile buyLateInAnotherRun = () -> play.step(sentinel, "  another run buys it late meanwhile", tooLate, 1,
            play.bank(true, outlastTheHold), Checkout.Outcome.BOUGHT, 1, 0);
        play.step(sentinel, "a declined payment of an order that is bought late", tooLate, 1,
            play.bank(false, buyLateInAnotherRun), Checkout.Outcome.ALREADY_BOUGHT, 1, 0);
        var kim = order("order-11", "kim", "none", usual);
        play.bank().pay(kim, 1); // Simulates a crash after the payment; the store has lost the hold since.
        play.step(sentinel, "paid, the hold is lost, and the product is sold out", kim, 1, play.bank(),
            Checkout.Outcome.REFUNDED, 1, 1);
        var lea = order("order-12", "lea", "nothing", usual);
        play.bank().pay(lea, 1);
        play.step(sentinel, "paid, the hold is lost, and the product was removed", lea, 1, play.bank(),
            Checkout.PaidButRefused.class, 1, 0);

        play.step(sentinel.withInterceptors(new LosesAnswers()), "answers that get lost",
            order("order-10", "joe", "phone", usual), 1, play.bank(), Checkout.Outcome.BOUGHT, 1, 0);
        var nowhere = Connection.connect("127.0.0.1:1");
        play.step(InventorySentinelGrpc.newBlockingStub(nowhere), "a server that is away",
            order("order-9", "ida", "phone", usual), 1, play.bank(), Checkout.Unknown.class, 0, 0);
        var query = GetStockRequest.newBuilder().setNamespaceId(play.sale).setSku("phone").build();
        var stock = Checkout.call(sentinel, stub -> stub.getStock(query)).getStock();
        if (stock.getAvailable() != 3 || stock.getHeld() != 0 || stock.getSold() != 7) {
            System.err.println("java: seven buyers have bought a phone each, and the stock is " + stock);
            System.exit(1);
        }
        nowhere.shutdownNow();
        channel.shutdownNow();
    }
}
