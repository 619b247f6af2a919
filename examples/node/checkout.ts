// A checkout that charges at most once: reserves, takes the payment, commits. It can be run again after any error.
//
// `npm install && npm run generate && npm run build` generates the types from ../../proto (or the folder PROTO) and
// compiles to dist/. The proto files are read at run time too. connection.ts connects to the server.
// docs/start/first-checkout.md explains it; play.ts plays it.
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";
import type { InventorySentinelClient } from "./generated/inventory_sentinel/v1/InventorySentinel.js";
import type { ReserveResponse__Output } from "./generated/inventory_sentinel/v1/ReserveResponse.js";
import type { RollbackResponse__Output } from "./generated/inventory_sentinel/v1/RollbackResponse.js";

// region call
const CALL_MILLISECONDS = 2_000; // The deadline of one call.
const CALL_ATTEMPTS = 5; // The most attempts of a call.
const FIRST_PAUSE_MILLISECONDS = 100; // The longest pause before the first repeat; doubles with each repeat.

/** The parts of google/rpc/status.proto and error_details.proto that contain the reason of a failed call. */
const rpc = protobuf.parse(`
  syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }`).root;

/** The details of a failed call by message name (ErrorInfo); empty if the service did not write the error. */
function detailsOf(error: grpc.ServiceError): Record<string, any> {
  const found: Record<string, any> = {};
  for (const status of error.metadata.get("grpc-status-details-bin").slice(0, 1)) {
    for (const any of rpc.lookupType("Status").decode(status as Buffer).toJSON().details ?? []) {
      const name = any.typeUrl.replace("type.googleapis.com/google.rpc.", "");
      const type = rpc.lookup(name, protobuf.Type) as protobuf.Type | null;
      if (type) found[name] = type.decode(Buffer.from(any.value ?? "", "base64")).toJSON();
    }
  }
  return found;
}

/** The service refused the call for this reason, and repeating it does not help. */
export class Refused extends Error {
  constructor(readonly reason: string, readonly metadata: Record<string, string>) {
    super(`${reason} ${JSON.stringify(metadata)}`);
  }
}

/** The call may have been applied. Run the checkout again later, with the same attempt number. */
export class Unknown extends Error {}

/**
 * The order is charged, and the service refuses its units. The order stays open: run the checkout again later with the
 * same attempt number, or let a person decide.
 */
export class PaidButRefused extends Error {
  constructor(readonly refusal: Refused) {
    super(`paid, but refused: ${refusal.message}`);
  }
}

type Send<Response> = (options: grpc.CallOptions, done: grpc.requestCallback<Response>) => unknown;

/** Sends the same request until the service responds, or no attempt is left. */
export async function call<Response>(send: Send<Response>): Promise<Response> {
  let last: grpc.ServiceError | undefined;
  for (let attempt = 0; attempt < CALL_ATTEMPTS; attempt++) {
    const options = { deadline: Date.now() + CALL_MILLISECONDS };
    const [error, response] = await new Promise<[grpc.ServiceError | null, Response?]>((resolve) =>
      send(options, (error, response) => resolve([error, response])),
    );
    if (!error) return response!;
    last = error;
    const { ErrorInfo: info, RetryInfo: retry } = detailsOf(error);
    if (info?.domain === "inventory-sentinel" && !retry) throw new Refused(info.reason, info.metadata ?? {});
    // The service permits a retry, or the outcome is unknown because it did not respond. The
    // retry has the same request_id, so it can't have a second effect.
    const serverDelay = Number(retry?.retryDelay?.seconds ?? 0) * 1_000 + (retry?.retryDelay?.nanos ?? 0) / 1_000_000;
    await sleep(serverDelay + FIRST_PAUSE_MILLISECONDS * 2 ** attempt * Math.random());
  }
  throw new Unknown(last?.message);
}
// endregion call

export interface Order {
  id: string;
  buyer: string;
  sku: string;
  quantity: number;
  holdMilliseconds: number;
}

/** Each function is idempotent by order.id: an order is charged once, whatever attempts and repeats there are. */
export interface Payments {
  /** Stores the attempt with the charge. False: declined. */
  pay(order: Order, attempt: number): Promise<boolean>;
  /** Whether this attempt has charged the order. */
  isPaid(order: Order, attempt: number): Promise<boolean>;
  refund(order: Order): Promise<void>;
}

export type Outcome =
  | "bought"
  | "bought before, not charged again"
  | "sold out"
  | "payment declined: another payment is attempt + 1"
  | "this attempt is over and did not charge: continue with attempt + 1"
  | "paid too late and sold out: refunded";

// region checkout
/** The reasons of a Commit after which a buyer that has paid gets nothing. */
const NOT_SOLD = ["LATE_COMMIT_SOLD_OUT", "RESERVATION_ROLLED_BACK", "BUYER_LIMIT", "BUYER_REQUIRED"];

/** Buys one order. Throws Refused (not charged), PaidButRefused (charged), Unknown, or an error of the payments. */
export async function checkout(
  sentinel: InventorySentinelClient,
  payments: Payments,
  sale: string,
  order: Order,
  attempt: number,
  show: (text: string) => void = console.log,
): Promise<Outcome> {
  const request = {
    namespaceId: sale,
    requestId: `${order.id}-${attempt}`,
    buyerId: order.buyer,
    lines: [{ sku: order.sku, quantity: order.quantity }],
    ttl: { seconds: Math.floor(order.holdMilliseconds / 1_000), nanos: (order.holdMilliseconds % 1_000) * 1_000_000 },
  };
  let answer: ReserveResponse__Output;
  try {
    answer = await call<ReserveResponse__Output>((options, done) => sentinel.reserve(request, options, done));
  } catch (error) {
    // An earlier run may have stopped after the payment, and the store has lost or forgotten its hold since.
    if (error instanceof Refused && (await payments.isPaid(order, attempt))) throw new PaidButRefused(error);
    throw error;
  }
  let reservationId: string;
  switch (answer.result) {
    case "reservation": {
      reservationId = answer.reservation!.reservationId;
      const until = new Date(Number(answer.reservation!.expiresAt!.seconds) * 1_000);
      show(`${order.quantity} ${order.sku} held until ${until.toISOString()}`);
      if (!(await payments.pay(order, attempt))) {
        const release = { namespaceId: sale, reservationId };
        try {
          const send: Send<RollbackResponse__Output> = (options, done) => sentinel.rollback(release, options, done);
          const { reservation } = await call(send);
          // Bought by another run of this attempt, late or (below) in time.
          if (reservation?.purchaseReservationId) return "bought before, not charged again";
        } catch (error) {
          if (!(error instanceof Refused && error.reason === "RESERVATION_ALREADY_COMMITTED")) throw error;
          return "bought before, not charged again";
        }
        return "payment declined: another payment is attempt + 1";
      }
      break;
    }
    case "alreadyPurchased":
      return "bought before, not charged again";
    case "alreadyReleased":
      reservationId = answer.alreadyReleased!.reservationId;
      if (!(await payments.isPaid(order, attempt))) {
        return "this attempt is over and did not charge: continue with attempt + 1";
      }
      // The process stopped between payment and Commit, and the hold ran out: the Commit below is a late one.
      break;
    case "shortage":
      if (!(await payments.isPaid(order, attempt))) return "sold out";
      // The process stopped after the payment, and the store has lost or forgotten the hold since.
      await payments.refund(order);
      return "paid too late and sold out: refunded";
    default:
      throw new Error(`a later server answers ${answer.result}: charge nothing`);
  }
  try {
    const purchase = { namespaceId: sale, reservationId, latePolicy: "LATE_POLICY_REPURCHASE" } as const;
    await call((options, done) => sentinel.commit(purchase, options, done));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    // The buyer has paid and gets nothing. For any other reason the order stays open.
    if (!NOT_SOLD.includes(error.reason)) throw new PaidButRefused(error);
    await payments.refund(order);
    return "paid too late and sold out: refunded";
  }
  return "bought";
}
// endregion checkout
