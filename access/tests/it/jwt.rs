//! JSON Web Tokens and the time.

use std::time::Duration;

use inventory_sentinel_access::Denied;
use serde_json::json;

use crate::support::{LEEWAY, NOW, RULES, at, now, valid, with_claim};

#[test]
fn an_identity_ends_with_its_token_and_the_leeway() {
    let identified = RULES.identify_jwt(valid().as_bytes(), now()).unwrap();
    assert_eq!(identified.identity.name, "web");
    assert_eq!(identified.until, Some(at(NOW + 60 + LEEWAY)));
}

#[test]
fn a_token_expires_exactly_after_the_leeway() {
    let token = with_claim("exp", NOW.into());
    let end = at(NOW + LEEWAY);
    let identify = |time| RULES.identify_jwt(token.as_bytes(), time).map(|identified| identified.until);
    assert_eq!(identify(end - Duration::from_nanos(1)), Ok(Some(end)));
    assert_eq!(identify(end), Err(Denied::Expired));
    assert_eq!(identify(end + Duration::from_secs(1)), Err(Denied::Expired));
}

#[test]
fn a_token_begins_exactly_before_the_leeway() {
    let token = with_claim("nbf", (NOW + 10).into());
    let start = at(NOW + 10 - LEEWAY);
    let identify = |time| RULES.identify_jwt(token.as_bytes(), time).map(|identified| identified.identity.name.clone());
    assert_eq!(identify(start), Ok("web".to_owned()));
    assert_eq!(identify(start - Duration::from_nanos(1)), Err(Denied::NotYetValid));
}

#[test]
fn a_time_may_have_a_fraction_or_an_exponent() {
    let until = |token: String, time| RULES.identify_jwt(token.as_bytes(), time).map(|identified| identified.until);
    // The end is rounded down and the start is rounded up: a token is never valid for longer than it states.
    let end = NOW as f64 + 60.9;
    assert_eq!(until(with_claim("exp", json!(end)), now()), Ok(Some(at(NOW + 60 + LEEWAY))));
    assert_eq!(until(with_claim("exp", json!(1.9e9)), now()), Ok(Some(at(1_900_000_000 + LEEWAY))));
    assert_eq!(until(with_claim("exp", json!(1e9)), now()), Err(Denied::Expired));
    assert_eq!(until(with_claim("exp", json!(0)), now()), Err(Denied::Expired));
    assert_eq!(until(with_claim("exp", json!(-0.0)), now()), Err(Denied::Expired));
    let last = 253_402_300_799_u64;
    assert_eq!(until(with_claim("exp", json!(last)), now()), Ok(Some(at(last + LEEWAY))));
    let start = NOW as f64 + 0.1;
    let token = || with_claim("nbf", json!(start));
    assert_eq!(until(token(), at(NOW + 1 - LEEWAY)), Ok(Some(at(NOW + 60 + LEEWAY))));
    assert_eq!(until(token(), at(NOW - LEEWAY)), Err(Denied::NotYetValid));
}

#[test]
fn a_bearer_credential_is_a_token_by_its_start_alone() {
    let rules = &*RULES;
    assert_eq!(rules.identify_bearer(b"ist_", now()), Err(Denied::Malformed));
    assert_eq!(rules.identify_token(valid().as_bytes(), now()), Err(Denied::Malformed));
    assert_eq!(rules.identify_bearer(b"", now()), Err(Denied::Malformed));
}
