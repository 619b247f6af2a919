//! The limits of the service, each defined once, with its unit in its name or its comment. The prelude defines those
//! that the script checks too as Lua constants. No I/O.

use std::time::Duration;

/// The most operations of one batch, and of one group.
pub const MAX_OPERATIONS: usize = 512;
/// The longest name of a namespace, in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 63;
/// The longest SKU, in bytes.
pub const MAX_SKU_BYTES: usize = 128;
/// The longest request or buyer id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// The most lines of one reservation.
pub const MAX_LINES: usize = 32;
/// The most units of one line.
pub const MAX_QUANTITY: u32 = 1_000_000;
/// The most units on hand of one SKU.
pub const MAX_STOCK: u64 = 1_000_000_000;
/// The most changes of one reservation.
pub const MAX_CHANGES: usize = 32;

/// The longest ttl that a namespace can permit.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The longest life of a hold that a namespace can permit.
pub const MAX_LIFE: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// The shortest and the longest retention of a namespace.
pub const RETENTION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 60 * 60));
/// The most partitions of a namespace.
pub const MAX_PARTITIONS: u16 = 64;
/// The most records that a namespace may be permitted.
pub const MAX_QUOTA_RECORDS: u64 = 1_000_000_000;
/// The most SKUs that a namespace may be permitted.
pub const MAX_QUOTA_SKUS: u64 = 100_000_000;

/// The oldest and the newest format of a namespace that this release writes.
pub const FORMATS: (u8, u8) = (1, 5);
/// The first format in which a SKU and a namespace can be paused.
pub const FIRST_WITH_PAUSE: u8 = 5;
