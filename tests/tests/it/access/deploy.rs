//! The files of deploy/, without a container: the scripts of the image run with the arguments of compose.yaml, and the
//! server runs with exactly the variables of Dockerfile and compose.yaml. Folders of the container are temporary
//! folders here, and its ports are free ones.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use inventory_sentinel::v1;
use sentinel_tests::{Redis, SentinelProcess, http_get, https_get, shell_with};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig};

use super::CallerClients;

const DOCKERFILE: &str = include_str!("../../../../deploy/Dockerfile");
const COMPOSE: &str = include_str!("../../../../deploy/compose.yaml");
const PROMETHEUS: &str = include_str!("../../../../deploy/prometheus.yaml");
const ALERTS: &str = include_str!("../../../../deploy/alerts.yaml");
/// The folders of the container.
const FOLDERS: [&str; 4] = ["/credentials", "/access", "/scrape", "/var/lib/sentinel"];

/// The lines below a key of a YAML file, down to the next key of the same or a smaller indentation.
fn below<'a>(yaml: &'a str, path: &[&str]) -> Vec<&'a str> {
    let mut lines: Vec<&str> = yaml.lines().collect();
    for key in path {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let start = lines.iter().position(|line| line.trim() == format!("{key}:")).expect("the key");
        let level = indent(lines[start]);
        let inside = |line: &&&str| line.trim().is_empty() || indent(line) > level;
        lines = lines[start + 1..].iter().take_while(inside).copied().collect();
    }
    lines
}

/// The value of a key that is alone on its line.
fn value<'a>(lines: &[&'a str], key: &str) -> &'a str {
    let mut found = lines.iter().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    found.next().unwrap_or_else(|| panic!("no {key} in {lines:?}"))
}

/// The variables of the server: those of the image, then those of the service.
fn variables() -> Vec<(String, String)> {
    let (_, rest) = DOCKERFILE.split_once("\nENV ").expect("variables of the image");
    let mut of_image = Vec::new();
    for line in rest.lines() {
        let (name, value) = line.trim().trim_end_matches(" \\").split_once('=').expect("NAME=value");
        of_image.push((name.to_owned(), value.to_owned()));
        if !line.ends_with('\\') {
            break;
        }
    }
    let of_service = below(COMPOSE, &["services", "sentinel", "environment"]);
    let of_service = of_service.iter().filter_map(|line| line.trim().split_once(": "));
    of_image.into_iter().chain(of_service.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// The files of a deployment.
struct Deployment(TempDir);

impl Deployment {
    fn new() -> Deployment {
        let folder = TempDir::with_prefix("deployment-").expect("a folder");
        for name in FOLDERS {
            fs::create_dir_all(folder.path().join(&name[1..])).expect("a folder");
        }
        Deployment(folder)
    }

    /// A path of the container on this machine.
    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.strip_prefix('/').expect("an absolute path"))
    }

    /// A text in which the paths of the container are those of this machine.
    fn outside(&self, text: &str) -> String {
        match FOLDERS.iter().any(|folder| Path::new(text).starts_with(folder)) {
            true => self.path(text).display().to_string(),
            false => text.to_owned(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Runs the service `credentials` to its end.
    async fn generate_credentials(&self) {
        let entrypoint = value(&below(COMPOSE, &["services", "credentials"]), "entrypoint");
        let words = entrypoint.trim_matches(['[', ']']).split(", ").map(|word| self.outside(word));
        let script = words.collect::<Vec<_>>().join(" ");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let ran = shell_with(&format!("{}/{script}", deploy.display()), self.0.path(), &[]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.out.contains("ist_") && !ran.err.contains("ist_"), "{ran:?}");
    }

    /// The names, modes and contents of all files.
    fn files(&self, folder: &str) -> Vec<(String, u32, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.path(folder))
            .expect("a folder")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, mode, fs::read(&path).expect("a file"))
            })
            .collect();
        files.sort();
        files
    }
}

#[tokio::test]
async fn each_container_gets_only_its_credentials_once() {
    let deployment = Deployment::new();
    // An interrupted start.
    fs::create_dir(deployment.path("/credentials/new")).expect("a folder");
    fs::write(deployment.path("/credentials/new/ca.pem"), "half").expect("written");
    deployment.generate_credentials().await;
    let names = |folder| deployment.files(folder).into_iter().map(|(name, mode, _)| (name, mode)).collect::<Vec<_>>();
    let expected =
        |files: &[(&str, u32)]| files.iter().map(|&(name, mode)| (name.to_owned(), mode)).collect::<Vec<_>>();
    assert_eq!(
        names("/access"),
        expected(&[
            ("ca.pem", 0o644),
            ("policy.toml", 0o644),
            ("server-key.pem", 0o600),
            ("server.pem", 0o644),
            ("tokens.toml", 0o600),
        ])
    );
    assert_eq!(names("/scrape"), expected(&[("ca.pem", 0o444), ("metrics.token", 0o444)]));
    let issued = names("/credentials/issued");
    assert!(issued.contains(&("ca-key.pem".to_owned(), 0o600)) && issued.contains(&("web.token".to_owned(), 0o600)));

    let folders = ["/access", "/scrape", "/credentials/issued"];
    let before = folders.map(|folder| deployment.files(folder));
    deployment.generate_credentials().await;
    assert_eq!(before, folders.map(|folder| deployment.files(folder)), "a second start changes nothing");
}

#[tokio::test]
async fn the_server_of_the_compose_file_is_guarded() {
    let deployment = Deployment::new();
    deployment.generate_credentials().await;
    let redis = Redis::start().await;
    let mut launch = SentinelProcess::launch().trusting(deployment.read("/access/ca.pem"));
    let variables = variables();
    for (name, value) in &variables {
        let value = match name.as_str() {
            "SENTINEL_REDIS_URL" => redis.url(),
            "SENTINEL_LISTEN" | "SENTINEL_ADMIN_LISTEN" => {
                let (interfaces, _) = value.split_once(':').expect("an address with a port");
                format!("{interfaces}:0")
            }
            _ => deployment.outside(value),
        };
        launch = launch.variable(name, &value);
    }
    let server = launch.start().await;

    // The names of the certificate are those by which clients and Prometheus reach the server.
    let token = deployment.read("/credentials/issued/web.token");
    let ca = deployment.read("/credentials/issued/ca.pem");
    let get_stock = async |host: &str, credential: &str| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca)).domain_name(host);
        let mut caller = CallerClients::new(server.connect(tls).await.expect("a connection"), credential);
        let request = v1::IsProtectedRequest { sku: "t-shirt".into(), ..Default::default() };
        caller.checkout.is_protected(request).await
    };
    get_stock("localhost", token.trim()).await.expect("a known token");
    get_stock("sentinel", token.trim()).await.expect("the name of the service");
    get_stock("localhost", "").await.expect_err("no credential");
    let client = ["client.pem", "client-key.pem"].map(|name| deployment.read(&format!("/credentials/issued/{name}")));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca))
        .domain_name("localhost")
        .identity(tonic::transport::Identity::from_pem(&client[0], &client[1]));
    let mut caller = CallerClients::new(server.connect(tls).await.expect("a connection"), "");
    let request = v1::IsProtectedRequest { sku: "t-shirt".into(), ..Default::default() };
    caller.checkout.is_protected(request).await.expect("a known certificate");

    // The health check of the image.
    let check = "healthcheck";
    assert!(DOCKERFILE.contains(&format!("CMD [\"{check}\"]")), "the health check of the image");
    let script = format!("{}/../deploy/{check}", env!("CARGO_MANIFEST_DIR"));
    let of_check: Vec<_> = variables
        .iter()
        .map(|(name, value)| match name.as_str() {
            "SENTINEL_ADMIN_LISTEN" => (name.as_str(), server.admin_address().to_string()),
            _ => (name.as_str(), deployment.outside(value)),
        })
        .collect();
    let ran = shell_with(&script, deployment.path("/access").as_path(), &of_check).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let open = SentinelProcess::start().await;
    let of_open = [("SENTINEL_ADMIN_LISTEN", open.admin_address().to_string())];
    let ran = shell_with(&script, deployment.path("/access").as_path(), &of_open).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    drop(open);
    let ran = shell_with(&script, deployment.path("/access").as_path(), &of_open).await;
    assert_ne!(ran.code, 0, "no server responds: {ran:?}");

    // The scrape of Prometheus, and the metrics of its alerts.
    let job: Vec<_> = below(PROMETHEUS, &["scrape_configs"]);
    assert_eq!(value(&job, "scheme"), "https");
    assert!(job.iter().any(|line| line.trim() == "- targets: [sentinel:9464]"), "{job:?}");
    let (ca, token) = (value(&job, "ca_file"), value(&job, "credentials_file"));
    let (ca, token) = (deployment.read(ca), deployment.read(token));
    let (status, page) = https_get(server.admin_address(), "/metrics", &ca, token.trim()).await.expect("metrics");
    assert_eq!(status, 200);
    let (status, _) = https_get(server.admin_address(), "/metrics", &ca, "").await.expect("a refusal");
    assert_eq!(status, 401);
    http_get(server.admin_address(), "/metrics").await.expect_err("no plain HTTP");
    assert!(page.contains("\ninventory_sentinel_unguarded 0\n"), "{page}");
    let expressions: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 4, "{expressions:?}");
    let names = expressions
        .iter()
        .flat_map(|text| text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_'))
        .filter(|word| word.starts_with("inventory_sentinel_"));
    for name in names {
        assert!(page.contains(&format!("\n# TYPE {name} ")), "no {name} in {page}");
    }
}

#[test]
fn the_image_does_not_start_without_credentials() {
    let variables = variables();
    for name in ["SENTINEL_TLS_CERT", "SENTINEL_TLS_KEY", "SENTINEL_POLICY"] {
        assert!(variables.iter().any(|(set, value)| set == name && value.starts_with("/access/")), "{name}");
    }
    assert!(!variables.iter().any(|(name, _)| name.contains("INSECURE") || name.contains("PASSWORD")), "{variables:?}");
    assert!(variables.iter().any(|(name, value)| name == "SENTINEL_LISTEN" && value.starts_with("0.0.0.0:")));
}
