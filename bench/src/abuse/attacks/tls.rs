//! Attacks on the TLS of the server: handshakes that do not end or that never stop, and records without bytes.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::{ClientConnection, pki_types::ServerName};

use super::bodies::RESERVE;
use crate::abuse::{attacker::Attacker, frames, wire::Opening};

/// Connections that do not end their handshake.
const CONNECTIONS: usize = 5_000;
/// Connections that attack at the same moment, each again and again.
const ATTACKERS: usize = 64;
/// Bytes that are no TLS, of one write.
const GARBAGE: [u8; 1_024] = [0xAA; 1_024];
/// Records of one byte or less in one write.
const RECORDS: usize = 256;

/// A raw connection: the attack writes its records.
const RAW: Opening = Opening { stream_window: 0, connection_window: 0, acknowledges: false, is_http2: false };

/// How far a handshake gets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hello {
    Nothing,
    Half,
    Whole,
}

/// Handshakes that do not end.
pub(super) async fn connections(attacker: Arc<Attacker>, hello: Hello) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.connect_plain(attacker.target.grpc, RAW).await?;
        let bytes = client_hello(&attacker)?;
        match hello {
            Hello::Nothing => Ok(()),
            Hello::Half => Ok(wire.send(&bytes[..bytes.len() / 2]).await?),
            Hello::Whole => Ok(wire.send(&bytes).await?),
        }
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

/// Bytes that are no TLS, again and again.
pub(super) async fn garbage(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        while !attacker.is_over() {
            if let Ok(wire) = attacker.connect_plain(attacker.target.grpc, RAW).await {
                let _ = wire.send(&GARBAGE).await;
            }
            attacker.forget_ended();
        }
        Ok(())
    };
    attacker.crowd(ATTACKERS, act).await;
    Ok(())
}

/// Whole handshakes, again and again, each without a call.
pub(super) async fn handshakes(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        while !attacker.is_over() {
            let opened = attacker.open(Opening::default()).await;
            drop(opened);
            attacker.forget_ended();
        }
        Ok(())
    };
    attacker.crowd(ATTACKERS, act).await;
    Ok(())
}

/// Client hellos, again and again: the server signs, and the attacker does not.
pub(super) async fn hellos(attacker: Arc<Attacker>) -> Result<()> {
    let bytes = Arc::new(client_hello(&attacker)?);
    let act = move |attacker: Arc<Attacker>, _| {
        let bytes = Arc::clone(&bytes);
        async move {
            while !attacker.is_over() {
                if let Ok(wire) = attacker.connect_plain(attacker.target.grpc, RAW).await {
                    let _ = wire.send(&bytes).await;
                }
                attacker.forget_ended();
            }
            Ok(())
        }
    };
    attacker.crowd(ATTACKERS, act).await;
    Ok(())
}

/// A call of which each byte is a record.
pub(super) async fn tiny_records(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening { acknowledges: false, ..Opening::default() }).await?;
        while !attacker.is_over() {
            let mut out = Vec::new();
            for _ in 0..RECORDS {
                attacker.call(&wire, &mut out, &frames::call_block(RESERVE), Some((&[0; 5], true)));
            }
            for byte in out {
                wire.send(&[byte]).await?;
            }
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(ATTACKERS), act).await
}

/// Silent connections to the operator's port.
pub(super) async fn admin(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        attacker.connect_plain(attacker.target.admin, RAW).await?;
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

/// The first flight of a client.
fn client_hello(attacker: &Attacker) -> Result<Vec<u8>> {
    let config = attacker.target.tls.clone().context("the server has TLS")?;
    let mut connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}
