//! What the Redis user of the service must be allowed: the one list of every command that the script or this server
//! sends, and the check of all of them. The check changes nothing and needs no permission of its own beside EVALSHA and
//! EVAL: ACL DRYRUN is not for a user with few permissions.

use std::sync::LazyLock;

use deadpool_redis::redis::{self, cmd};

use super::{error::StoreError, pool::Connection, script::Script};

/// The keys of the service, as a pattern of an ACL.
const KEYS: &str = "is:*";

/// Every command that the service cannot do without, in the order of the documentation. To a command belong the arguments
/// that name a key of it, for the check; they are whole where Redis looks for the number of keys, because it does not check
/// the length before.
const COMMANDS: &[(&str, &[&str])] = &[
    // The script is called.
    ("EVALSHA", &["", "1", KEYS]),
    ("EVAL", &["", "1", KEYS]),
    // The script reads.
    ("TIME", &[]),
    ("INFO", &[]),
    ("HMGET", &[KEYS]),
    ("HLEN", &[KEYS]),
    ("EXISTS", &[KEYS]),
    ("ZRANGEBYSCORE", &[KEYS]),
    ("ZCARD", &[KEYS]),
    ("XREVRANGE", &[KEYS]),
    // The script writes.
    ("XADD", &[KEYS]),
    ("HSET", &[KEYS]),
    ("HDEL", &[KEYS]),
    ("ZADD", &[KEYS]),
    ("ZREM", &[KEYS]),
    ("UNLINK", &[KEYS]),
    // The server by itself: the store's id, namespaces, lists, the audit, streams.
    ("GETRANGE", &[KEYS]),
    ("SET", &[KEYS, "", "NX", "GET"]),
    ("SADD", &[KEYS]),
    ("SSCAN", &[KEYS]),
    ("HGET", &[KEYS]),
    ("HSCAN", &[KEYS]),
    ("ZSCAN", &[KEYS]),
    ("XRANGE", &[KEYS]),
    ("XREAD", &["STREAMS", KEYS, "0"]),
];

/// The check: a line of rules for each command, and what is missing as the rules that grant it. A command that this Redis does
/// not know was renamed or taken away, which comes to the same.
const CHECK: &str = "
local missing, sees_keys = {}, true
for i = 1, #commands do
  local command = commands[i]
  local is_known, may_run = pcall(redis.acl_check_cmd, unpack(command.bare))
  if not is_known or not may_run then
    missing[#missing + 1] = '+' .. string.lower(command.bare[1])
  elseif sees_keys then
    sees_keys = redis.acl_check_cmd(unpack(command.keyed))
  end
end
if not sees_keys then missing[#missing + 1] = '~' .. keys end
return missing
";

/// The ACL rules that a user of the service needs, and no other: `~is:* +evalsha ...`.
pub fn least_acl() -> String {
    let commands: Vec<String> = COMMANDS.iter().map(|(name, _)| rule(name)).collect();
    format!("~{KEYS} {}", commands.join(" "))
}

/// The rule that grants a command.
pub(super) fn rule(command: &str) -> String {
    format!("+{}", command.to_ascii_lowercase())
}

/// The rule that grants the keys.
pub(super) fn key_rule() -> String {
    format!("~{KEYS}")
}

/// The script of the check. It is read-only, so that Redis runs it at its memory limit too.
static SCRIPT: LazyLock<Script> = LazyLock::new(script);

fn script() -> Script {
    let mut source = format!("#!lua flags=no-writes\nlocal keys, commands = '{KEYS}', {{\n");
    for (name, keyed) in COMMANDS {
        let bare: &[&str] = if keyed.get(1) == Some(&"1") { &["", "0"] } else { &[] };
        let words = |arguments: &[&str]| {
            let words = std::iter::once(name).chain(arguments).map(|word| format!("'{word}'"));
            words.collect::<Vec<_>>().join(", ")
        };
        source.push_str(&format!("{{ bare = {{ {} }}, keyed = {{ {} }} }},\n", words(bare), words(keyed)));
    }
    source.push('}');
    source.push_str(CHECK);
    Script::new(source)
}

/// The rules that the user of this connection lacks. Without EVALSHA or EVAL the others cannot be checked.
pub(crate) async fn missing(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut denied = Vec::new();
    for (command, text) in [("EVALSHA", &SCRIPT.sha), ("EVAL", &SCRIPT.source)] {
        match connection.send(cmd(command).arg(text).arg(0)).await {
            Ok(reply) => {
                return redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()));
            }
            Err(StoreError::NoScript) => {}
            Err(StoreError::Denied { .. }) => denied.push(rule(command)),
            Err(error) => return Err(error),
        }
    }
    Ok(denied)
}

/// The same refusal with the rules that are missing in its place, where Redis did not name the command: before 7.2 it does
/// not where a script sends it.
pub(super) async fn named(connection: &mut Connection, error: StoreError) -> StoreError {
    match error {
        StoreError::Denied { missing: rules, why } if rules.is_empty() => match missing(connection).await {
            Ok(rules) => StoreError::Denied { missing: rules.join(" ").into(), why },
            Err(_) => StoreError::Denied { missing: rules, why },
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that tells operators which permissions the service needs.
    const PAGE: &str = include_str!("../../../docs/permissions.md");

    #[test]
    fn the_documented_rules_are_those_of_the_code() {
        let line = format!("ACL SETUSER sentinel reset on >PASSWORD {}", least_acl());
        assert!(PAGE.lines().any(|documented| documented == line), "docs/permissions.md has no line\n{line}");
    }

    /// Every command that stands in a file of `lua/` or of this room.
    #[test]
    fn no_command_is_missing() {
        let sent = |source: &str, before: &str| -> Vec<String> {
            let rest = source.split("#[cfg(test)]").next().unwrap_or_default();
            let calls = rest.split(before).skip(1).filter_map(|call| call.split(['\'', '"']).next());
            calls.map(str::to_owned).collect()
        };
        let mut found: Vec<String> = Vec::new();
        let folder = |path: &str| std::fs::read_dir(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for file in folder("../lua") {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            found.extend(sent(&source, "call('"));
            found.extend(sent(&source, "call_with('"));
        }
        for path in ["src/store", "src/store/wire"] {
            for file in folder(path).map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
                let source = std::fs::read_to_string(file).unwrap();
                found.extend(sent(&source, "cmd(\""));
                found.extend(sent(&source, "scan(connection, \""));
            }
        }
        found.sort();
        found.dedup();
        // Optional: the check of the disk settings.
        found.retain(|command| command != "CONFIG");
        let mut listed: Vec<_> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        listed.sort();
        assert_eq!(found, listed);
    }
}
