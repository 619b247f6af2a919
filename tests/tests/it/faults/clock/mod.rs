//! Steps of the store's clock. Durations stay right whatever the clock shows, and the time of day ignores a step that
//! is taken back.

mod script;
mod servers;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
