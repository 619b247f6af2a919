//! Attacks on a server with a policy: calls with credentials that nobody issued.

use std::sync::Arc;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::bodies::GET_STOCK;
use crate::{
    abuse::{attacker::Attacker, frames, wire::Opening},
    credentials,
};

/// Calls at once on each connection, and connections.
const AT_ONCE: usize = 128;
const CONNECTIONS: usize = 64;
/// Bytes of a claim that nobody reads: with the others, as many as a server accepts.
const LONG_CLAIM: usize = 3_900;

/// The credential of each call.
#[derive(Clone, Copy)]
pub(super) enum Forged {
    /// A token of this service that no identity has.
    Token,
    /// A JSON Web Token of the issuer with a wrong signature.
    Jwt,
    /// The same with long claims.
    LongJwt,
}

impl Forged {
    /// A credential that no call had before.
    fn text(self, number: u64) -> String {
        // The numbers of a signature are not 0.
        let signature = URL_SAFE_NO_PAD.encode([(number + 1).to_be_bytes(); 8].concat());
        match self {
            Forged::Token => format!("ist_{number:016x}_{}", &signature[..24]),
            Forged::Jwt => format!("{}.{signature}", credentials::unsigned_jwt(0)),
            Forged::LongJwt => format!("{}.{signature}", credentials::unsigned_jwt(LONG_CLAIM)),
        }
    }
}

/// Calls with a new credential each, on many connections without a pause.
pub(super) async fn forged(attacker: Arc<Attacker>, forged: Forged) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let message = frames::message(&[]);
        while !attacker.is_over() {
            let (ended, mut out) = (wire.seen().ended, Vec::new());
            for _ in 0..AT_ONCE {
                let mut block = frames::call_block(GET_STOCK);
                let credential = format!("Bearer {}", forged.text(attacker.unique()));
                frames::literal(&mut block, b"authorization", credential.as_bytes());
                attacker.call(&wire, &mut out, &block, Some((&message, true)));
            }
            wire.send(&out).await?;
            wire.wait_for_ended(ended + AT_ONCE as u64).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_is_new_and_has_the_right_form() {
        for forged in [Forged::Token, Forged::Jwt, Forged::LongJwt] {
            let [one, other] = [1, 2].map(|number| forged.text(number));
            assert_ne!(one, other);
        }
        for forged in [Forged::Jwt, Forged::LongJwt] {
            let text = forged.text(1);
            let parts: Vec<_> = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap().len()).collect();
            assert!(matches!(parts[..], [_, 1..=4_096, 64]), "{parts:?}");
        }
    }
}
