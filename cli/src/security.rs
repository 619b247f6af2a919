//! TLS and credentials: the options, and the next step after a failed handshake or refused credentials. Reads the files
//! of the certificates; opens no connection.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::Args;
use inventory_sentinel_client::{Builder, Code};

use crate::{failure::Failure, table::shown};

/// The largest file of certificates or of a key, in bytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// The options of every command that concern TLS and credentials. A token has no flag: the list of processes shows
/// flags.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SecurityArgs {
    /// The CAs that may have issued the server's certificate, in PEM; for an https:// server [env: SENTINEL_TLS_CA;
    /// default: the roots of the system].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The client certificate, in PEM, if the server needs one [env: SENTINEL_CLIENT_CERT].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the client certificate, in PEM [env: SENTINEL_CLIENT_KEY].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The file of the bearer token or JWT [env: SENTINEL_TOKEN_FILE, or the token itself in SENTINEL_TOKEN].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) token_file: Option<PathBuf>,
}

/// The keys of the config file. A relative path is relative to the folder of that file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecurityKeys {
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

/// The resolved options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    token: Option<Token>,
}

/// The source of the bearer token.
#[derive(Clone, PartialEq, Eq)]
enum Token {
    File(PathBuf),
    Text(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::File(path) => f.debug_tuple("File").field(path).finish(),
            Token::Text(_) => f.write_str("Text(redacted)"),
        }
    }
}

impl Security {
    /// From flags, the environment and the config file, in this order. `folder`: of the config file. `variable` omits
    /// empty variables.
    pub(crate) fn resolve(
        flags: &SecurityArgs,
        variable: impl Fn(&str) -> Option<OsString>,
        keys: SecurityKeys,
        folder: &Path,
    ) -> Result<Security, Failure> {
        let path = |flag: &Option<PathBuf>, name: &str, key: Option<PathBuf>| {
            let of_environment = || variable(name).map(PathBuf::from);
            flag.clone().or_else(of_environment).or_else(|| key.map(|path| folder.join(path)))
        };
        let certificate = path(&flags.tls_cert, "SENTINEL_CLIENT_CERT", keys.tls_cert);
        let key = path(&flags.tls_key, "SENTINEL_CLIENT_KEY", keys.tls_key);
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (certificate, _) => {
                let (has, lacks) = match certificate {
                    Some(_) => ("--tls-cert", "--tls-key (SENTINEL_CLIENT_KEY)"),
                    None => ("--tls-key", "--tls-cert (SENTINEL_CLIENT_CERT)"),
                };
                return Err(Failure::usage(format!("{has} is set without {lacks}"), "set both, or none"));
            }
        };
        let token = match path(&flags.token_file, "SENTINEL_TOKEN_FILE", None) {
            Some(path) => Some(Token::File(path)),
            None => match variable("SENTINEL_TOKEN") {
                Some(text) => Some(Token::Text(text.into_string().map_err(|_| {
                    Failure::usage("SENTINEL_TOKEN is not UTF-8", "correct SENTINEL_TOKEN, or unset it")
                })?)),
                None => keys.token_file.map(|path| Token::File(folder.join(path))),
            },
        };
        Ok(Security { ca: path(&flags.tls_ca, "SENTINEL_TLS_CA", keys.tls_ca), certificate, token })
    }

    /// The client with these options.
    pub(crate) fn apply(&self, builder: Builder) -> Result<Builder, Failure> {
        let mut builder = builder;
        if let Some(path) = &self.ca {
            builder = builder.tls_ca(read("--tls-ca", path)?);
        }
        if let Some((certificate, key)) = &self.certificate {
            builder = builder.client_certificate(read("--tls-cert", certificate)?, read("--tls-key", key)?);
        }
        Ok(match &self.token {
            None => builder,
            Some(Token::File(path)) => builder.bearer_token_file(path),
            Some(Token::Text(text)) => builder.bearer_token(text),
        })
    }

    /// The PEM of the CAs; `None`: the roots of the system.
    pub(crate) fn ca(&self) -> Result<Option<Vec<u8>>, Failure> {
        self.ca.as_ref().map(|path| read("--tls-ca", path)).transpose()
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |problem: String| {
        let what = format!("can't read the file {} of {flag}: {problem}", path.display());
        Failure::usage(shown(&what), format!("set {flag} to a readable PEM file"))
    };
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_PEM_BYTES {
        return Err(unreadable(format!("it has more than {MAX_PEM_BYTES} bytes")));
    }
    fs::read(path).map_err(|error| unreadable(error.to_string()))
}

/// The next step after a failed TLS handshake; `None` if the causes name none. The libraries report the kinds only in
/// the text of the causes, which the tests of this file and of `doctor` compare.
pub(crate) fn handshake_advice(causes: &str) -> Option<&'static str> {
    // The alerts of the server are first: their names contain those of this side's errors.
    const ADVICE: [(&[&str], &str); 7] = [
        (
            &["alert: CertificateRequired"],
            "the server requires a client certificate: set --tls-cert and --tls-key (SENTINEL_CLIENT_CERT and \
             SENTINEL_CLIENT_KEY)",
        ),
        (
            &[
                "alert: UnknownCA",
                "alert: BadCertificate",
                "alert: DecryptError",
                "alert: CertificateExpired",
                "alert: CertificateUnknown",
                "alert: UnsupportedCertificate",
                "alert: AccessDenied",
            ],
            "the server refuses the client certificate: set --tls-cert to a valid one of a CA in its --client-ca",
        ),
        (
            &["UnknownIssuer", "BadSignature"],
            "the server's certificate has another CA: set --tls-ca (SENTINEL_TLS_CA) to the CA file of the server",
        ),
        (
            &["not valid for name", "NotValidForName"],
            "name the host in --server as the server's certificate does, or issue one for this name",
        ),
        (
            &["certificate expired", "certificate: Expired", "certificate not valid yet", "certificate: NotValidYet"],
            "renew the server's certificate, or correct the clock of this machine",
        ),
        (
            &["InvalidContentType", "corrupt message"],
            "the port has no TLS: begin --server with http://, or start the server with --tls-cert and --tls-key",
        ),
        (&["HTTP/2 was not negotiated"], "the port has TLS, but is no gRPC port: correct the port in --server"),
    ];
    let found = ADVICE.iter().find(|(words, _)| words.iter().any(|word| causes.contains(word)));
    found.map(|(_, advice)| *advice)
}

/// The next step after a refusal of the credentials; `None` for another refusal. `reason`: its name in the catalogue.
pub(crate) fn credentials_advice(code: Code, reason: Option<&str>) -> Option<&'static str> {
    match (code, reason) {
        (_, Some("TOO_MANY_FAILED_AUTHENTICATIONS")) => {
            Some("correct the credentials (--token-file, --tls-cert), and repeat the command after a pause")
        }
        (_, Some("CREDENTIALS_MISSING")) => {
            Some("set --token-file (SENTINEL_TOKEN_FILE), or a client certificate with --tls-cert and --tls-key")
        }
        (_, Some("CREDENTIALS_EXPIRED")) => {
            Some("replace the token in --token-file; `sentinelctl token new` creates one")
        }
        (_, Some("CREDENTIALS_NOT_YET_VALID")) => {
            Some("wait until the token is valid, or correct the clock of its issuer or of the server")
        }
        (_, Some("CREDENTIALS_WRONG_AUDIENCE")) => {
            Some("request a token for this service: its audience is one of `audiences` in the policy of the server")
        }
        (_, Some("ROLE_MISSING")) => {
            Some("grant the role to this identity in the policy of the server, and run `sentinelctl policy check`")
        }
        (_, Some("NAMESPACE_FORBIDDEN")) => Some(
            "add the namespace to the grant of this identity in the policy of the server, or set another one with -n",
        ),
        (Code::Unauthenticated, Some(_)) => Some(
            "set --token-file (SENTINEL_TOKEN_FILE) or --tls-cert to credentials that the policy of the server has",
        ),
        (Code::PermissionDenied, Some(_)) => {
            Some("grant what the message names to this identity in the policy of the server")
        }
        (Code::Unauthenticated, None) => Some(
            "set --token-file (SENTINEL_TOKEN_FILE) or --tls-cert to valid credentials; a proxy in front of the server \
             may need others: check its configuration",
        ),
        (Code::PermissionDenied, None) => Some(
            "grant the role to this identity in the policy of the server; if a proxy in front of the server refused \
             the call, check its configuration",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn variables<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
    }

    fn resolved(flags: &SecurityArgs, set: &[(&str, &str)], keys: &SecurityKeys) -> Result<Security, Failure> {
        Security::resolve(flags, variables(set), keys.clone(), Path::new("/etc/sentinelctl"))
    }

    #[test]
    fn a_flag_goes_before_the_environment_before_the_file() {
        let keys = &SecurityKeys {
            tls_ca: Some("ca.pem".into()),
            tls_cert: Some("/c.pem".into()),
            tls_key: Some("k.pem".into()),
            token_file: Some("token".into()),
        };
        let found = resolved(&SecurityArgs::default(), &[], keys).expect("settings");
        assert_eq!(found.ca, Some("/etc/sentinelctl/ca.pem".into()));
        assert_eq!(found.certificate, Some(("/c.pem".into(), "/etc/sentinelctl/k.pem".into())));
        assert_eq!(found.token, Some(Token::File("/etc/sentinelctl/token".into())));

        let set = [("SENTINEL_TLS_CA", "env-ca"), ("SENTINEL_CLIENT_CERT", "env-c"), ("SENTINEL_TOKEN", "secret")];
        let found = resolved(&SecurityArgs::default(), &set, keys).expect("settings");
        assert_eq!(
            (found.ca.as_deref(), found.token.clone()),
            (Some(Path::new("env-ca")), Some(Token::Text("secret".into())))
        );
        assert_eq!(found.certificate, Some(("env-c".into(), "/etc/sentinelctl/k.pem".into())));
        assert!(!format!("{found:?}").contains("secret"));

        let set = [("SENTINEL_TOKEN", "secret"), ("SENTINEL_TOKEN_FILE", "env-token")];
        let found = resolved(&SecurityArgs::default(), &set, &SecurityKeys::default()).expect("settings");
        assert_eq!(found.token, Some(Token::File("env-token".into())));
        let flags = SecurityArgs { token_file: Some("flag".into()), tls_ca: Some("ca".into()), ..Default::default() };
        let found = resolved(&flags, &set, keys).expect("settings");
        assert_eq!((found.token, found.ca), (Some(Token::File("flag".into())), Some("ca".into())));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        for (name, lacks) in [("SENTINEL_CLIENT_CERT", "--tls-key"), ("SENTINEL_CLIENT_KEY", "--tls-cert")] {
            let error =
                resolved(&SecurityArgs::default(), &[(name, "x.pem")], &SecurityKeys::default()).expect_err(name);
            assert!(error.code() == Failure::USAGE && error.to_string().contains(lacks), "{error}");
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named_with_its_flag() {
        let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
        let flags = SecurityArgs { tls_ca: Some(folder.path().join("ca.pem")), ..Default::default() };
        let found = resolved(&flags, &[], &SecurityKeys::default()).expect("settings");
        let builder = inventory_sentinel_client::Sentinel::builder("https://h:1");
        let error = found.apply(builder).expect_err("no file");
        assert!(error.code() == Failure::USAGE && error.to_string().contains("--tls-ca"), "{error}");
    }

    #[test]
    fn each_failure_has_its_next_step() {
        let next = |causes| handshake_advice(causes).unwrap_or_default();
        assert!(next("invalid peer certificate: UnknownIssuer").contains("SENTINEL_TLS_CA"));
        assert!(next("received fatal alert: CertificateRequired").contains("SENTINEL_CLIENT_CERT"));
        assert!(next("received fatal alert: CertificateExpired").contains("client certificate"));
        assert!(
            next("invalid peer certificate: certificate expired: verification time").contains("renew the server's")
        );
        assert_eq!(handshake_advice("Connection refused"), None);

        let next = |code, reason| credentials_advice(code, reason).unwrap_or_default();
        assert!(next(Code::Unauthenticated, Some("CREDENTIALS_MISSING")).contains("--token-file"));
        assert!(next(Code::Unauthenticated, None).contains("proxy"));
        assert!(next(Code::PermissionDenied, Some("NAMESPACE_FORBIDDEN")).contains("-n"));
        assert_eq!(credentials_advice(Code::NotFound, Some("SKU_NOT_FOUND")), None);
    }
}
