//! Incoming requests: collects the bytes of a message until it is complete. Memory is allocated for
//! received bytes only, not for announced ones. Reads the body of a call only.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use inventory_sentinel::Reason;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::{
    compression::{self, Encoding},
    ledger::Registration,
    peer::Peer,
    rpc,
};
use crate::failure;

/// Length of the prefix of a gRPC message: a flag, and the message's length as four bytes.
pub(super) const PREFIX: usize = 5;

/// Received bytes of a list at which its entries are counted for the first time.
const EARLY_CHECK: usize = 8 * 1_024;

/// Why the read of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// It is larger than its RPC allows, or has more entries.
    TooLarge,
    /// It is not a gRPC message.
    Malformed,
    /// It was not complete in time.
    Late,
    /// Its caller disconnected.
    Gone,
}

impl ReadError {
    /// The refusal that the caller gets.
    pub(super) fn status(self) -> Status {
        let reason = match self {
            ReadError::TooLarge => Reason::RequestTooLarge,
            ReadError::Malformed => Reason::MalformedRequest,
            ReadError::Late | ReadError::Gone => Reason::RequestTooSlow,
        };
        failure::refusal(reason)
    }
}

/// The body of a refused request, which is read without being kept.
#[derive(Debug, Default)]
pub(super) struct Discarded {
    bytes: usize,
}

impl Discarded {
    /// Ready at the end of the body, or when it is larger than a small request may be.
    pub(super) fn poll(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<()> {
        while self.bytes <= rpc::MAX_SMALL_REQUEST {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }
}

/// The limits of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) max: usize,
    /// Whether its entries are counted.
    pub(super) is_list: bool,
    /// The encoding.
    pub(super) encoding: Encoding,
}

impl Bounds {
    /// The length of the first message in these bytes, with its prefix; `None`: there are too few
    /// bytes.
    fn announced(self, bytes: &[u8]) -> Result<Option<usize>, ReadError> {
        let Some((flag, length)) = bytes.split_first().and_then(|(flag, rest)| Some((flag, rest.first_chunk::<4>()?)))
        else {
            return Ok(None);
        };
        let max = match (*flag, self.encoding) {
            (0, _) => self.max,
            (1, Encoding::Gzip) => compression::max_compressed(self.max),
            _ => return Err(ReadError::Malformed),
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > max { Err(ReadError::TooLarge) } else { Ok(Some(PREFIX + length)) }
    }

    /// Checks a complete message, with its prefix, before it is decoded.
    fn check(self, message: &[u8]) -> Result<(), ReadError> {
        // The entries of a compressed message are counted after it is decompressed.
        if self.is_list && !is_compressed(message) && rpc::has_too_many_fields(&message[PREFIX..]) {
            return Err(ReadError::TooLarge);
        }
        Ok(())
    }

    /// Decompresses a message, if necessary, and checks it. The work counts for its connection.
    fn open(self, message: Bytes, peer: &Peer) -> Result<Bytes, ReadError> {
        if !is_compressed(&message) {
            return self.check(&message).map(|()| message);
        }
        let opened =
            compression::decompress(&message, self.max).and_then(|message| self.check(&message).map(|()| message));
        peer.add_decompression_work(compression::work(opened.as_ref().map_or(self.max, Bytes::len)));
        if opened.is_err() {
            peer.lose_credit();
        }
        opened
    }
}

/// Whether the compression flag of a message is set.
fn is_compressed(message: &[u8]) -> bool {
    message.first() == Some(&1)
}

/// The only message of a call, while it arrives.
#[derive(Debug)]
pub(super) struct IncomingMessage {
    bounds: Bounds,
    /// The first piece, unchanged: usually it is all.
    first: Bytes,
    /// All pieces, once there is more than one.
    rest: BytesMut,
    /// The entries of the received bytes were counted.
    is_checked: bool,
    peer: Arc<Peer>,
}

impl IncomingMessage {
    pub(super) fn new(bounds: Bounds, peer: Arc<Peer>) -> Self {
        Self { bounds, first: Bytes::new(), rest: BytesMut::new(), is_checked: false, peer }
    }

    /// The number of received bytes.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Copies the received bytes: a small piece would keep a large buffer of the connection.
    pub(super) fn settle(&mut self) {
        if !self.first.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
    }

    /// Reads the available bytes. Ready: the message is complete, with its prefix.
    pub(super) fn poll<B>(&mut self, body: &mut B, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadError>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            if !(self.len() > 0 && body.is_end_stream()) {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            self.take(data)?;
                        }
                        continue;
                    }
                    Some(Err(_)) => return Poll::Ready(Err(ReadError::Gone)),
                    None => {}
                }
            }
            self.settle_if_many();
            let message = if self.rest.is_empty() {
                std::mem::take(&mut self.first)
            } else {
                std::mem::take(&mut self.rest).freeze()
            };
            let is_whole = self.bounds.announced(&message)? == Some(message.len());
            return Poll::Ready(if is_whole {
                self.bounds.open(message, &self.peer)
            } else {
                Err(ReadError::Malformed)
            });
        }
    }

    fn settle_if_many(&mut self) {
        if !self.rest.is_empty() {
            self.settle();
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), ReadError> {
        if self.len() == 0 {
            self.first = data;
        } else {
            self.settle();
            self.rest.extend_from_slice(&data);
        }
        let received = if self.rest.is_empty() { &self.first[..] } else { &self.rest[..] };
        // Most lists with too many entries exceed the limit early. The rest of them need not
        // arrive.
        if !self.is_checked && received.len() >= EARLY_CHECK {
            self.is_checked = true;
            self.bounds.check(received)?;
        }
        match self.bounds.announced(received)? {
            Some(length) if received.len() > length => Err(ReadError::Malformed),
            _ => Ok(()),
        }
    }
}

/// A stream of messages: passes on complete ones only. A message must be complete within a time
/// from its first byte, and its first byte must arrive within the allowed pause of the client.
pub(super) struct Messages<B, G> {
    body: B,
    bounds: Bounds,
    timeouts: StreamTimeouts,
    received: BytesMut,
    timer: Pin<Box<Sleep>>,
    /// A message has begun and is not complete.
    has_begun: bool,
    /// Messages were passed on, and the pause starts again.
    may_pause: bool,
    registration: Registration,
    peer: Arc<Peer>,
    /// Kept while the stream is open.
    _guard: G,
}

/// The timeouts of a stream of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamTimeouts {
    /// For a message.
    pub(super) message: Duration,
    /// Between two messages.
    pub(super) pause: Duration,
}

impl<B, G> Messages<B, G> {
    pub(super) fn new(
        body: B,
        bounds: Bounds,
        timeouts: StreamTimeouts,
        registration: Registration,
        guard: G,
        peer: Arc<Peer>,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(timeouts.pause));
        Self {
            body,
            bounds,
            timeouts,
            received: BytesMut::new(),
            timer,
            has_begun: false,
            may_pause: false,
            registration,
            peer,
            _guard: guard,
        }
    }

    /// The complete messages at the front of the received bytes. A compressed message is passed on
    /// alone: only one is decompressed at a time.
    fn whole(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut end = 0;
        while let Some(length) = self.bounds.announced(&self.received[end..])? {
            let Some(message) = self.received.get(end..end + length) else { break };
            if is_compressed(message) {
                if end > 0 {
                    break;
                }
                let message = self.received.split_to(length).freeze();
                return self.bounds.open(message, &self.peer).map(Some);
            }
            self.bounds.check(message)?;
            end += length;
        }
        Ok((end > 0).then(|| self.received.split_to(end).freeze()))
    }

    /// Records the missing bytes, and returns the next complete messages, if there are any.
    fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let whole = self.whole()?;
        let had_begun = std::mem::replace(&mut self.has_begun, !self.received.is_empty());
        if self.has_begun && (!had_begun || whole.is_some()) {
            self.timer.as_mut().reset(Instant::now() + self.timeouts.message);
        }
        if self.has_begun {
            self.registration.wait_on_with(self.received.len());
        } else {
            self.registration.stop_waiting();
        }
        self.may_pause |= whole.is_some();
        Ok(whole)
    }
}

impl<B, G> Body for Messages<B, G>
where
    B: Body<Data = Bytes> + Unpin,
    G: Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.may_pause) && !this.has_begun {
            this.timer.as_mut().reset(Instant::now() + this.timeouts.pause);
        }
        // After a compressed message, others may follow in the buffer.
        if this.has_begun
            && let Some(whole) = this.next().map_err(ReadError::status)?
        {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        loop {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.received.extend_from_slice(&data);
                    if let Some(whole) = this.next().map_err(ReadError::status)? {
                        return Poll::Ready(Some(Ok(Frame::data(whole))));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(ReadError::Gone.status()))),
                Poll::Ready(None) if this.has_begun => return Poll::Ready(Some(Err(ReadError::Malformed.status()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.timer.as_mut().poll(cx));
                    this.registration.record_late();
                    return Poll::Ready(Some(Err(ReadError::Late.status())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, task::Waker};

    use super::{super::peer::Clock, *};

    /// The pieces of a body, and whether more follow.
    struct Pieces {
        pieces: VecDeque<Bytes>,
        ends: bool,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        [&[0], &(payload.len() as u32).to_be_bytes()[..], payload].concat()
    }

    fn arrive(pieces: &[&[u8]], ends: bool, max: usize) -> Poll<Result<Bytes, ReadError>> {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        let peer = Arc::new(Peer::new(Clock::new()));
        let mut arriving = IncomingMessage::new(Bounds { max, is_list: true, encoding: Encoding::Plain }, peer);
        arriving.poll(&mut Pieces { pieces, ends }, &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_message_is_there_once_all_of_it_is() {
        let whole = message(&[0x0A, 3, 1, 2, 3]);
        for cut in 0..=whole.len() {
            let (one, other) = whole.split_at(cut);
            assert_eq!(arrive(&[one, other], true, 5), Poll::Ready(Ok(whole.clone().into())));
            assert_eq!(arrive(&[one, other], false, 5), Poll::Pending);
        }
        assert_eq!(arrive(&[&message(&[])], true, 5), Poll::Ready(Ok(message(&[]).into())));
    }

    #[test]
    fn what_is_too_large_is_refused_at_its_promise() {
        let announcement = [0, 0, 0, 1, 0];
        assert_eq!(arrive(&[&announcement], false, 255), Poll::Ready(Err(ReadError::TooLarge)));
        assert_eq!(
            arrive(&[&announcement[..2], &announcement[2..]], false, 255),
            Poll::Ready(Err(ReadError::TooLarge))
        );
        assert_eq!(arrive(&[&announcement], false, 256), Poll::Pending);
        let many = message(&[0x0A, 0].repeat(rpc::MAX_FIELDS + 1));
        assert_eq!(arrive(&[&many], true, 1 << 20), Poll::Ready(Err(ReadError::TooLarge)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = message(&[1, 2, 3]);
        for pieces in [&[][..], &[&whole[..4]], &[&whole[..7]], &[&whole, &whole], &[&[2, 0, 0, 0, 0]]] {
            assert_eq!(arrive(pieces, true, 100), Poll::Ready(Err(ReadError::Malformed)), "{pieces:?}");
        }
    }
}
