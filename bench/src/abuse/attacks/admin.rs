//! Attacks on the operator's port, which speaks HTTP/1.

use std::sync::Arc;

use anyhow::Result;

use crate::abuse::{attacker::Attacker, wire::Opening};

const HTTP_1: Opening = Opening { stream_window: 0, connection_window: 0, acknowledges: false, is_http2: false };
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Scrapes of one write, and connections that write them.
const SCRAPES_AT_ONCE: usize = 1_000;
const CONNECTIONS: usize = 50;
/// Connections that do nothing.
const IDLE_CONNECTIONS: usize = 5_000;

/// Requests without end whose answers are not read.
pub(super) async fn pipelined(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.connect(attacker.target.admin, HTTP_1).await?;
        wire.stop_reading();
        let scrapes = SCRAPE.repeat(SCRAPES_AT_ONCE);
        while !attacker.is_over() {
            wire.send(&scrapes).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

/// Connections that send nothing.
pub(super) async fn idle(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        attacker.connect(attacker.target.admin, HTTP_1).await?;
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(IDLE_CONNECTIONS), act).await
}
