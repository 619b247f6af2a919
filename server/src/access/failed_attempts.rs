//! The rate of failed authentications of each address, and the rate of its records in the audit log. Pure but for the
//! clock.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most addresses that are counted separately. Further ones share one counter.
const MAX_ADDRESSES: usize = 4_096;
/// Length of the burst after an idle time.
const BURST: Duration = Duration::from_secs(2);

/// The refused calls of all addresses.
#[derive(Debug)]
pub(super) struct FailedAttempts {
    /// Failed authentications per second and address, and as many records.
    rate: u32,
    addresses: Mutex<HashMap<Source, Attempts>>,
}

/// The source of refused calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The address of a caller without an identity; of an IPv6 address, its /64.
    Address(IpAddr),
    /// The name of an identity. Its records do not compete with those of strangers at the same address.
    Identity(String),
    /// All others.
    Other,
}

impl Source {
    /// A caller without an identity at this address.
    pub(super) fn of_address(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Other, |address| Self::Address(network(address)))
    }
}

/// The refused calls of one source.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    /// The failed authentications that are left, at this time.
    failures_left: f64,
    /// The records that are left, at this time.
    records_left: f64,
    at: Instant,
    /// Refused calls that were not recorded in the audit log since the last one that was.
    unrecorded: u64,
}

impl FailedAttempts {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, addresses: Mutex::default() }
    }

    /// Whether this address has too many failed authentications.
    pub(super) fn are_too_many(&self, address: Option<IpAddr>) -> bool {
        self.with(Source::of_address(address), Instant::now(), |attempts| attempts.failures_left < 1.0)
    }

    /// Counts a failed authentication.
    pub(super) fn count_failure(&self, address: Option<IpAddr>) {
        self.with(Source::of_address(address), Instant::now(), |attempts| {
            if attempts.failures_left >= 1.0 {
                attempts.failures_left -= 1.0;
            }
        });
    }

    /// Counts a refused call for the audit log. If it may be recorded, returns the number of earlier ones that were
    /// not.
    pub(super) fn count_record(&self, source: Source) -> Option<u64> {
        self.with(source, Instant::now(), |attempts| {
            if attempts.records_left < 1.0 {
                attempts.unrecorded += 1;
                return None;
            }
            attempts.records_left -= 1.0;
            Some(std::mem::take(&mut attempts.unrecorded))
        })
    }

    fn with<T>(&self, source: Source, now: Instant, use_attempts: impl FnOnce(&mut Attempts) -> T) -> T {
        let most = f64::from(self.rate) * BURST.as_secs_f64();
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = source;
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&key) {
            // An address without recent attempts needs no counter.
            addresses.retain(|_, attempts| now.duration_since(attempts.at) < BURST);
            if addresses.len() >= MAX_ADDRESSES {
                key = Source::Other;
            }
        }
        let unused = Attempts { failures_left: most, records_left: most, at: now, unrecorded: 0 };
        let attempts = addresses.entry(key).or_insert(unused);
        let earned = now.saturating_duration_since(attempts.at).as_secs_f64() * f64::from(self.rate);
        attempts.failures_left = (attempts.failures_left + earned).min(most);
        attempts.records_left = (attempts.records_left + earned).min(most);
        attempts.at = now;
        use_attempts(attempts)
    }
}

/// The address, or the network of an IPv6 address: one client has all addresses of a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_address_has_its_own_burst_and_recovers() {
        let failed = FailedAttempts::new(2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..4 {
            failed.count_failure(one);
            assert_eq!(failed.count_record(Source::of_address(one)), Some(0));
        }
        assert!(failed.are_too_many(one) && !failed.are_too_many(other));
        assert_eq!(failed.count_record(Source::of_address(one)), None);
        let later = Instant::now() + Duration::from_secs(1);
        assert!(failed.with(Source::of_address(one), later, |attempts| attempts.failures_left >= 1.0));
        assert_eq!(failed.with(Source::of_address(one), later, |attempts| attempts.unrecorded), 1);
    }

    #[test]
    fn records_of_other_refusals_are_no_failed_authentications() {
        let failed = FailedAttempts::new(1);
        let one = address("192.0.2.1");
        while failed.count_record(Source::of_address(one)).is_some() {}
        assert!(!failed.are_too_many(one));
    }

    #[test]
    fn one_network_of_ipv6_is_one_client() {
        let failed = FailedAttempts::new(1);
        failed.count_failure(address("2001:db8::1"));
        failed.count_failure(address("2001:db8::2"));
        assert!(failed.are_too_many(address("2001:db8::3")) && !failed.are_too_many(address("2001:db8:0:1::1")));
    }

    #[test]
    fn the_number_of_counters_has_a_bound() {
        let failed = FailedAttempts::new(1);
        for number in 0..2 * MAX_ADDRESSES as u32 {
            failed.count_failure(Some(IpAddr::from(number.to_be_bytes())));
        }
        assert!(failed.addresses.lock().unwrap().len() <= MAX_ADDRESSES + 1);
    }
}
