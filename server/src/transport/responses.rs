//! Outgoing responses: counts the bytes that the caller has not read. Passes frames on in pieces,
//! so the HTTP/2 library has one piece of each stream, and the server can drop the rest. Touches
//! the body of a response only.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::{ledger::Registration, observer::Observer, peer::HealthSlot, refusals};
use crate::{
    failure,
    tasks::{Task, Tasks},
};

/// The largest frame that is passed to the HTTP/2 library at once, in bytes. Every peer accepts
/// this size.
const PIECE: usize = 16 * 1_024;

/// The body of a response.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Small and whole.
    Plain(Body),
    Tracked(Tracked),
}

/// A response that can be large or endless.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// `None` after its end.
    body: Option<Body>,
    /// If the call only watches.
    observer: Option<Observer>,
    /// The rest of the frame that is passed on in pieces.
    rest: Bytes,
    registration: Registration,
    tasks: Tasks,
    /// Kept while the stream is open.
    _slot: Option<HealthSlot>,
}

impl Answer {
    pub(super) fn tracked(
        body: Body,
        registration: Registration,
        slot: Option<HealthSlot>,
        observer: Option<Observer>,
        tasks: Tasks,
    ) -> Self {
        Answer::Tracked(Tracked { body: Some(body), observer, rest: Bytes::new(), registration, tasks, _slot: slot })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Answer::Plain(body) => Pin::new(body).poll_frame(cx),
            Answer::Tracked(tracked) => tracked.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Plain(body) => body.is_end_stream(),
            Answer::Tracked(Tracked { body, rest, .. }) => {
                rest.is_empty() && body.as_ref().is_none_or(HttpBody::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Plain(body) => body.size_hint(),
            // No code reads the length of a tracked response.
            Answer::Tracked(_) => SizeHint::default(),
        }
    }
}

impl Tracked {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // A poll means that the previous piece was sent.
        if self.rest.is_empty() {
            self.registration.stop_waiting();
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(mut trailers) => {
                        if let Some(headers) = trailers.trailers_mut() {
                            refusals::complete(headers);
                        }
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                end => return Poll::Ready(end),
            }
        }
        self.registration.wait_with(self.rest.len());
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// The next frame of the body. A panic ends the stream with a refusal. A stream that only
    /// watches ends when the server drains and it has nothing more to send.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match self.tasks.catch(Task::Stream, || Pin::new(body).poll_frame(cx)) {
            Some(Poll::Ready(frame)) => return Poll::Ready(frame),
            Some(Poll::Pending) => {}
            None => return self.end(&failure::defect("the handler of the stream panicked")),
        }
        let Some(observer) = &mut self.observer else { return Poll::Pending };
        let end = ready!(observer.poll_end(cx));
        self.end(&end)
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.body = None;
        Poll::Ready(Some(trailers(status).map(Frame::trailers)))
    }
}

/// The trailers with the status of a call.
fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use http_body_util::Full;
    use prometheus::{IntCounter, IntGauge};

    use super::*;
    use crate::transport::{
        ledger::{Counts, Ledger},
        peer::{Clock, Peer},
    };

    #[test]
    fn a_large_answer_leaves_in_pieces_and_is_counted_until_it_has_left() {
        let bytes = IntGauge::new("bytes", "help").unwrap();
        let counter = || IntCounter::new("name", "help").unwrap();
        let counts = Counts { bytes: bytes.clone(), cut: counter(), late: counter() };
        let ledger = Arc::new(Ledger::new(1 << 30, 10, counts));
        let registration = ledger.register(&Arc::new(Peer::new(Clock::new())));
        let whole: Bytes = (0..100_000_u32).map(|i| i as u8).collect();
        let mut answer = Answer::tracked(Body::new(Full::new(whole.clone())), registration, None, None, Tasks::alone());
        let mut read = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut answer).poll_frame(&mut cx) {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            assert_eq!(bytes.get(), (whole.len() - read.len()) as i64);
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, whole);
        assert_eq!(bytes.get(), 0);
        assert!(answer.is_end_stream());
    }
}
