//! The health of each service, and the clock of the server, which the head of a response shows. Calls on the connection
//! of the client crate, which has no health calls.

use std::{
    error::Error as _,
    time::{Duration, SystemTime},
};

use tonic::{Code, Request, Response, Status, TimeoutExpired, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Check;
use crate::{
    config::Settings,
    security::{credentials_advice, handshake_advice},
    session::causes,
};

/// The services, as proto/ names them; the empty name is the whole server.
const SERVICES: [&str; 4] = [
    "",
    "inventory_sentinel.v1.InventorySentinel",
    "inventory_sentinel.v1.InventoryAdmin",
    "inventory_sentinel.v1.InventoryEvents",
];
/// How far the clocks may differ. The head of a response has whole seconds.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);
/// From this difference on, the server may refuse request ids (UUIDv7) of this machine.
const CLOCKS_FAIL: Duration = Duration::from_secs(30);

/// `Err`: the connection broke at the first call, which shows that its two sides don't fit together.
pub(super) async fn checks(settings: &Settings, channel: Channel) -> Result<Vec<Check>, Check> {
    let mut client = HealthClient::new(channel);
    let (mut checks, mut clock) = (Vec::new(), None);
    for service in SERVICES {
        let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
        request.set_timeout(settings.timeout());
        let response = client.check(request).await;
        if let (true, Err(status)) = (checks.is_empty(), &response)
            && let Some(check) = of_broken_connection(&settings.server, status)
        {
            return Err(check);
        }
        let (check, date) = health(response, service);
        checks.push(check);
        clock = clock.or(date);
    }
    if let Some((date, now)) = clock {
        checks.push(of_clock(date, now));
    }
    Ok(checks)
}

/// A call that ended with its connection. TLS 1.3 ends the handshake of a client before the server has verified its
/// certificate, and a client without TLS sends to a port with TLS before it can notice.
fn of_broken_connection(server: &str, status: &Status) -> Option<Check> {
    let source = status.source()?;
    if source.is::<TimeoutExpired>() {
        return None;
    }
    let causes = causes(status);
    let next = handshake_advice(&causes).unwrap_or(match server.starts_with("http://") {
        true => "if the port has TLS, begin --server with https://; otherwise read the log of the server",
        // The alert that names the cause is lost if the server closes the connection first.
        false => {
            "if the server requires a client certificate, set --tls-cert and --tls-key to one of its --client-ca; \
             otherwise read the log of the server"
        }
    });
    Some(Check::fail("connection", format!("{server} closes the connection: {causes}"), next))
}

/// The health of a service, and the time of day of the server, if its response has one, with that of this machine.
fn health(
    response: Result<Response<HealthCheckResponse>, Status>,
    service: &str,
) -> (Check, Option<(SystemTime, SystemTime)>) {
    let name = if service.is_empty() { "the server" } else { service };
    let now = SystemTime::now();
    let response = match response {
        Ok(response) => response,
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
            let found = format!("{name}: unknown to the health service");
            return (Check::warn("health", found, "compare the versions: it may be of another release"), None);
        }
        Err(status) => {
            let found = format!("{name}: no response ({:?}: {})", status.code(), status.message());
            let next = credentials_advice(status.code(), None).unwrap_or("read the log of the server");
            return (Check::fail("health", found, next), None);
        }
    };
    let date = response.metadata().get("date").and_then(|date| date.to_str().ok()).and_then(http_date);
    let check = match response.get_ref().status() {
        ServingStatus::Serving => Check::ok("health", format!("{name}: SERVING")),
        status => Check::fail(
            "health",
            format!("{name}: {}", status.as_str_name()),
            "follow the line readyz, or read the log of the server",
        ),
    };
    (check, date.map(|date| (date, now)))
}

fn of_clock(server: SystemTime, own: SystemTime) -> Check {
    let difference = server.duration_since(own).unwrap_or_else(|error| error.duration());
    let is_ahead = server > own;
    if difference <= CLOCKS_AGREE {
        return Check::ok("clock", "this machine and the server agree to 2 s");
    }
    let found = format!(
        "the server's clock is {} s {} this machine's",
        difference.as_secs(),
        if is_ahead { "ahead of" } else { "behind" }
    );
    let next = "mend the clocks (NTP): request ids that are made here have the time of this machine in them";
    if difference < CLOCKS_FAIL { Check::warn("clock", found, next) } else { Check::fail("clock", found, next) }
}

/// Reads the date of an HTTP head, as in `Fri, 27 Nov 2026 18:00:00 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::Status, *};

    #[test]
    fn the_date_of_a_head_is_read() {
        let date = http_date("Fri, 27 Nov 2026 18:00:00 GMT").expect("a date");
        assert_eq!(date, UNIX_EPOCH + Duration::from_secs(1_795_802_400));
        assert!(["", "Fri, 27 Nov", "x, 27 Foo 2026 18:00:00 GMT"].iter().all(|text| http_date(text).is_none()));
    }

    #[test]
    fn clocks_that_differ_are_named() {
        let own = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let status = |seconds: u64| {
            let ahead = of_clock(own + Duration::from_secs(seconds), own);
            let behind = of_clock(own - Duration::from_secs(seconds), own);
            assert_eq!(ahead.status, behind.status);
            ahead.status
        };
        assert_eq!([status(0), status(2), status(3), status(30)], [Status::Ok, Status::Ok, Status::Warn, Status::Fail]);
        assert!(of_clock(own - Duration::from_secs(9), own).found.contains("9 s behind"));
    }
}
