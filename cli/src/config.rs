//! Server, namespace, timeout and security: from flags, the environment, the config file and defaults, in this order.
//! Reads the environment and one file; opens no connection.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use inventory_sentinel_client::MAX_DEADLINE;
use serde::Deserialize;

use crate::{
    failure::Failure,
    security::{Security, SecurityArgs, SecurityKeys},
    table::shown,
    values,
};

/// The default server.
const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// The default namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// The default timeout of a call.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest config file that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// The options of every command, which the config file can set too.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The URI of the server [env: SENTINEL_SERVER; default: http://127.0.0.1:50051].
    #[arg(long, global = true, value_name = "URI", help_heading = "Global options")]
    pub(crate) server: Option<String>,
    /// The namespace: a sale or tenant [env: SENTINEL_NAMESPACE; default: default].
    #[arg(long, short = 'n', global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) namespace: Option<String>,
    /// Never create a namespace: a mistyped name is refused as NAMESPACE_NOT_FOUND.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) existing_namespace: bool,
    /// Timeout of a call with its retries, up to 1h [default: 5s; 30s for audit and settle].
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout, help_heading = "Global options")]
    pub(crate) timeout: Option<Duration>,
    /// The config file in TOML, with the keys server, namespace, existing_namespace, timeout, tls_ca, tls_cert, tls_key
    /// and token_file [env: SENTINEL_CONFIG; default: $XDG_CONFIG_HOME/sentinelctl/config.toml, or
    /// ~/.config/sentinelctl/config.toml if it exists].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) security: SecurityArgs,
}

/// The settings of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The URI of the server.
    pub(crate) server: String,
    /// The namespace.
    pub(crate) namespace: String,
    /// Whether a change must not create the namespace.
    pub(crate) existing_namespace: bool,
    /// TLS and credentials.
    pub(crate) security: Security,
    /// The timeout of a call; `None` if it is not set.
    timeout: Option<Duration>,
}

impl Settings {
    /// The timeout of a call.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// The timeout of a slow call, with another default.
    pub(crate) fn timeout_of_long_call(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
}

/// The keys of the config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    namespace: Option<String>,
    existing_namespace: Option<bool>,
    timeout: Option<toml::Spanned<String>>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// Resolves the settings; `variable` reads the environment.
pub(crate) fn resolve(flags: &ConfigArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings, Failure> {
    let of_environment = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .into_string()
            .map(Some)
            .map_err(|_| Failure::usage(format!("{name} is not UTF-8"), format!("correct {name}, or unset it"))),
    };
    let (file, path) = read(flags, &variable)?;
    let (variable, folder) = (|name: &str| variable(name).filter(|value| !value.is_empty()), path.path.parent());
    let keys = SecurityKeys {
        tls_ca: file.tls_ca,
        tls_cert: file.tls_cert,
        tls_key: file.tls_key,
        token_file: file.token_file,
    };
    let security = Security::resolve(&flags.security, variable, keys, folder.unwrap_or(Path::new("")))?;
    let timeout_of_file = match &file.timeout {
        None => None,
        Some(text) => Some(timeout(text.get_ref()).map_err(|problem| {
            let line = line_of(&path.text, text.span().start);
            malformed(&path.path, line, &format!("timeout: {problem}"))
        })?),
    };
    let server = flags.server.clone().map_or_else(|| of_environment("SENTINEL_SERVER"), |server| Ok(Some(server)))?;
    let namespace =
        flags.namespace.clone().map_or_else(|| of_environment("SENTINEL_NAMESPACE"), |name| Ok(Some(name)))?;
    Ok(Settings {
        server: server.or(file.server).unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
        namespace: namespace.or(file.namespace).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        existing_namespace: flags.existing_namespace || file.existing_namespace.unwrap_or(false),
        security,
        timeout: flags.timeout.or(timeout_of_file),
    })
}

/// A config file and its text, for the lines of its errors.
#[derive(Default)]
struct Source {
    path: PathBuf,
    text: String,
}

fn read(flags: &ConfigArgs, variable: &impl Fn(&str) -> Option<OsString>) -> Result<(File, Source), Failure> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = flags.config.clone().or_else(|| variable("SENTINEL_CONFIG"));
    let is_named = named.is_some();
    // A relative XDG_CONFIG_HOME is ignored, as its specification demands.
    let home = || {
        variable("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(variable("HOME")?.join(".config")))
    };
    let Some(path) = named.or_else(|| Some(home()?.join("sentinelctl/config.toml"))) else {
        return Ok((File::default(), Source::default()));
    };
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => {
            return Ok((File::default(), Source::default()));
        }
        Err(error) => {
            let what = shown(&format!("can't read the config file {}: {error}", path.display()));
            return Err(Failure::usage(what, "set --config to a readable file, or omit it"));
        }
    };
    match toml::from_str(&text) {
        Ok(file) => Ok((file, Source { path, text })),
        Err(error) => {
            let line = line_of(&text, error.span().map_or(0, |span| span.start));
            Err(malformed(&path, line, error.message()))
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_CONFIG_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {MAX_CONFIG_BYTES} bytes")));
    }
    fs::read_to_string(path)
}

fn malformed(path: &Path, line: usize, problem: &str) -> Failure {
    let problem = problem.lines().collect::<Vec<_>>().join(" ");
    let what = shown(&format!("{}, line {line}: {problem}", path.display()));
    Failure::usage(what, "correct the config file; `sentinelctl --help` lists its keys")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn timeout(text: &str) -> Result<Duration, String> {
    let length = values::positive_duration(text)?;
    if length > MAX_DEADLINE { Err("must be at most 1h".to_owned()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use tempfile::TempDir;

    use super::*;

    fn folder_with(text: &str) -> (TempDir, PathBuf) {
        let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("a file");
        (folder, path)
    }

    fn flags(config: Option<&Path>) -> ConfigArgs {
        ConfigArgs { config: config.map(Path::to_owned), ..ConfigArgs::default() }
    }

    #[test]
    fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
        let (_folder, path) = folder_with("server = 'http://file:1'\nnamespace = 'file'\ntimeout = '7s'\n");
        let environment = |name: &str| match name {
            "SENTINEL_SERVER" => Some("http://env:1".into()),
            // An empty variable is an unset one.
            "SENTINEL_NAMESPACE" => Some("".into()),
            _ => None,
        };
        let found = resolve(&flags(Some(&path)), environment).expect("settings");
        assert_eq!((found.server.as_str(), found.namespace.as_str()), ("http://env:1", "file"));
        assert_eq!(found.timeout(), Duration::from_secs(7));
        assert_eq!(found.timeout_of_long_call(Duration::from_secs(30)), Duration::from_secs(7));

        let named = ConfigArgs {
            server: Some("http://flag:1".to_owned()),
            namespace: Some("flag".to_owned()),
            timeout: Some(Duration::from_secs(1)),
            existing_namespace: true,
            config: Some(path),
            security: SecurityArgs::default(),
        };
        let found = resolve(&named, environment).expect("settings");
        assert_eq!((found.server.as_str(), found.namespace.as_str()), ("http://flag:1", "flag"));
        assert_eq!(found.timeout(), Duration::from_secs(1));

        let found = resolve(&flags(None), |_| None).expect("settings");
        assert_eq!((found.server.as_str(), found.namespace.as_str()), (DEFAULT_SERVER, DEFAULT_NAMESPACE));
        assert_eq!(found.timeout(), DEFAULT_TIMEOUT);
    }

    #[test]
    fn the_default_file_may_be_missing_and_a_named_one_may_not() {
        let (folder, path) = folder_with("namespace = 'found'");
        let at = |home: &Path| {
            let home = home.as_os_str().to_owned();
            resolve(&flags(None), move |name| (name == "XDG_CONFIG_HOME").then(|| home.clone()))
        };
        assert_eq!(at(folder.path()).expect("no file").namespace, DEFAULT_NAMESPACE);
        fs::create_dir(folder.path().join("sentinelctl")).expect("a folder");
        fs::rename(&path, folder.path().join("sentinelctl/config.toml")).expect("moved");
        assert_eq!(at(folder.path()).expect("a file").namespace, "found");
        let missing = resolve(&flags(Some(&path)), |_| None).expect_err("missing");
        assert_eq!(missing.code(), Failure::USAGE);
        assert!(missing.to_string().contains("config.toml"), "{missing}");
    }

    #[test]
    fn a_malformed_file_is_named_with_its_line() {
        for (text, line, expected) in [
            ("server = 'x'\nnamespac = 'y'\n", 2, "namespac"),
            ("server =\n", 1, ""),
            ("\n\nnamespace = 3\n", 3, "string"),
            ("server = 'x'\n# so\ntimeout = 'soon'\n", 3, "timeout"),
            ("timeout = '0s'", 1, "longer than 0"),
            ("timeout = '2h'", 1, "at most 1h"),
        ] {
            let (_folder, path) = folder_with(text);
            let error = resolve(&flags(Some(&path)), |_| None).expect_err(text);
            let (code, error) = (error.code(), error.to_string());
            assert_eq!(code, Failure::USAGE, "{error}");
            assert!(error.contains(&format!("config.toml, line {line}: ")) && error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_refused() {
        let garbage = |name: &str| (name == "SENTINEL_SERVER").then(|| OsString::from_vec(vec![0xff]));
        let error = resolve(&flags(None), garbage).expect_err("no text");
        assert!(error.code() == Failure::USAGE && error.to_string().contains("SENTINEL_SERVER"), "{error}");
    }
}
