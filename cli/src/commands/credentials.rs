//! `sentinelctl credentials init`: a folder with all files for a server with TLS and a policy. Writes that folder;
//! makes no call.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use inventory_sentinel_access::tokens;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::ServerName;

use super::policy;
use crate::{
    failure::Failure,
    files::{PUBLIC, SECRET, create, unusable},
    output::Output,
    table::shown,
};

/// The names of the server's certificate besides those of --host.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The URI in the client certificate, by which the policy finds its identity.
const CLIENT_URI: &str = "spiffe://inventory-sentinel/web";
/// The identities of the policy: each has a token in `<name>.token`.
const IDENTITIES: [&str; 3] = ["web", "operator", "metrics"];
/// How long the certificates are valid. They begin a day early, for clocks that differ.
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_DAYS: u32 = 3_650;
const CERTIFICATE_DAYS: u32 = 365;

const POLICY: &str = r#"# The identities and their grants. `sentinelctl policy check` validates this file.
# The server reads it again after a change.
tokens_file = "tokens.toml"

# A shop: checkout and the feed of changes, in all namespaces. Has a client certificate and a token.
[[identity]]
name = "web"
certificates = ["uri:spiffe://inventory-sentinel/web"]
grants = [{ role = "checkout", namespaces = ["*"] }, { role = "events", namespaces = ["*"] }]

# The operators, with sentinelctl.
[[identity]]
name = "operator"
grants = [
    { role = "operator", namespaces = ["*"] },
    { role = "checkout", namespaces = ["*"] },
    { role = "events", namespaces = ["*"] },
]

# The collector of /metrics.
[[identity]]
name = "metrics"
grants = [{ role = "metrics" }]
"#;

/// `sentinelctl credentials`.
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Create a CA, certificates, a policy and tokens, ready for a first server, and print how to use them.
    Init(InitArgs),
}

/// `sentinelctl credentials init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, which is created. Refused if it contains files.
    folder: PathBuf,
    /// A further host name or IP address of the server. localhost, 127.0.0.1 and ::1 are always in its certificate.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

pub(crate) fn run(command: &CredentialsCommand, output: Output) -> Result<bool, Failure> {
    let CredentialsCommand::Init(args) = command;
    let InitArgs { folder, hosts } = args;
    if let Some(host) = hosts.iter().find(|host| ServerName::try_from(host.as_str()).is_err()) {
        let what = shown(&format!("--host {host} is no host name or IP address"));
        return Err(Failure::usage(what, "write it as in --host sentinel.shop.internal"));
    }
    let unusable = |error: io::Error| unusable("create", folder, &error);
    fs::create_dir_all(folder).map_err(unusable)?;
    if fs::read_dir(folder).map_err(unusable)?.next().is_some() {
        let what = shown(&format!("{} contains files, which are not replaced", folder.display()));
        return Err(Failure::usage(what, "name a new folder"));
    }
    let names = LOCAL_HOSTS.into_iter().chain(hosts.iter().map(String::as_str));
    let files = pki(names)
        .map_err(|error| Failure::Failed(format!("can't generate the certificates: {error}")))?
        .into_iter()
        .chain([("policy.toml", POLICY.to_owned(), PUBLIC)])
        .map(|(name, content, mode)| (name.to_owned(), content, mode));
    for (name, content, mode) in files.chain(bearer_tokens()) {
        create(&folder.join(name), &content, mode).map_err(unusable)?;
    }
    policy::load(&folder.join("policy.toml"))?;
    output.text(&guide(folder))?;
    Ok(true)
}

/// A name, its content, and its mode.
type Named<N> = (N, String, u32);

/// A CA, and the certificates of a server and of a client.
fn pki<'a>(hosts: impl Iterator<Item = &'a str>) -> Result<Vec<Named<&'static str>>, rcgen::Error> {
    let mut ca = params(CertificateParams::default(), "Inventory Sentinel CA", CA_DAYS);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::new(ca, ca_key);

    let server = CertificateParams::new(hosts.map(str::to_owned).collect::<Vec<_>>())?;
    let (server_pem, server_key) = issue(server, "Inventory Sentinel", ExtendedKeyUsagePurpose::ServerAuth, &issuer)?;
    let mut client = CertificateParams::default();
    client.subject_alt_names = vec![SanType::URI(CLIENT_URI.try_into()?)];
    let (client_pem, client_key) = issue(client, "web", ExtendedKeyUsagePurpose::ClientAuth, &issuer)?;
    Ok(vec![
        ("ca.pem", ca_pem, PUBLIC),
        ("ca-key.pem", ca_key_pem, SECRET),
        ("server.pem", server_pem, PUBLIC),
        ("server-key.pem", server_key, SECRET),
        ("client.pem", client_pem, PUBLIC),
        ("client-key.pem", client_key, SECRET),
    ])
}

/// A certificate and its key.
fn issue(
    params_of_names: CertificateParams,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let mut certificate = params(params_of_names, name, CERTIFICATE_DAYS);
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![usage];
    certificate.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((certificate.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(mut params: CertificateParams, name: &str, days: u32) -> CertificateParams {
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    let (year, month, day) = date(now.checked_sub(DAY).unwrap_or(now));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(now + DAY * days);
    params.not_after = date_time_ymd(year, month, day);
    params
}

/// Year, month and day in UTC.
fn date(at: SystemTime) -> (i32, u8, u8) {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let mut parts = text.split(['-', 'T']).map(|part| part.parse().unwrap_or(1));
    let mut part = || parts.next().unwrap_or(1);
    let (year, month, day) = (part(), part(), part());
    (year, month as u8, day as u8)
}

/// `tokens.toml`, and a file for each token.
fn bearer_tokens() -> Vec<Named<String>> {
    let (mut files, mut file) = (Vec::new(), String::new());
    for identity in IDENTITIES {
        let token = tokens::generate();
        file = tokens::append(&file, &token, identity, None);
        files.push((format!("{identity}.token"), format!("{}\n", token.text), SECRET));
    }
    files.push(("tokens.toml".to_owned(), file, SECRET));
    files
}

/// The commands that use the files.
fn guide(folder: &Path) -> String {
    let path = |name: &str| quoted(&folder.join(name));
    let [ca, cert, key, policy] = ["ca.pem", "server.pem", "server-key.pem", "policy.toml"].map(path);
    let [client, client_key, web, operator, metrics] =
        ["client.pem", "client-key.pem", "web.token", "operator.token", "metrics.token"].map(path);
    format!(
        "\
# Start the server. Without `--client-certificate optional` each client needs a certificate too.
sentinel-server --tls-cert {cert} --tls-key {key} --client-ca {ca} \\
    --client-certificate optional --policy {policy}

# Call it as an operator.
export SENTINEL_SERVER=https://localhost:50051 SENTINEL_TLS_CA={ca} SENTINEL_TOKEN_FILE={operator}
sentinelctl doctor

# A shop: the examples and sentinelctl read these variables. One of token and certificate is enough.
export SENTINEL_TLS_CA={ca} SENTINEL_TOKEN_FILE={web}
export SENTINEL_CLIENT_CERT={client} SENTINEL_CLIENT_KEY={client_key}

# Metrics.
curl --cacert {ca} -H \"authorization: Bearer $(cat {metrics})\" https://localhost:9464/metrics

# Keep ca-key.pem off the server: only new certificates need it.
"
    )
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("a/b-c.pem")), "a/b-c.pem");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
