//! The claims of a token whose signature is valid. Pure.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};

use crate::{Denied, limits::MAX_UNIX_SECONDS, timestamp};

/// The claims that are checked.
pub(super) struct Claims<'a> {
    pub(super) subject: &'a str,
    audiences: Vec<&'a str>,
    expires_at: SystemTime,
    not_before: Option<SystemTime>,
}

impl<'a> Claims<'a> {
    pub(super) fn parse(claims: &'a Map<String, Value>) -> Result<Self, Denied> {
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let audiences = match claims.get("aud") {
            None => Some(Vec::new()),
            Some(Value::String(audience)) => Some(vec![audience.as_str()]),
            Some(Value::Array(audiences)) => audiences.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let expires_at = claims.get("exp").and_then(|value| time(value, f64::floor));
        let not_before = optional_time(claims, "nbf")?;
        optional_time(claims, "iat")?;
        Ok(Self {
            subject: subject.ok_or(Denied::Malformed)?,
            audiences: audiences.ok_or(Denied::Malformed)?,
            expires_at: expires_at.ok_or(Denied::Malformed)?,
            not_before,
        })
    }

    /// When the token ends, if it is for one of these audiences and valid now.
    pub(super) fn check(
        &self,
        audiences: &HashSet<String>,
        leeway: Duration,
        now: SystemTime,
    ) -> Result<SystemTime, Denied> {
        if !self.audiences.iter().any(|audience| audiences.contains(*audience)) {
            return Err(Denied::WrongAudience);
        }
        let until = self.expires_at + leeway;
        if now >= until {
            return Err(Denied::Expired);
        }
        if self.not_before.is_some_and(|start| start.duration_since(now).is_ok_and(|ahead| ahead > leeway)) {
            return Err(Denied::NotYetValid);
        }
        Ok(until)
    }
}

fn optional_time(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, Denied> {
    claims.get(name).map(|value| time(value, f64::ceil).ok_or(Denied::Malformed)).transpose()
}

/// A time in seconds since 1970, from 1970 to 9999. It may have a fraction, which is rounded.
fn time(value: &Value, round: fn(f64) -> f64) -> Option<SystemTime> {
    let seconds = match value.as_u64() {
        Some(seconds) => seconds,
        None => {
            let seconds = round(value.as_f64()?);
            let is_in_range = (0.0..=MAX_UNIX_SECONDS as f64).contains(&seconds);
            is_in_range.then_some(seconds as u64)?
        }
    };
    timestamp::at(seconds)
}
