"""The channel of the checkout: plain, or with TLS and credentials if SENTINEL_TLS_CA is set. Reads the environment and
the files that it names.
"""
import os
from pathlib import Path

import grpc

# region connect
OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class BearerToken(grpc.AuthMetadataPlugin):
    """Reads the token for each call, so that a replaced file is used at once."""

    def __call__(self, context, callback):
        try:
            path = os.environ.get("SENTINEL_TOKEN_FILE")
            token = Path(path).read_text().strip() if path else os.environ["SENTINEL_TOKEN"]
            callback([("authorization", f"Bearer {token}")], None)
        except OSError as error:
            callback([], error)


def connect(address: str) -> grpc.Channel:
    """One channel for the whole process: it is safe to share, and reconnects automatically."""
    if not os.environ.get("SENTINEL_TLS_CA"):
        return grpc.insecure_channel(address, OPTIONS)

    def read(name):
        return Path(os.environ[name]).read_bytes() if os.environ.get(name) else None

    credentials = grpc.ssl_channel_credentials(
        root_certificates=read("SENTINEL_TLS_CA"),
        private_key=read("SENTINEL_CLIENT_KEY"),
        certificate_chain=read("SENTINEL_CLIENT_CERT"),
    )
    if os.environ.get("SENTINEL_TOKEN_FILE") or os.environ.get("SENTINEL_TOKEN"):
        bearer = grpc.metadata_call_credentials(BearerToken())
        credentials = grpc.composite_channel_credentials(credentials, bearer)
    return grpc.secure_channel(address, credentials, OPTIONS)
# endregion connect
