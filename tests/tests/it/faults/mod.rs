//! Failures around the service: crashes, clock steps, a full disk, and a store that is unreachable or misconfigured.

mod clock;
mod crash;
mod embedded;
mod outage;
mod permissions;
mod store;
mod supervision;
