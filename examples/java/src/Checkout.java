// A checkout that charges at most once: reserves, takes the payment, commits. It can be run again after any error.
//
// `mvn compile` generates the client from ../../proto and compiles it, see pom.xml. Connection.java connects
// to the server. docs/start/first-checkout.md explains it; Play.java plays it.
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.inventorysentinel.v1.CommitRequest;
import io.inventorysentinel.v1.InventorySentinelGrpc.InventorySentinelBlockingStub;
import io.inventorysentinel.v1.LatePolicy;
import io.inventorysentinel.v1.Line;
import io.inventorysentinel.v1.Reservation;
import io.inventorysentinel.v1.ReserveRequest;
import io.inventorysentinel.v1.ReserveResponse;
import io.inventorysentinel.v1.RollbackRequest;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

final class Checkout {
    // region call
    static final long CALL_SECONDS = 2; // The deadline of one call.
    static final int CALL_ATTEMPTS = 5; // The most attempts of a call.
    static final long FIRST_PAUSE_MILLIS = 100; // The longest pause before the first repeat; doubles with each repeat.

    /** The service refused the call for this reason, and repeating it does not help. */
    static final class Refused extends RuntimeException {
        final String reason;
        final Map<String, String> metadata;

        Refused(ErrorInfo info, Throwable cause) {
            super(info.getReason() + " " + info.getMetadataMap(), cause);
            reason = info.getReason();
            metadata = info.getMetadataMap();
        }
    }

    /** The call may have been applied. Run the checkout again later, with the same attempt number. */
    static final class Unknown extends RuntimeException {
        Unknown(Throwable cause) {
            super(cause);
        }
    }

    /**
     * The order is charged, and the service refuses its units. The order stays open: run the checkout again later with
     * the same attempt number, or let a person decide.
     */
    static final class PaidButRefused extends RuntimeException {
        PaidButRefused(Refused refusal) {
            super("paid, but refused: " + refusal.getMessage(), refusal);
        }
    }

    /** Sends the same request until the service responds, or no attempt is left. */
    static <S extends AbstractStub<S>, R> R call(S stub, Function<S, R> method) throws InterruptedException {
        StatusRuntimeException last = null;
        for (int attempt = 0; attempt < CALL_ATTEMPTS; attempt++) {
            try {
                return method.apply(stub.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS));
            } catch (StatusRuntimeException error) {
                last = error;
            }
            ErrorInfo info = detail(last, ErrorInfo.class, ErrorInfo.getDefaultInstance());
            RetryInfo retry = detail(last, RetryInfo.class, null);
            if (info.getDomain().equals("inventory-sentinel") && retry == null) {
                throw new Refused(info, last);
            }
            // The service permits a retry, or the outcome is unknown because it did not respond. The
            // retry has the same request_id, so it can't have a second effect.
            long serverDelay = retry == null ? 0
                : retry.getRetryDelay().getSeconds() * 1_000 + retry.getRetryDelay().getNanos() / 1_000_000;
            Thread.sleep(serverDelay + ThreadLocalRandom.current().nextLong(FIRST_PAUSE_MILLIS << attempt));
        }
        throw new Unknown(last);
    }

    /** One of the google.rpc messages that the service adds to an error. */
    private static <M extends Message> M detail(Throwable error, Class<M> type, M otherwise) {
        com.google.rpc.Status status = StatusProto.fromThrowable(error);
        try {
            for (Any any : status == null ? List.<Any>of() : status.getDetailsList()) {
                if (any.is(type)) {
                    return any.unpack(type);
                }
            }
        } catch (InvalidProtocolBufferException notOurs) {
            // A proxy or the client library wrote it.
        }
        return otherwise;
    }
    // endregion call

    record Order(String id, String buyer, String sku, int quantity, Duration hold) {}

    /** Each function is idempotent by order.id: an order is charged once, whatever attempts and repeats there are. */
    interface Payments {
        /** Stores the attempt with the charge. False: declined. */
        boolean pay(Order order, int attempt) throws InterruptedException;

        /** Whether this attempt has charged the order. */
        boolean isPaid(Order order, int attempt);

        void refund(Order order);
    }

    enum Outcome {
        BOUGHT("bought"),
        ALREADY_BOUGHT("bought before, not charged again"),
        SOLD_OUT("sold out"),
        DECLINED("payment declined: another payment is attempt + 1"),
        OVER("this attempt is over and did not charge: continue with attempt + 1"),
        REFUNDED("paid too late and sold out: refunded");

        final String text;

        Outcome(String text) {
            this.text = text;
        }
    }

    // region checkout
    /** The reasons of a Commit after which a buyer that has paid gets nothing. */
    private static final Set<String> NOT_SOLD =
        Set.of("LATE_COMMIT_SOLD_OUT", "RESERVATION_ROLLED_BACK", "BUYER_LIMIT", "BUYER_REQUIRED");

    /** Buys one order. Throws Refused (not charged), PaidButRefused (charged), Unknown, or an error of the payments. */
    static Outcome checkout(
        InventorySentinelBlockingStub sentinel, Payments payments, String sale, Order order, int attempt)
        throws InterruptedException {
        var request = ReserveRequest.newBuilder()
            .setNamespaceId(sale)
            .setRequestId(order.id() + "-" + attempt)
            .setBuyerId(order.buyer())
            .addLines(Line.newBuilder().setSku(order.sku()).setQuantity(order.quantity()))
            .setTtl(com.google.protobuf.Duration.newBuilder()
                .setSeconds(order.hold().getSeconds())
                .setNanos(order.hold().getNano()))
            .build();
        ReserveResponse answer;
        try {
            answer = call(sentinel, stub -> stub.reserve(request));
        } catch (Refused refused) {
            // An earlier run may have stopped after the payment, and the store has lost or forgotten its hold since.
            throw payments.isPaid(order, attempt) ? new PaidButRefused(refused) : refused;
        }
        Reservation held;
        switch (answer.getResultCase()) {
            case RESERVATION -> {
                held = answer.getReservation();
                Instant until = Instant.ofEpochSecond(held.getExpiresAt().getSeconds(), held.getExpiresAt().getNanos());
                System.out.printf("  %d %s held until %s%n", order.quantity(), order.sku(), until);
                if (!payments.pay(order, attempt)) {
                    var release = RollbackRequest.newBuilder()
                        .setNamespaceId(sale)
                        .setReservationId(held.getReservationId())
                        .build();
                    boolean isBought; // By another run of this attempt, late or in time.
                    try {
                        var released = call(sentinel, stub -> stub.rollback(release)).getReservation();
                        isBought = !released.getPurchaseReservationId().isEmpty();
                    } catch (Refused refused) {
                        if (!refused.reason.equals("RESERVATION_ALREADY_COMMITTED")) {
                            throw refused;
                        }
                        isBought = true;
                    }
                    return isBought ? Outcome.ALREADY_BOUGHT : Outcome.DECLINED;
                }
            }
            case ALREADY_PURCHASED -> {
                return Outcome.ALREADY_BOUGHT;
            }
            case ALREADY_RELEASED -> {
                held = answer.getAlreadyReleased();
                if (!payments.isPaid(order, attempt)) {
                    return Outcome.OVER;
                }
                // The process stopped between payment and Commit, and the hold ran out: the Commit below is a late one.
            }
            case SHORTAGE -> {
                if (!payments.isPaid(order, attempt)) {
                    return Outcome.SOLD_OUT;
                }
                // The process stopped after the payment, and the store has lost or forgotten the hold since.
                payments.refund(order);
                return Outcome.REFUNDED;
            }
            default -> throw new IllegalStateException("a later server answers something else: charge nothing");
        }
        var purchase = CommitRequest.newBuilder()
            .setNamespaceId(sale)
            .setReservationId(held.getReservationId())
            .setLatePolicy(LatePolicy.LATE_POLICY_REPURCHASE)
            .build();
        try {
            call(sentinel, stub -> stub.commit(purchase));
        } catch (Refused refused) {
            // The buyer has paid and gets nothing. For any other reason the order stays open.
            if (!NOT_SOLD.contains(refused.reason)) {
                throw new PaidButRefused(refused);
            }
            payments.refund(order);
            return Outcome.REFUNDED;
        }
        return Outcome.BOUGHT;
    }
    // endregion checkout
}
