//! Requests as they arrive: gathers the bytes of a message until it is there in full, so that nothing is reserved for bytes
//! that were only promised. Reads the body of a call and nothing else.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use inventory_sentinel::Reason;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::{
    ledger::Place,
    packed::{self, Packing},
    peer::Peer,
    rpc,
};
use crate::service;

/// Length of what stands before each gRPC message: a flag, and the message's length as four bytes.
pub(super) const PREFIX: usize = 5;

/// Bytes of a list that have come when its entries are counted for the first time.
const EARLY_CHECK: usize = 8 * 1_024;

/// Why a request is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than its RPC allows, or has more entries.
    TooLarge,
    /// It is no gRPC message.
    Malformed,
    /// It did not come in full in time.
    Late,
    /// Its caller has gone.
    Gone,
}

impl Unread {
    /// The refusal that the caller gets.
    pub(super) fn status(self) -> Status {
        let reason = match self {
            Unread::TooLarge => Reason::RequestTooLarge,
            Unread::Malformed => Reason::MalformedRequest,
            Unread::Late | Unread::Gone => Reason::RequestTooSlow,
        };
        service::refusal(reason)
    }
}

/// What a message may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) max: usize,
    /// Whether its entries are counted.
    pub(super) is_list: bool,
    /// How it comes.
    pub(super) packing: Packing,
}

impl Bounds {
    /// The length of the first message in these bytes, with its prefix, as far as they tell it.
    fn promised(self, bytes: &[u8]) -> Result<Option<usize>, Unread> {
        let Some((flag, length)) = bytes.split_first().and_then(|(flag, rest)| Some((flag, rest.first_chunk::<4>()?)))
        else {
            return Ok(None);
        };
        let max = match (*flag, self.packing) {
            (0, _) => self.max,
            (1, Packing::Gzip) => packed::most_packed(self.max),
            _ => return Err(Unread::Malformed),
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > max { Err(Unread::TooLarge) } else { Ok(Some(PREFIX + length)) }
    }

    /// Whether a whole message, with its prefix, may be decoded.
    fn check(self, message: &[u8]) -> Result<(), Unread> {
        // What is packed has no fields to count until it is unpacked.
        if self.is_list && !is_packed(message) && rpc::has_too_many_fields(&message[PREFIX..]) {
            return Err(Unread::TooLarge);
        }
        Ok(())
    }

    /// Unpacks a message, if it is packed, and checks it. The work counts for its connection.
    fn open(self, message: Bytes, peer: &Peer) -> Result<Bytes, Unread> {
        if !is_packed(&message) {
            return self.check(&message).map(|()| message);
        }
        let opened = packed::unpack(&message, self.max).and_then(|message| self.check(&message).map(|()| message));
        peer.note_unpacked(packed::work(opened.as_ref().map_or(self.max, Bytes::len)));
        if opened.is_err() {
            peer.lose_credit();
        }
        opened
    }
}

/// Whether a message says that it is packed.
fn is_packed(message: &[u8]) -> bool {
    message.first() == Some(&1)
}

/// The one message of a call, on its way.
#[derive(Debug)]
pub(super) struct Arriving {
    bounds: Bounds,
    /// What came first, as it came: usually it is all.
    first: Bytes,
    /// All that has come, once it is more than one piece.
    rest: BytesMut,
    /// The entries of what had come were counted.
    is_checked: bool,
    peer: Arc<Peer>,
}

impl Arriving {
    pub(super) fn new(bounds: Bounds, peer: Arc<Peer>) -> Self {
        Self { bounds, first: Bytes::new(), rest: BytesMut::new(), is_checked: false, peer }
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Copies what has come: a small piece would keep a large buffer of the connection.
    pub(super) fn settle(&mut self) {
        if !self.first.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
    }

    /// Reads what has come. Ready: the message is there, with its prefix.
    pub(super) fn poll<B>(&mut self, body: &mut B, cx: &mut Context<'_>) -> Poll<Result<Bytes, Unread>>
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
                    Some(Err(_)) => return Poll::Ready(Err(Unread::Gone)),
                    None => {}
                }
            }
            self.settle_if_many();
            let message = if self.rest.is_empty() {
                std::mem::take(&mut self.first)
            } else {
                std::mem::take(&mut self.rest).freeze()
            };
            let is_whole = self.bounds.promised(&message)? == Some(message.len());
            return Poll::Ready(if is_whole { self.bounds.open(message, &self.peer) } else { Err(Unread::Malformed) });
        }
    }

    fn settle_if_many(&mut self) {
        if !self.rest.is_empty() {
            self.settle();
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), Unread> {
        if self.len() == 0 {
            self.first = data;
        } else {
            self.settle();
            self.rest.extend_from_slice(&data);
        }
        let come = if self.rest.is_empty() { &self.first[..] } else { &self.rest[..] };
        // Most lists that are too long are so at once: the rest of them need not come.
        if !self.is_checked && come.len() >= EARLY_CHECK {
            self.is_checked = true;
            self.bounds.check(come)?;
        }
        match self.bounds.promised(come)? {
            Some(length) if come.len() > length => Err(Unread::Malformed),
            _ => Ok(()),
        }
    }
}

/// A stream of messages: passes on whole ones only. A message must come in full within a time from its first byte, and its
/// first byte within the time that a client may pause.
pub(super) struct Messages<B, G> {
    body: B,
    bounds: Bounds,
    patience: Patience,
    come: BytesMut,
    timer: Pin<Box<Sleep>>,
    /// A message has begun and is not there in full.
    has_begun: bool,
    /// Messages were passed on, and the client may pause again.
    may_pause: bool,
    place: Place,
    peer: Arc<Peer>,
    /// What the stream holds as long as it is open.
    _guard: G,
}

/// How long a stream of requests may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a message.
    pub(super) message: Duration,
    /// Between two messages.
    pub(super) pause: Duration,
}

impl<B, G> Messages<B, G> {
    pub(super) fn new(body: B, bounds: Bounds, patience: Patience, place: Place, guard: G, peer: Arc<Peer>) -> Self {
        let timer = Box::pin(tokio::time::sleep(patience.pause));
        Self {
            body,
            bounds,
            patience,
            come: BytesMut::new(),
            timer,
            has_begun: false,
            may_pause: false,
            place,
            peer,
            _guard: guard,
        }
    }

    /// The whole messages at the front of what has come; one alone if it is packed, so that no more than one is unpacked
    /// at a time.
    fn whole(&mut self) -> Result<Option<Bytes>, Unread> {
        let mut end = 0;
        while let Some(length) = self.bounds.promised(&self.come[end..])? {
            let Some(message) = self.come.get(end..end + length) else { break };
            if is_packed(message) {
                if end > 0 {
                    break;
                }
                let message = self.come.split_to(length).freeze();
                return self.bounds.open(message, &self.peer).map(Some);
            }
            self.bounds.check(message)?;
            end += length;
        }
        Ok((end > 0).then(|| self.come.split_to(end).freeze()))
    }

    /// Notes what is still to come, and gives the next whole messages, if there are any.
    fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let whole = self.whole()?;
        let had_begun = std::mem::replace(&mut self.has_begun, !self.come.is_empty());
        if self.has_begun && (!had_begun || whole.is_some()) {
            self.timer.as_mut().reset(Instant::now() + self.patience.message);
        }
        if self.has_begun {
            self.place.wait_on_with(self.come.len());
        } else {
            self.place.stop_waiting();
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
            this.timer.as_mut().reset(Instant::now() + this.patience.pause);
        }
        // One that is packed may have left others behind it.
        if this.has_begun
            && let Some(whole) = this.next().map_err(Unread::status)?
        {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        loop {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.come.extend_from_slice(&data);
                    if let Some(whole) = this.next().map_err(Unread::status)? {
                        return Poll::Ready(Some(Ok(Frame::data(whole))));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Unread::Gone.status()))),
                Poll::Ready(None) if this.has_begun => return Poll::Ready(Some(Err(Unread::Malformed.status()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.timer.as_mut().poll(cx));
                    this.place.note_late();
                    return Poll::Ready(Some(Err(Unread::Late.status())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, task::Waker};

    use super::{super::peer::Clock, *};

    /// Pieces that have come; there are no more, or they are still to come.
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

    fn arrive(pieces: &[&[u8]], ends: bool, max: usize) -> Poll<Result<Bytes, Unread>> {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        let peer = Arc::new(Peer::new(Clock::new()));
        let mut arriving = Arriving::new(Bounds { max, is_list: true, packing: Packing::Plain }, peer);
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
        let promise = [0, 0, 0, 1, 0];
        assert_eq!(arrive(&[&promise], false, 255), Poll::Ready(Err(Unread::TooLarge)));
        assert_eq!(arrive(&[&promise[..2], &promise[2..]], false, 255), Poll::Ready(Err(Unread::TooLarge)));
        assert_eq!(arrive(&[&promise], false, 256), Poll::Pending);
        let many = message(&[0x0A, 0].repeat(rpc::MAX_FIELDS + 1));
        assert_eq!(arrive(&[&many], true, 1 << 20), Poll::Ready(Err(Unread::TooLarge)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = message(&[1, 2, 3]);
        for pieces in [&[][..], &[&whole[..4]], &[&whole[..7]], &[&whole, &whole], &[&[2, 0, 0, 0, 0]]] {
            assert_eq!(arrive(pieces, true, 100), Poll::Ready(Err(Unread::Malformed)), "{pieces:?}");
        }
    }
}
