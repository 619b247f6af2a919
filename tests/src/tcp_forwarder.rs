//! A port that stays the same while the server behind it changes, as that of a load balancer does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Forwards each connection to the current server.
#[derive(Debug)]
pub struct TcpForwarder {
    address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    task: JoinHandle<()>,
}

impl TcpForwarder {
    /// Listens on a free port and forwards to `to`.
    pub async fn open(to: SocketAddr) -> TcpForwarder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let to = Arc::new(Mutex::new(to));
        let leads = Arc::clone(&to);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let to = *leads.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        // However it ends, both sides see it.
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        TcpForwarder { address, to, task }
    }

    /// Where clients connect to.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forwards new connections to another server; established ones stay.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

impl Drop for TcpForwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
