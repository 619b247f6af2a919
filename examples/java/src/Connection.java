// The channel of the checkout: plain, or with TLS and credentials if SENTINEL_TLS_CA is set. Reads the environment and
// the files that it names.
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

final class Connection {
    // region connect
    /** Reads the token for each call, so that a replaced file is used at once. */
    private static final class BearerToken extends CallCredentials {
        private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

        @Override
        public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
            executor.execute(() -> {
                try {
                    String token = isSet("SENTINEL_TOKEN_FILE")
                        ? Files.readString(Path.of(System.getenv("SENTINEL_TOKEN_FILE"))).strip()
                        : System.getenv("SENTINEL_TOKEN");
                    var headers = new Metadata();
                    headers.put(AUTHORIZATION, "Bearer " + token);
                    applier.apply(headers);
                } catch (IOException error) {
                    applier.fail(Status.UNAVAILABLE.withDescription("no token").withCause(error));
                }
            });
        }
    }

    private static boolean isSet(String name) {
        String value = System.getenv(name);
        return value != null && !value.isEmpty();
    }

    /** Plain, or TLS with the CAs, the client certificate and the token that the environment names. */
    private static ChannelCredentials credentials() throws IOException {
        if (!isSet("SENTINEL_TLS_CA")) {
            return InsecureChannelCredentials.create();
        }
        var tls = TlsChannelCredentials.newBuilder().trustManager(new File(System.getenv("SENTINEL_TLS_CA")));
        if (isSet("SENTINEL_CLIENT_CERT")) {
            var certificate = new File(System.getenv("SENTINEL_CLIENT_CERT"));
            tls.keyManager(certificate, new File(System.getenv("SENTINEL_CLIENT_KEY")));
        }
        boolean hasToken = isSet("SENTINEL_TOKEN_FILE") || isSet("SENTINEL_TOKEN");
        return hasToken ? CompositeChannelCredentials.create(tls.build(), new BearerToken()) : tls.build();
    }

    /** One channel for the whole process: it is safe to share, and reconnects automatically. */
    static ManagedChannel connect(String address) throws IOException {
        return Grpc.newChannelBuilder(address, credentials())
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .build();
    }
    // endregion connect
}
