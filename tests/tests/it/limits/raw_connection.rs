//! An HTTP/2 connection that sends any frames, and gRPC messages as bytes.

use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use sentinel_tests::{BOUND, SentinelProcess};
use tokio::{net::TcpStream, time::timeout};
use tonic::Status;

/// An HTTP/2 connection whose frames a test can send as it likes.
pub(crate) struct RawConnection {
    pub(crate) calls: SendRequest<Bytes>,
    /// The credential of each call; empty: none.
    bearer: String,
}

impl RawConnection {
    pub(crate) async fn connect(server: &SentinelProcess) -> RawConnection {
        RawConnection::with_windows(server, 65_535).await
    }

    /// With so many bytes that a response may send before they are read.
    pub(crate) async fn with_windows(server: &SentinelProcess, window: u32) -> RawConnection {
        let socket = TcpStream::connect(server.grpc()).await.expect("a connection");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 24);
        let (calls, connection) = builder.handshake(socket).await.expect("a handshake");
        tokio::spawn(connection);
        RawConnection { calls, bearer: String::new() }
    }

    /// Sends this bearer credential with each call.
    pub(crate) fn with_bearer(self, token: &str) -> RawConnection {
        RawConnection { bearer: token.to_owned(), ..self }
    }

    /// Sends the head of a call, and these bytes of its body.
    pub(crate) async fn call(&mut self, path: &str, body: &[u8], ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_call(path, body, ends).await.expect("an open connection")
    }

    /// The same, where the server may close the connection.
    pub(crate) async fn try_call(
        &mut self,
        path: &str,
        body: &[u8],
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.calls = self.calls.clone().ready().await?;
        let mut request = Request::post(format!("http://sentinel{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !self.bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.bearer));
        }
        let request = request.body(()).expect("a request");
        let (response, mut sender) = self.calls.send_request(request, false)?;
        sender.send_data(Bytes::copy_from_slice(body), ends)?;
        Ok((response, sender))
    }
}

/// A message as gRPC sends it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&prefix(message.len()), message].concat()
}

/// The prefix of a message of this length.
pub(crate) fn prefix(length: usize) -> Vec<u8> {
    [&[0], &(length as u32).to_be_bytes()[..]].concat()
}

/// The refusal of a call.
pub(crate) async fn refused(response: ResponseFuture) -> Result<(), Status> {
    let response = timeout(BOUND, response).await.expect("an answer in time").expect("a response");
    let headers: &HeaderMap = response.headers();
    Err(Status::from_header_map(headers).expect("a refusal in the head of the response"))
}
