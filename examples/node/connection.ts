// The clients of the checkout: plain, or with TLS and credentials if SENTINEL_TLS_CA is set. Reads the proto files, the
// environment, and the files that it names.
import { readFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import type { ProtoGrpcType as AdminTypes } from "./generated/inventory_admin.js";
import type { ProtoGrpcType as SentinelTypes } from "./generated/inventory_sentinel.js";

// region connect
/** Plain, or TLS with the CAs, the client certificate and the token that the environment names. */
function credentials(): grpc.ChannelCredentials {
  const { SENTINEL_TLS_CA, SENTINEL_CLIENT_CERT, SENTINEL_CLIENT_KEY, SENTINEL_TOKEN_FILE, SENTINEL_TOKEN } = process.env;
  if (!SENTINEL_TLS_CA) return grpc.credentials.createInsecure();
  const read = (path?: string) => (path ? readFileSync(path) : null);
  const tls = grpc.credentials.createSsl(read(SENTINEL_TLS_CA), read(SENTINEL_CLIENT_KEY), read(SENTINEL_CLIENT_CERT));
  if (!SENTINEL_TOKEN_FILE && !SENTINEL_TOKEN) return tls;
  // Reads the token for each call, so that a replaced file is used at once.
  const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new grpc.Metadata();
    try {
      const token = SENTINEL_TOKEN_FILE ? readFileSync(SENTINEL_TOKEN_FILE, "utf8").trim() : SENTINEL_TOKEN;
      metadata.set("authorization", `Bearer ${token}`);
    } catch (error) {
      return done(error as Error);
    }
    done(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(tls, bearer);
}

/** The clients of one address, for the whole process: they share one connection and reconnect automatically. */
export function connect(address: string, protoFolder: string) {
  const options = { longs: String, enums: String, defaults: true, oneofs: true, includeDirs: [protoFolder] };
  const files = ["inventory_sentinel", "inventory_admin"].map((name) => `inventory_sentinel/v1/${name}.proto`);
  const loaded = grpc.loadPackageDefinition(loader.loadSync(files, options)) as unknown as SentinelTypes & AdminTypes;
  const { InventorySentinel, InventoryAdmin } = loaded.inventory_sentinel.v1;
  const shared = credentials();
  const keepalive = {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
  };
  return {
    sentinel: new InventorySentinel(address, shared, keepalive),
    admin: new InventoryAdmin(address, shared, keepalive),
  };
}
// endregion connect
