//! A proxy between the server and Redis: forwards bytes, and drops replies on request.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};

use crate::Redis;

/// A TCP port that leads to a Redis.
#[derive(Debug)]
pub struct LossyProxy {
    address: SocketAddr,
    to_lose: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    away: Arc<Away>,
    task: JoinHandle<()>,
}

/// Whether nothing gets through.
#[derive(Debug, Default)]
struct Away {
    is_away: AtomicBool,
    /// Whether the next lost reply makes it so.
    after_loss: AtomicBool,
}

impl LossyProxy {
    /// Listens on a free port of loopback.
    pub async fn start(redis: &Redis) -> LossyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (to_lose, lost) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let shared = (Arc::clone(&to_lose), Arc::clone(&lost));
        let away = Arc::new(Away::default());
        let is_away = Arc::clone(&away);
        let socket = redis.socket();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (socket, (to_lose, lost), away) = (socket.clone(), shared.clone(), Arc::clone(&is_away));
                tokio::spawn(async move {
                    // Either end may be gone at any time.
                    let _ = forward(stream, socket, &to_lose, &lost, &away).await;
                });
            }
        });
        LossyProxy { address, to_lose, lost, away, task }
    }

    /// For `--redis-url`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// For `--redis-url`, as this user of Redis, whose password is its name.
    pub fn url_as(&self, user: &str) -> String {
        format!("redis://{user}:{user}@{}", self.address)
    }

    /// From now on, this many script calls for a partition reach Redis, and their connection is closed before the
    /// reply.
    pub fn lose_replies(&self, number: usize) {
        self.to_lose.store(number, Ordering::SeqCst);
    }

    /// The next script call reaches Redis and its reply is lost. After that nothing passes in either direction until
    /// [`LossyProxy::come_back`].
    pub fn lose_a_reply_and_go_away(&self) {
        self.away.after_loss.store(true, Ordering::SeqCst);
        self.lose_replies(1);
    }

    /// Lets everything through again.
    pub fn come_back(&self) {
        self.away.is_away.store(false, Ordering::SeqCst);
    }

    /// How many replies were lost.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut server: TcpStream,
    socket: PathBuf,
    to_lose: &AtomicUsize,
    lost: &AtomicUsize,
    away: &Away,
) -> std::io::Result<()> {
    let is_away = || away.is_away.load(Ordering::SeqCst);
    if is_away() {
        return Ok(());
    }
    let mut redis = UnixStream::connect(socket).await?;
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_script = false;
    loop {
        tokio::select! {
            n = server.read(&mut request) => {
                let n = n?;
                if n == 0 || is_away() { return Ok(()); }
                let has = |word: &[u8]| request[..n].windows(word.len()).any(|other| other == word);
                // The health check runs a script too, which has no key.
                is_script = has(b"EVALSHA") && has(b"}:meta");
                redis.write_all(&request[..n]).await?;
            }
            n = redis.read(&mut reply) => {
                let n = n?;
                if n == 0 || is_away() { return Ok(()); }
                let take = |left: usize| left.checked_sub(1);
                // The reply is there, so the script has run; NOSCRIPT would mean that it has not.
                if is_script && reply[0] != b'-'
                    && to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
                {
                    if away.after_loss.swap(false, Ordering::SeqCst) {
                        away.is_away.store(true, Ordering::SeqCst);
                    }
                    lost.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                server.write_all(&reply[..n]).await?;
            }
        }
    }
}
