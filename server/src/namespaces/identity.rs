//! The id of a request in the store: 16 bytes that are derived with the secret of its namespace. Pure, no I/O.
//!
//! In a namespace with sealed ids (every namespace that was created in format 5 or later) the 16 bytes are one block,
//! encrypted with AES-128 under a key that is derived from the secret. The block contains the request id itself if it
//! fits. So a reservation id can be decrypted to its request id, and the record of a hold does not have to contain it.
//! Like a truncated HMAC, the result can't be guessed. Blocks, by the upper half of byte 6, where a UUID has its
//! version:
//! - 0 to 13: a UUID, from its lower-case text with hyphens;
//! - 14: 1 to 17 characters of ASCII, 7 bits each, from the first bit on; the bits of byte 6's upper half are skipped;
//! - 15: the first bytes of an HMAC of any other text.

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    domain::{Id, RequestId},
    store::{error::StoreError, wire::NamespaceConfig},
};

/// The longest text that fits into a block, in characters.
const LONGEST_TEXT: usize = 17;
/// The length of a UUID as text with hyphens.
const UUID_LENGTH: usize = 36;
/// The byte whose upper half is the kind of a block, and the two kinds that are no UUID.
const KIND: usize = 6;
const TEXT: u8 = 0xE0;
const OPAQUE: u8 = 0xF0;

/// Derives the ids of one namespace.
pub(super) struct Identities {
    /// Keyed with the secret.
    mac: Hmac<Sha256>,
    /// `None`: an id is the first bytes of an HMAC, and can't be decrypted.
    seal: Option<Aes128>,
}

impl Identities {
    pub(super) fn new(config: &NamespaceConfig) -> Result<Self, StoreError> {
        let invalid = |error: &dyn std::fmt::Display| StoreError::corrupt(error.to_string());
        let mac = Hmac::<Sha256>::new_from_slice(&config.secret).map_err(|error| invalid(&error))?;
        let seal = if config.has_sealed_ids {
            let key = first_bytes(mac.clone(), &[b"\0seal"]);
            Some(Aes128::new_from_slice(&key).map_err(|error| invalid(&error))?)
        } else {
            None
        };
        Ok(Self { mac, seal })
    }

    /// The HMAC for tags and tokens.
    pub(super) fn mac(&self) -> Hmac<Sha256> {
        self.mac.clone()
    }

    /// The id of this request.
    pub(super) fn of_request(&self, request: &RequestId) -> Id {
        match (&self.seal, plain_block(request.as_str())) {
            (Some(seal), Some(block)) => encrypted(seal, block),
            _ => self.derived(&[request.as_str().as_bytes()]),
        }
    }

    /// The id of these parts. It can't be decrypted to them.
    pub(super) fn derived(&self, parts: &[&[u8]]) -> Id {
        let mut id = first_bytes(self.mac(), parts);
        match &self.seal {
            None => id,
            Some(seal) => {
                id[KIND] |= OPAQUE;
                encrypted(seal, id)
            }
        }
    }

    /// The request of this id, if the id contains it.
    pub(super) fn request_of(&self, id: &Id) -> Option<String> {
        let mut block = (*id).into();
        self.seal.as_ref()?.decrypt_block(&mut block);
        let block: Id = block.into();
        match block[KIND] & 0xF0 {
            OPAQUE => None,
            TEXT => Some(text_in(block)),
            _ => Some(Uuid::from_bytes(block).hyphenated().to_string()),
        }
    }
}

/// The block that contains this text; `None` if it does not fit.
fn plain_block(text: &str) -> Option<Id> {
    if text.len() == UUID_LENGTH {
        let uuid = Uuid::try_parse(text).ok()?;
        let mut again = Uuid::encode_buffer();
        let is_same = *uuid.hyphenated().encode_lower(&mut again) == *text;
        return (is_same && uuid.as_bytes()[KIND] < TEXT).then(|| uuid.into_bytes());
    }
    if text.is_empty() || text.len() > LONGEST_TEXT || !text.is_ascii() {
        return None;
    }
    let bits = text.bytes().fold(0_u128, |bits, byte| bits << 7 | u128::from(byte));
    Some(spread(bits << (7 * (LONGEST_TEXT - text.len()))))
}

/// Places 119 bits around the upper half of byte 6.
fn spread(bits: u128) -> Id {
    let bits = bits << (124 - 7 * LONGEST_TEXT);
    let (before, after) = (bits >> 76, bits & ((1 << 76) - 1));
    let mut block = (before << 80 | after).to_be_bytes();
    block[KIND] |= TEXT;
    block
}

/// The text in a block, up to the first NUL.
fn text_in(mut block: Id) -> String {
    block[KIND] &= 0x0F;
    let bits = u128::from_be_bytes(block);
    let bits = (bits >> 80 << 76 | bits & ((1 << 76) - 1)) >> (124 - 7 * LONGEST_TEXT);
    let mut text = String::with_capacity(LONGEST_TEXT);
    for at in (0..LONGEST_TEXT).rev() {
        match (bits >> (7 * at)) as u8 & 0x7F {
            0 => break,
            byte => text.push(char::from(byte)),
        }
    }
    text
}

fn encrypted(seal: &Aes128, block: Id) -> Id {
    let mut block = block.into();
    seal.encrypt_block(&mut block);
    block.into()
}

/// The first bytes of the HMAC of these parts.
pub(super) fn first_bytes(mac: Hmac<Sha256>, parts: &[&[u8]]) -> Id {
    let digest = parts.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes();
    let mut id = Id::default();
    id.copy_from_slice(&digest[..16]);
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{config::Config, namespaces::Defaults};

    fn identities(format: u8) -> Identities {
        let config = Config { format, ..Config::default() };
        Identities::new(&Defaults::from(&config).propose(None, &crate::random::Random::System)).expect("a secret")
    }

    fn request(text: &str) -> RequestId {
        RequestId::parse(text.to_owned()).expect("a request id")
    }

    const SHORT: [&str; 8] =
        ["a", "~", "order-4711", "order-4711-1", "!~!~!~!~!~!~!~!~!", "17-characters-abc", "zzzzzzzzzzzzzzzzz", "0"];

    #[test]
    fn a_request_can_be_read_from_its_id() {
        let identities = identities(5);
        let mut seen = HashSet::new();
        let uuids = (1..200).map(|i| Uuid::from_u128(i * 0x0123_4567_89ab_cdef_fedc_ba98_7654_3211)).chain([
            Uuid::nil(),
            Uuid::now_v7(),
            Uuid::from_u128(u128::MAX - (0xF << 76)),
        ]);
        let texts = SHORT.map(str::to_owned).into_iter().chain(uuids.map(|uuid| uuid.to_string()));
        for text in texts
            .filter(|text| text.as_bytes().get(14).is_none_or(|version| !b"ef".contains(version) || text.len() < 20))
        {
            let id = identities.of_request(&request(&text));
            assert_eq!(identities.request_of(&id).as_deref(), Some(text.as_str()));
            assert!(seen.insert(id), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_not_read_and_has_an_id_all_the_same() {
        let identities = identities(5);
        let uuid = "0197c8f0-1234-7abc-8def-0123456789AB";
        for text in
            [uuid, "18-characters-abcd", "0197c8f012347abc8def0123456789ab", "00000000-0000-f000-0000-000000000000"]
        {
            let id = identities.of_request(&request(text));
            assert_eq!(identities.request_of(&id), None, "{text}");
            assert_eq!(id, identities.of_request(&request(text)));
        }
        assert_eq!(identities.request_of(&identities.derived(&[b"\0late", &[7; 16]])), None);
    }

    #[test]
    fn ids_depend_on_the_secret_and_an_older_namespace_keeps_its_own() {
        let (one, other, older) = (identities(5), identities(5), identities(4));
        let id = |identities: &Identities| identities.of_request(&request("order-4711"));
        assert_ne!(id(&one), id(&other));
        assert_eq!(id(&older), first_bytes(older.mac(), &[b"order-4711"]));
        assert_eq!(older.request_of(&id(&older)), None);
    }
}
