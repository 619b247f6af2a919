//! A socket that counts the incoming HTTP/2 frames. It ends a connection that sends too many of the
//! wrong kind, delays the work of untrusted ones, and records an incomplete frame or a blocked
//! write. Changes no byte.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take},
    time::{Sleep, sleep_until},
};

use super::{
    pace::Pace,
    peer::Peer,
    rates::{Allowance, Cost, FrameRates},
};
use crate::telemetry::transport::Closed;

/// Length of the text with which a client begins an HTTP/2 connection, in bytes (RFC 9113, section
/// 3.4).
const PREFACE: usize = 24;
/// Length of the head of a frame, in bytes.
const HEAD: usize = 9;
/// Types of frames that make up a header block, and the flag that ends it.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// Work, in microseconds, after which a connection yields to others (rates.rs).
const TURN: u32 = 20_000;
/// Bytes of one read: usually, and of an untrusted connection. The HTTP/2 library handles all bytes
/// of a read in one turn.
const READ: usize = 64 * 1_024;
const UNTRUSTED_READ: usize = 1_024;
const FIRST_READ: usize = 256;
/// Work of a new connection, in microseconds.
const FIRST_WORK: u64 = 100;
/// Frames, other than those of calls, of one read that make a connection untrusted.
const MANY_SUSPECTS: u32 = 16;

/// The socket of one connection.
#[derive(Debug)]
pub(super) struct Metered<S> {
    socket: Take<S>,
    peer: Arc<Peer>,
    allowance: Allowance,
    parser: Parser,
    /// The work of the frames of this turn.
    turn: u32,
    /// The work that all untrusted connections may cause.
    pace: Arc<Pace>,
    /// Most bytes of the next read.
    limit: usize,
    /// When the turn of the connection comes.
    pause: Option<Pin<Box<Sleep>>>,
    /// Bytes of an untrusted connection that are passed on after the pause: `UNTRUSTED_READ` at most.
    held: Vec<u8>,
}

/// The verdict on the frames of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// The connection exceeds a rate.
    Forbidden,
    Allowed,
    /// An untrusted connection whose turn is still to come.
    Early,
}

impl<S: AsyncRead> Metered<S> {
    pub(super) fn new(socket: S, peer: Arc<Peer>, rates: FrameRates, pace: Arc<Pace>) -> Self {
        let pause = pace.take(FIRST_WORK).map(|turn| Box::pin(sleep_until(turn)));
        Self {
            socket: socket.take(READ as u64),
            peer,
            allowance: Allowance::new(rates, Instant::now()),
            parser: Parser::default(),
            turn: 0,
            pace,
            limit: FIRST_READ,
            pause,
            held: Vec::new(),
        }
    }

    /// Counts the frames of a read, and plans the next read.
    fn count_frames(&mut self, bytes: &[u8]) -> Read {
        let ended_before = self.parser.ended;
        let (mut is_allowed, mut frames, mut suspects, mut calls, mut work) = (true, 0_u32, 0_u32, 0_u32, 0_u32);
        self.parser.read(bytes, |cost| {
            frames += 1;
            suspects += u32::from(cost.is_suspect());
            calls += cost.calls;
            work = work.saturating_add(cost.work);
            is_allowed = is_allowed && self.allowance.take(cost);
        });
        work = work.saturating_add(self.peer.take_decompression_work());
        self.turn = self.turn.saturating_add(work);
        // The credit comes first: an untrusted connection spends its credit too.
        let is_untrusted = !self.peer.spend(calls) || !self.peer.is_proven() || suspects > MANY_SUSPECTS;
        // The rest of a frame makes no more work than its head.
        let is_short = is_untrusted || !self.peer.has_full_read_credit();
        self.limit = if is_short { self.parser.payload.clamp(UNTRUSTED_READ, READ) } else { READ };
        if is_untrusted && work > 0 {
            self.pause = self.pace.take(u64::from(work)).map(|turn| Box::pin(sleep_until(turn)));
        }
        if frames > 0 {
            // The first frame is the client's SETTINGS. Otherwise the HTTP/2 library ends the
            // connection.
            self.peer.record_handshake();
        }
        let is_incomplete = self.parser.is_incomplete();
        let has_ended_one = self.parser.ended > ended_before;
        if is_incomplete && has_ended_one && !self.parser.is_in_block {
            self.peer.renew_frame();
        } else {
            self.peer.record_frame(is_incomplete);
        }
        match self.pause {
            _ if !is_allowed => Read::Forbidden,
            Some(_) => Read::Early,
            None => Read::Allowed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            if !this.held.is_empty() {
                let passed = this.held.len().min(buffer.remaining());
                buffer.put_slice(&this.held[..passed]);
                this.held = this.held.split_off(passed);
                return Poll::Ready(Ok(()));
            }
            if this.turn >= TURN {
                this.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            this.socket.set_limit(this.limit as u64);
            let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
            match result {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    this.turn = 0;
                    return result;
                }
                Poll::Ready(Err(_)) => return result,
            }
            match this.count_frames(&buffer.filled()[before..]) {
                Read::Forbidden => {
                    this.peer.close(Closed::Flood);
                    return Poll::Ready(Err(io::Error::other("the connection sends too many frames of one kind")));
                }
                Read::Early if buffer.filled().len() - before <= UNTRUSTED_READ => {
                    this.held.extend_from_slice(&buffer.filled()[before..]);
                    buffer.set_filled(before);
                }
                // More was read than may be held, before the connection became untrusted. The rest
                // waits.
                Read::Early | Read::Allowed => return result,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Metered<S> {
    fn record<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.peer.record_write(result.is_pending());
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(self.socket.get_mut()).poll_write(cx, bytes);
        self.record(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(self.socket.get_mut()).poll_write_vectored(cx, slices);
        self.record(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(self.socket.get_mut()).poll_flush(cx);
        // A TLS stream accepts writes while its socket is blocked. A TCP stream is never blocked here.
        self.peer.record_flush(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.socket.get_mut()).poll_shutdown(cx)
    }
}

/// Finds the heads of frames in a stream of bytes.
#[derive(Debug, Default)]
struct Parser {
    /// Received bytes of the preface.
    preface: usize,
    head: [u8; HEAD],
    /// Received bytes of the head.
    in_head: usize,
    /// Bytes of the payload that are missing.
    payload: usize,
    /// The head is complete, and the payload is not.
    is_in_payload: bool,
    /// Frames that have ended.
    ended: u64,
    /// A header block has begun and not ended.
    is_in_block: bool,
}

impl Parser {
    fn read(&mut self, mut bytes: &[u8], mut count: impl FnMut(Cost)) {
        if self.preface < PREFACE {
            let skipped = bytes.len().min(PREFACE - self.preface);
            self.preface += skipped;
            bytes = &bytes[skipped..];
        }
        loop {
            let skipped = bytes.len().min(self.payload);
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            if self.is_in_payload && self.payload == 0 {
                self.is_in_payload = false;
                self.ended += 1;
            }
            if bytes.is_empty() {
                return;
            }
            let taken = bytes.len().min(HEAD - self.in_head);
            self.head[self.in_head..self.in_head + taken].copy_from_slice(&bytes[..taken]);
            self.in_head += taken;
            bytes = &bytes[taken..];
            if self.in_head < HEAD {
                return;
            }
            self.in_head = 0;
            let [high, middle, low, kind, flags, ..] = self.head;
            let length = u32::from_be_bytes([0, high, middle, low]);
            self.payload = length as usize;
            self.is_in_payload = true;
            if kind == HEADERS || kind == CONTINUATION {
                self.is_in_block = flags & END_HEADERS == 0;
            }
            count(Cost::of(kind, flags, length));
        }
    }

    /// Whether a frame or a header block has begun and not ended.
    fn is_incomplete(&self) -> bool {
        self.in_head > 0 || self.is_in_payload || self.is_in_block
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::transport::peer::{Clock, ConnectionTimeouts};

    const RATES: FrameRates = FrameRates { resets: 10, control: 100 };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn metered(rates: FrameRates) -> (DuplexStream, Metered<DuplexStream>, Arc<Peer>) {
        let (client, server) = duplex(1 << 20);
        let peer = Arc::new(Peer::new(Clock::new()));
        let pace =
            Arc::new(Pace::new(1_000_000_000, Duration::ZERO, prometheus::IntCounter::new("name", "help").unwrap()));
        (client, Metered::new(server, Arc::clone(&peer), rates, pace), peer)
    }

    /// Reads until nothing more arrives for now; false: the connection was ended.
    async fn drain(socket: &mut Metered<DuplexStream>) -> bool {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match tokio::time::timeout(Duration::from_millis(20), socket.read(&mut buffer)).await {
                Ok(Ok(0)) | Err(_) => return true,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return false,
            }
        }
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = vec![b'P'; PREFACE];
        bytes.extend(frame(4, 0, &[0; 12]));
        bytes.extend(frame(1, 0, &[7; 40]));
        bytes.extend(frame(9, 4, &[7; 300]));
        bytes.extend(frame(0, 1, &[]));
        bytes.extend(frame(3, 0, &[0; 4]));
        let whole = {
            let (mut parser, mut costs) = (Parser::default(), Vec::new());
            parser.read(&bytes, |cost| costs.push(cost));
            assert!(!parser.is_incomplete());
            costs
        };
        assert_eq!(whole.len(), 5);
        for size in 1..60 {
            let (mut parser, mut costs) = (Parser::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| parser.read(piece, |cost| costs.push(cost)));
            assert_eq!(costs, whole, "pieces of {size}");
            assert!(!parser.is_incomplete());
        }
        let mut parser = Parser::default();
        parser.read(&bytes[..bytes.len() - 1], |_| ());
        assert!(parser.is_incomplete());
    }

    #[tokio::test]
    async fn floods_end_the_connection_and_calls_do_not() {
        let preface = [b'P'; PREFACE];
        for (kind, flags, payload, max) in [(3, 0, 4, 20), (6, 0, 8, 200), (4, 0, 6, 2), (0, 0, 0, 20), (99, 0, 9, 20)]
        {
            let (mut client, mut socket, peer) = metered(RATES);
            client.write_all(&preface).await.unwrap();
            for _ in 0..max {
                client.write_all(&frame(kind, flags, &vec![0; payload])).await.unwrap();
            }
            assert!(drain(&mut socket).await, "{max} frames of kind {kind} are allowed");
            for _ in 0..max {
                client.write_all(&frame(kind, flags, &vec![0; payload])).await.unwrap();
            }
            assert!(!drain(&mut socket).await, "twice as many are not");
            assert_eq!(peer.closed(), Some(Closed::Flood));
        }
        let (mut client, mut socket, peer) = metered(RATES);
        client.write_all(&preface).await.unwrap();
        for _ in 0..5_000 {
            client.write_all(&frame(1, 4, &[0; 30])).await.unwrap();
            client.write_all(&frame(0, 1, &[0; 60])).await.unwrap();
        }
        assert!(drain(&mut socket).await);
        assert_eq!(peer.closed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_together_make_no_more_work_than_they_may() {
        const UNTRUSTED: usize = 100;
        const SECONDS: u64 = 3;
        let work_of_a_second = 100_000;
        let pauses = prometheus::IntCounter::new("name", "help").unwrap();
        let pace = Arc::new(Pace::new(work_of_a_second, Duration::from_millis(20), pauses));
        let call = [frame(1, 4, &[7; 14]), frame(0, 0, &[0; 5])].concat();
        let bytes = [&[b'P'; PREFACE][..], &call.repeat(1_000)].concat();
        let mut clients = Vec::new();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..UNTRUSTED {
            let (mut client, server) = duplex(1 << 20);
            client.write_all(&bytes).await.unwrap();
            clients.push(client);
            let mut socket = Metered::new(server, Arc::new(Peer::new(Clock::new())), RATES, Arc::clone(&pace));
            readers.spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                let mut received = Vec::new();
                let deadline = tokio::time::Instant::now() + Duration::from_secs(SECONDS);
                while let Ok(read) = tokio::time::timeout_at(deadline, socket.read(&mut buffer)).await {
                    received.extend_from_slice(&buffer[..read.unwrap()]);
                }
                received
            });
        }
        let mut done = 0;
        for received in readers.join_all().await {
            assert!(bytes.starts_with(&received), "no byte is lost or changed");
            Parser::default().read(&received, |cost| done += u64::from(cost.work));
        }
        let may = work_of_a_second * SECONDS;
        assert!((may / 2..may * 11 / 10).contains(&done), "{done} of {may} microseconds of work");
    }

    #[tokio::test]
    async fn a_frame_that_does_not_end_is_noticed_and_a_slow_series_is_not() {
        let timeouts = ConnectionTimeouts {
            handshake: Duration::from_secs(60),
            request: Duration::from_millis(200),
            response: Duration::from_secs(60),
        };
        let (mut client, mut socket, peer) = metered(RATES);
        client.write_all(&[b'P'; PREFACE]).await.unwrap();
        let whole = frame(0, 0, &[1; 50]);
        client.write_all(&whole[..20]).await.unwrap();
        for _ in 0..10 {
            // Ends one frame, and begins the next.
            client.write_all(&whole[20..]).await.unwrap();
            client.write_all(&whole[..20]).await.unwrap();
            assert!(drain(&mut socket).await);
            assert_eq!(peer.exceeded_limit(&timeouts), None);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        drop((client, socket, peer));

        // A frame that arrives byte by byte.
        let (mut client, mut socket, peer) = metered(RATES);
        client.write_all(&[b'P'; PREFACE]).await.unwrap();
        let began = Instant::now();
        let mut bytes = frame(1, 4, &[7; 200]).into_iter();
        while peer.exceeded_limit(&timeouts).is_none() {
            client.write_all(&[bytes.next().expect("it is closed before its end")]).await.unwrap();
            assert!(drain(&mut socket).await);
        }
        assert!(began.elapsed() < 3 * timeouts.request, "{:?}", began.elapsed());

        // A block that never ends, however many frames it has.
        let (mut client, mut socket, peer) = metered(FrameRates { resets: 10, control: 10_000 });
        client.write_all(&[b'P'; PREFACE]).await.unwrap();
        client.write_all(&frame(1, 0, &[7; 40])).await.unwrap();
        assert!(drain(&mut socket).await);
        let began = Instant::now();
        while peer.exceeded_limit(&timeouts).is_none() {
            client.write_all(&frame(9, 0, &[7; 40])).await.unwrap();
            assert!(drain(&mut socket).await);
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(peer.exceeded_limit(&timeouts), Some(Closed::SlowFrame));
    }
}
