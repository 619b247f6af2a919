//! A connection of an attacker: writes what it is given, and notes what the server sends and how it ends the
//! connection. Touches its own socket only.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{Mutex as Pen, Notify},
    time::{sleep, timeout},
};

use super::frames::{self, HEADER_BYTES, Head, PREFACE, flag, kind, setting};
use super::tls::{Socket, handshake, lock};

/// Longest wait for a connection.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the first SETTINGS of a server.
const SETTINGS_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two checks whether the server has closed a connection that is not read.
const CHECK: Duration = Duration::from_millis(100);
/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// Payloads up to this size are kept until they are whole, in bytes. Larger ones are counted and dropped.
const KEPT_PAYLOAD: usize = 1024;
/// Payloads of these are read; those of others are skipped.
const READ_KINDS: [u8; 5] = [kind::SETTINGS, kind::PING, kind::GOAWAY, kind::WINDOW_UPDATE, kind::RST_STREAM];

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// Bytes of an answer that the server may send before they are read.
    pub(super) stream_window: u32,
    /// The same of the whole connection.
    pub(super) connection_window: u32,
    /// Whether SETTINGS and PING of the server are acknowledged. An attack that writes parts of frames does without.
    pub(super) acknowledges: bool,
    /// Whether the server speaks HTTP/2 here.
    pub(super) is_http2: bool,
}

impl Default for Opening {
    /// An attacker that reads all there is.
    fn default() -> Self {
        Self { stream_window: 1 << 20, connection_window: frames::MAX_WINDOW, acknowledges: true, is_http2: true }
    }
}

/// How the server has ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Fin,
    Reset,
}

/// The frames of a server.
#[derive(Debug)]
pub(super) struct Seen {
    has_settings: bool,
    /// Calls that it lets a connection have at once.
    max_streams: u32,
    stream_window: i64,
    /// Bytes that may still be sent on the connection, by what the server has granted and what was sent.
    connection_window: i64,
    /// The same of each stream, as the difference from the first window.
    streams: HashMap<u32, i64>,
    /// How many calls it has ended in order, and how many it has reset, by the code.
    pub(super) ended: u64,
    pub(super) resets: BTreeMap<u32, u64>,
    pub(super) data_bytes: u64,
    pub(super) goaway: Option<u32>,
    /// When and how it has ended the connection, from its start.
    pub(super) end: Option<(Duration, End)>,
    /// Whether all is noted that the server had sent before the end.
    pub(super) is_settled: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    tls: Option<Mutex<ClientConnection>>,
    opened: Instant,
    opening: Opening,
    /// One writer at a time, so that a frame is not cut by another.
    pen: Pen<()>,
    reads: AtomicBool,
    next_stream: AtomicU32,
    pub(super) sent: AtomicU64,
    seen: Mutex<Seen>,
    news: Notify,
}

impl Wire {
    /// Connects, with a handshake if there is TLS, and sends nothing.
    pub(super) async fn connect(
        address: SocketAddr,
        opening: Opening,
        tls: Option<Arc<ClientConfig>>,
    ) -> io::Result<Arc<Self>> {
        let opened = Instant::now();
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let tls = match tls {
            Some(config) => {
                Some(Mutex::new(timeout(CONNECT_LIMIT, handshake(&stream, config, opening.is_http2)).await??))
            }
            None => None,
        };
        let window = i64::from(frames::DEFAULT_WINDOW);
        let seen = Seen {
            has_settings: false,
            max_streams: u32::MAX,
            stream_window: window,
            connection_window: window,
            streams: HashMap::new(),
            ended: 0,
            resets: BTreeMap::new(),
            data_bytes: 0,
            goaway: None,
            end: None,
            is_settled: false,
        };
        Ok(Arc::new(Self {
            stream,
            tls,
            opened,
            opening,
            pen: Pen::new(()),
            reads: AtomicBool::new(true),
            next_stream: AtomicU32::new(1),
            sent: AtomicU64::new(0),
            seen: Mutex::new(seen),
            news: Notify::new(),
        }))
    }

    /// Sends the preface and the settings.
    pub(super) async fn begin(&self) -> io::Result<()> {
        let mut bytes = PREFACE.to_vec();
        frames::settings(&mut bytes, &[(setting::INITIAL_WINDOW_SIZE, self.opening.stream_window)]);
        let more = self.opening.connection_window.saturating_sub(frames::DEFAULT_WINDOW);
        if more > 0 {
            frames::window_update(&mut bytes, 0, more);
        }
        self.send(&bytes).await
    }

    /// Sends these bytes, as slowly as the server takes them.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _pen = self.pen.lock().await;
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.try_write(rest) {
                Ok(written) => {
                    self.sent.fetch_add(written as u64, Ordering::Relaxed);
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.note_end(End::Reset);
                    return Err(error);
                }
            }
        }
        // Records that the socket did not take yet.
        while self.tls.as_ref().is_some_and(|tls| lock(tls).wants_write()) {
            self.stream.writable().await?;
            match self.try_write(&[]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    self.note_end(End::Reset);
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.stream.try_write(bytes) };
        let mut tls = lock(tls);
        let written = tls.writer().write(bytes)?;
        while tls.wants_write() {
            match tls.write_tls(&mut Socket(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && written > 0 => break,
                result => result?,
            };
        }
        Ok(written)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.stream.try_read(buffer) };
        let mut tls = lock(tls);
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.read_tls(&mut Socket(&self.stream))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// The number of a new stream.
    pub(super) fn new_stream(&self) -> u32 {
        self.next_stream.fetch_add(2, Ordering::Relaxed)
    }

    /// From now on nothing is read; only the end of the connection is noted.
    pub(super) fn stop_reading(&self) {
        self.reads.store(false, Ordering::Relaxed);
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the server's SETTINGS. Returns how many calls it lets a connection have.
    pub(super) async fn max_streams(&self) -> io::Result<u32> {
        let wait = async {
            loop {
                let news = self.news.notified();
                {
                    let seen = self.seen();
                    if seen.has_settings {
                        return Ok(seen.max_streams);
                    }
                    if seen.end.is_some() {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
                let _ = timeout(CHECK, news).await;
            }
        };
        timeout(SETTINGS_LIMIT, wait).await?
    }

    /// Takes up to so many bytes from the windows of the connection and the stream.
    pub(super) fn take_window(&self, stream: u32, wanted: usize) -> usize {
        let mut seen = self.seen();
        let left = seen.stream_window + seen.streams.get(&stream).copied().unwrap_or_default();
        let bytes = left.min(seen.connection_window).clamp(0, wanted as i64);
        if bytes > 0 {
            *seen.streams.entry(stream).or_default() -= bytes;
            seen.connection_window -= bytes;
        }
        bytes as usize
    }

    /// Waits until so many bytes may be sent on the connection, and takes them from its window.
    pub(super) async fn wait_for_window(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as i64;
        loop {
            {
                let mut seen = self.seen();
                if seen.connection_window >= bytes {
                    seen.connection_window -= bytes;
                    return Ok(());
                }
            }
            self.wait_for_news().await?;
        }
    }

    /// Waits until so many calls of the connection have ended.
    pub(super) async fn wait_for_ended(&self, calls: u64) -> io::Result<()> {
        while self.seen().ended < calls {
            self.wait_for_news().await?;
        }
        Ok(())
    }

    /// Waits until the server has sent something, for a short while at most. Fails where the connection has ended.
    pub(super) async fn wait_for_news(&self) -> io::Result<()> {
        let _ = timeout(CHECK, self.news.notified()).await;
        if self.seen().end.is_some() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Reads, or only waits for the end, until the connection has ended.
    pub(super) async fn follow(self: Arc<Self>) {
        let end = self.read_to_end().await;
        self.note_end(end);
        self.seen().is_settled = true;
    }

    async fn read_to_end(&self) -> End {
        let mut parser = Parser::default();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let reads = self.reads.load(Ordering::Relaxed);
            if reads {
                if self.stream.readable().await.is_err() {
                    return End::Reset;
                }
                if !self.reads.load(Ordering::Relaxed) {
                    continue;
                }
            } else {
                sleep(CHECK).await;
                let ready = timeout(CHECK, self.stream.ready(Interest::READABLE | Interest::WRITABLE)).await;
                match ready {
                    // Earlier frames of the server are read to the end: they may contain the reason.
                    Ok(Ok(ready)) if ready.is_read_closed() || ready.is_write_closed() => {
                        self.reads.store(true, Ordering::Relaxed);
                    }
                    Ok(Err(_)) => return End::Reset,
                    _ => continue,
                }
            }
            match self.try_read(&mut buffer) {
                Ok(0) => return End::Fin,
                Ok(_) if !self.opening.is_http2 => {}
                Ok(read) => {
                    let answer = parser.read(&buffer[..read], &mut self.seen());
                    self.news.notify_waiters();
                    if self.opening.acknowledges && !answer.is_empty() && self.send(&answer).await.is_err() {
                        self.news.notify_waiters();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return End::Reset,
            }
        }
    }

    fn note_end(&self, end: End) {
        let after = self.opened.elapsed();
        self.seen().end.get_or_insert((after, end));
        self.news.notify_waiters();
    }
}

/// Cuts what is read into frames.
#[derive(Debug, Default)]
struct Parser {
    kept: Vec<u8>,
    /// Bytes of a payload that are still to come and that nothing reads.
    skips: usize,
}

impl Parser {
    /// Records the frames in these bytes. Returns the answer that they require.
    fn read(&mut self, mut bytes: &[u8], seen: &mut Seen) -> Vec<u8> {
        let mut answer = Vec::new();
        while !bytes.is_empty() {
            if self.skips > 0 {
                let now = self.skips.min(bytes.len());
                self.skips -= now;
                bytes = &bytes[now..];
                continue;
            }
            let wanted = match self.kept.first_chunk() {
                Some(header) => HEADER_BYTES + Head::read(header).length,
                None => HEADER_BYTES,
            };
            let now = (wanted - self.kept.len()).min(bytes.len());
            self.kept.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            let Some(header) = self.kept.first_chunk() else { continue };
            let head = Head::read(header);
            let is_read = READ_KINDS.contains(&head.kind) && head.length <= KEPT_PAYLOAD;
            if is_read && self.kept.len() < HEADER_BYTES + head.length {
                continue;
            }
            seen.note(head, &self.kept[HEADER_BYTES..], &mut answer);
            self.skips = HEADER_BYTES + head.length - self.kept.len();
            self.kept.clear();
        }
        answer
    }
}

impl Seen {
    fn note(&mut self, head: Head, payload: &[u8], answer: &mut Vec<u8>) {
        let is_ack = head.flags & flag::ACK != 0;
        match head.kind {
            kind::SETTINGS if !is_ack => {
                self.has_settings = true;
                for entry in payload.chunks_exact(6) {
                    let (id, value) = (u16::from_be_bytes([entry[0], entry[1]]), frames::number(&entry[2..]));
                    match (id, value) {
                        (setting::MAX_CONCURRENT_STREAMS, Some(value)) => self.max_streams = value,
                        (setting::INITIAL_WINDOW_SIZE, Some(value)) => self.stream_window = value.into(),
                        _ => {}
                    }
                }
                frames::frame(answer, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !is_ack => frames::frame(answer, kind::PING, flag::ACK, 0, payload),
            kind::WINDOW_UPDATE => {
                let bytes = i64::from(frames::number(payload).unwrap_or_default());
                match head.stream {
                    0 => self.connection_window += bytes,
                    stream => *self.streams.entry(stream).or_default() += bytes,
                }
            }
            kind::GOAWAY => self.goaway = payload.get(4..).and_then(frames::number),
            kind::RST_STREAM => {
                *self.resets.entry(frames::number(payload).unwrap_or_default()).or_default() += 1;
            }
            kind::DATA | kind::HEADERS => {
                if head.kind == kind::DATA {
                    self.data_bytes += head.length as u64;
                }
                self.ended += u64::from(head.flags & flag::END_STREAM != 0);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_noted_however_they_are_cut() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire::connect(listener.local_addr().unwrap(), Opening::default(), None).await.unwrap();
        let mut bytes = Vec::new();
        frames::settings(&mut bytes, &[(setting::MAX_CONCURRENT_STREAMS, 256)]);
        frames::frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, 1, &[0; 3_000]);
        frames::frame(&mut bytes, kind::DATA, flag::END_STREAM, 1, &[0; 5_000]);
        frames::reset(&mut bytes, 3);
        frames::frame(&mut bytes, kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 11]);
        let (mut parser, mut answer) = (Parser::default(), Vec::new());
        for part in bytes.chunks(7) {
            answer.extend(parser.read(part, &mut wire.seen()));
        }
        let seen = wire.seen();
        assert_eq!((seen.max_streams, seen.ended, seen.data_bytes), (256, 1, 5_000));
        assert_eq!((seen.resets.get(&8), seen.goaway), (Some(&1), Some(11)));
        assert_eq!(answer, [0, 0, 0, kind::SETTINGS, flag::ACK, 0, 0, 0, 0]);
    }
}
