// Plays the checkout: `node dist/play.js ADDRESS NAMESPACE PROTO_FOLDER` against a running server, in a namespace that
// must be new. Prints one line for each step, and exits with 1 if a step has another result than expected.
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import {
  call, checkout, type Order, type Outcome, PaidButRefused, type Payments, Refused, Unknown,
} from "./checkout.js";
import { connect } from "./connection.js";
import type { GetStockResponse__Output } from "./generated/inventory_sentinel/v1/GetStockResponse.js";

const [address, sale, protoFolder] = process.argv.slice(2);
const { sentinel, admin } = connect(address, protoFolder);
// The order of each charge and refund, as the bank records them.
const charges: string[] = [];
const refunds: string[] = [];
// The attempt that has charged an order.
const paid = new Map<string, number>();
const count = (entries: string[], order: Order) => entries.filter((id) => id === order.id).length;

class Crash extends Error {}

/** A bank that accepts or declines. `meanwhile` runs after that. */
function bank({ accept = true, meanwhile = async () => {} } = {}): Payments {
  return {
    async pay(order, attempt) {
      if (accept && !paid.has(order.id)) {
        paid.set(order.id, attempt);
        charges.push(order.id);
      }
      await meanwhile();
      return accept;
    },
    async isPaid(order, attempt) {
      return paid.get(order.id) === attempt;
    },
    async refund(order) {
      if (paid.delete(order.id)) refunds.push(order.id);
    },
  };
}

type Expected = Outcome | typeof Refused | typeof PaidButRefused | typeof Unknown | typeof Crash;

async function step(
  name: string, order: Order, attempt: number, payments: Payments,
  expected: Expected, charged: number, { refunded = 0, at = sentinel } = {},
) {
  let outcome: unknown;
  try {
    outcome = await checkout(at, payments, sale, order, attempt, (text) => console.log(`  ${text}`));
  } catch (error) {
    outcome = error;
  }
  console.log(`${name}: ${outcome}`);
  const isExpected = typeof expected === "string" ? outcome === expected : outcome instanceof expected;
  if (!isExpected || count(charges, order) !== charged || count(refunds, order) !== refunded) {
    const booked = `${count(charges, order)} charges, ${count(refunds, order)} refunds`;
    console.error(`node: ${name}: not ${expected}, or ${booked}`);
    process.exit(1);
  }
}

for (const [sku, onHand] of [["phone", 10], ["last", 1], ["none", 0]] as const) {
  const stock = { namespaceId: sale, sku, onHand, requestId: `stock-${sku}` };
  await call((options, done) => admin.setStock(stock, options, done));
}
const order = (id: string, buyer: string, sku: string, holdMilliseconds = 300_000): Order =>
  ({ id, buyer, sku, quantity: 1, holdMilliseconds });
const outlastTheHold = async () => void (await sleep(500));

const amy = order("order-1", "amy", "phone");
await step("a purchase", amy, 1, bank(), "bought", 1);
await step("the same order again", amy, 1, bank(), "bought before, not charged again", 1);
const bob = order("order-2", "bob", "phone");
const declined = "payment declined: another payment is attempt + 1";
await step("a declined payment", bob, 1, bank({ accept: false }), declined, 0);
const over = "this attempt is over and did not charge: continue with attempt + 1";
await step("the same attempt again", bob, 1, bank(), over, 0);
await step("the next attempt", bob, 2, bank(), "bought", 1);
await step("the attempt before by mistake", bob, 1, bank(), over, 1);
await step("a product that is sold out", order("order-3", "cleo", "none"), 1, bank(), "sold out", 0);
const late = order("order-4", "dan", "phone", 100);
await step("a payment that takes longer than the hold", late, 1, bank({ meanwhile: outlastTheHold }), "bought", 1);
await step("the same order again", late, 1, bank(), "bought before, not charged again", 1);

const crashed = order("order-5", "eve", "phone", 100);
const crash = async () => {
  await outlastTheHold();
  throw new Crash("the process stops here");
};
await step("a crash after the payment", crashed, 1, bank({ meanwhile: crash }), Crash, 1);
await step("the same attempt after the crash", crashed, 1, bank(), "bought", 1);

const sellTheLast = async () => {
  await outlastTheHold();
  await step("  another buyer meanwhile", order("order-7", "gus", "last"), 1, bank(), "bought", 1);
};
await step("a payment too late for the last unit", order("order-6", "flo", "last", 100), 1,
  bank({ meanwhile: sellTheLast }), "paid too late and sold out: refunded", 1, { refunded: 1 });
await step("a product that does not exist", order("order-8", "hal", "nothing"), 1, bank(), Refused, 0);

const twice = order("order-13", "max", "phone");
const buyInAnotherRun = () => step("  another run of the order meanwhile", twice, 1, bank(), "bought", 1);
await step("a declined payment of an order that is bought", twice, 1,
  bank({ accept: false, meanwhile: buyInAnotherRun }), "bought before, not charged again", 1);
const tooLate = order("order-14", "ned", "phone", 100);
const buyLateInAnotherRun = () =>
  step("  another run buys it late meanwhile", tooLate, 1, bank({ meanwhile: outlastTheHold }), "bought", 1);
await step("a declined payment of an order that is bought late", tooLate, 1,
  bank({ accept: false, meanwhile: buyLateInAnotherRun }), "bought before, not charged again", 1);
const kim = order("order-11", "kim", "none");
await bank().pay(kim, 1); // Simulates a crash after the payment; the store has lost the hold since.
await step("paid, the hold is lost, and the product is sold out", kim, 1, bank(),
  "paid too late and sold out: refunded", 1, { refunded: 1 });
const lea = order("order-12", "lea", "nothing");
await bank().pay(lea, 1);
await step("paid, the hold is lost, and the product was removed", lea, 1, bank(), PaidButRefused, 1);

// The same server behind a faulty network: it applies each call, and the first response to each is lost. The client
// library then reports an error without ErrorInfo.
const losesAnswers = Object.create(sentinel) as typeof sentinel;
for (const name of ["reserve", "commit"] as const) {
  let isLost = false;
  const apply: any = sentinel[name].bind(sentinel);
  losesAnswers[name] = (request: any, options: any, done?: any) =>
    apply(request, options, (error: unknown, answer: unknown) => {
      if (isLost) return done(error, answer);
      isLost = true;
      done(Object.assign(new Error("the connection broke"), { code: 14, metadata: new grpc.Metadata() }));
    });
}
const joe = order("order-10", "joe", "phone");
await step("answers that get lost", joe, 1, bank(), "bought", 1, { at: losesAnswers });
const away = connect("127.0.0.1:1", protoFolder).sentinel;
await step("a server that is away", order("order-9", "ida", "phone"), 1, bank(), Unknown, 0, { at: away });

const { stock } = await call<GetStockResponse__Output>((options, done) =>
  sentinel.getStock({ namespaceId: sale, sku: "phone" }, options, done),
);
if (stock?.available !== "3" || stock.held !== "0" || stock.sold !== "7") {
  console.error("node: seven buyers have bought a phone each, and the stock is", stock);
  process.exit(1);
}
process.exit(0);
