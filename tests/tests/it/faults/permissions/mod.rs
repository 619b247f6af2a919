//! The Redis user of the service. All calls work under the documented permissions. If one is missing, no change is
//! half-done, the refusal and `/readyz` name it, and the server recovers when it is granted.

mod half_done;
mod script;
mod server;

use sentinel_server::least_acl;

/// The user of the service.
const USER: &str = "sentinel";

/// The rules of the documented line.
fn rules() -> Vec<String> {
    least_acl().split(' ').map(str::to_owned).collect()
}

/// The ACL rule that takes a rule away again.
fn without(rule: &str) -> String {
    match rule.strip_prefix('+') {
        Some(command) => format!("-{command}"),
        None => "resetkeys".to_owned(),
    }
}
