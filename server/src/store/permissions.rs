//! The permissions that the Redis user of the service needs: the list of all commands that the script or this server
//! sends, and their check. The check changes nothing. It needs no permission except EVALSHA and EVAL, unlike ACL
//! DRYRUN, which a user with few permissions must not have.

use std::sync::LazyLock;

use deadpool_redis::redis::{self, cmd};

use super::{error::StoreError, pool::Connection, script::Script};

/// The keys of the service, as a pattern of an ACL.
const KEYS: &str = "is:*";

/// Every command that the service needs, in the order of the documentation, each with arguments that contain a key.
const COMMANDS: &[(&str, &[&str])] = &[
    // Calls of the script.
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
    // The server without the script: the store's id, namespaces, lists, the audit, streams.
    ("GETRANGE", &[KEYS]),
    ("SISMEMBER", &[KEYS]),
    ("SCARD", &[KEYS]),
    ("SADD", &[KEYS]),
    ("SREM", &[KEYS]),
    ("SSCAN", &[KEYS]),
    ("HGET", &[KEYS]),
    ("HSCAN", &[KEYS]),
    ("ZSCAN", &[KEYS]),
    ("XRANGE", &[KEYS]),
    ("XREAD", &["STREAMS", KEYS, "0"]),
    ("SET", &[KEYS, "", "NX", "GET"]),
];

/// The form without a key, for commands whose name alone does not do. The check uses it to distinguish a missing
/// command from missing keys. Redis reads the keys of these commands at fixed places, however short the command is.
/// EVAL can state that it has no keys. SET cannot (`None`): it is the last command, when the check already has a result
/// for keys.
const KEYLESS: &[(&str, Option<&[&str]>)] = &[("EVALSHA", Some(&["", "0"])), ("EVAL", Some(&["", "0"])), ("SET", None)];

/// The check. Each entry of `commands` has a command without a key, or false, and the same command with a key. Returns
/// the rules that grant the missing permissions. A renamed or removed command counts as missing.
const CHECK: &str = "
local function may(words)
  local is_known, is_permitted = pcall(redis.acl_check_cmd, unpack(words))
  return is_known and is_permitted
end
local missing, sees_keys = {}, true
for i = 1, #commands do
  local keyless, keyed = commands[i][1], commands[i][2]
  if keyless and may(keyless) then
    sees_keys = sees_keys and may(keyed)
  elseif keyless or sees_keys and not may(keyed) then
    missing[#missing + 1] = '+' .. string.lower(keyed[1])
  end
end
if not sees_keys then missing[#missing + 1] = '~' .. keys end
return missing
";

/// The ACL rules that a user of the service needs, and no others: `~is:* +evalsha ...`.
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
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(source));

fn source() -> String {
    let mut source = format!("#!lua flags=no-writes\nlocal keys, commands = '{KEYS}', {{\n");
    for (name, keyed) in COMMANDS {
        let words = |arguments: &[&str]| {
            let words: Vec<_> = std::iter::once(name).chain(arguments).map(|word| format!("'{word}'")).collect();
            format!("{{ {} }}", words.join(", "))
        };
        let keyless = KEYLESS.iter().find(|(other, _)| other == name).map_or(Some(&[][..]), |(_, keyless)| *keyless);
        let keyless = keyless.map_or("false".to_owned(), words);
        source.push_str(&format!("{{ {keyless}, {} }},\n", words(keyed)));
    }
    source.push('}');
    source.push_str(CHECK);
    source
}

/// The rules that the user of this connection lacks. Without EVALSHA and EVAL the others cannot be checked.
pub(crate) async fn missing(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut denied = Vec::new();
    for (command, text) in [("EVALSHA", &SCRIPT.sha), ("EVAL", &SCRIPT.source())] {
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

/// Adds the missing rules to a refusal that does not name the command. Before 7.2 Redis does not name a command that a
/// script sends.
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
    use std::path::PathBuf;

    use super::*;

    /// The page for operators with the permissions that the service needs.
    const PAGE: &str = include_str!("../../../docs/operate/permissions.md");

    #[test]
    fn the_documented_rules_are_those_of_the_code() {
        let line = format!("ACL SETUSER sentinel reset on >PASSWORD {}", least_acl());
        assert!(PAGE.lines().any(|documented| documented == line), "docs/operate/permissions.md has no line\n{line}");
    }

    /// Compares the list with the commands in the sources of the scripts and of this folder.
    #[test]
    fn no_command_is_missing() {
        let sent = |source: &str, before: &str| -> Vec<String> {
            let rest = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let calls = rest.split(before).skip(1).filter_map(|call| call.split(['\'', '"']).next());
            calls.map(str::to_owned).collect()
        };
        let mut found: Vec<String> = Vec::new();
        for script in [Script::plain(), Script::register()] {
            let source = script.source();
            found.extend(sent(&source, "call('"));
            found.extend(sent(&source, "call_with('"));
        }
        let folder = |path: &str| PathBuf::from(format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
        let mut folders = vec![folder("src/store"), folder("../lua/src")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = std::fs::read_to_string(path).unwrap();
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
