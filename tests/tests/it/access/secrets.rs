//! No output of a server has a secret: not its log at the level `trace`, not its audit log, not a page of its port for
//! operators, not a status, not a span.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use inventory_sentinel::v1;
use prost::Message as _;
use sentinel_tests::{
    Collector, Redis, SentinelProcess, ServerBuilder,
    credentials::{AccessFiles, Signed, Validity, seconds_from_now},
    eventually, new_id,
};
use serde_json::json;
use tonic::{
    Request,
    transport::{Channel, ClientTlsConfig},
};

use super::{
    CallerClients,
    any_rpc::{ADMIN, CHECKOUT, call},
};

const PASSWORD: &str = "correct-horse-battery-staple-7341";
const WRONG_PASSWORD: &str = "wrong-horse-battery-staple-9152";
/// The credential for the collector of spans.
const COLLECTOR_TOKEN: &str = "collector-token-of-this-test-5517";

/// Texts that no output may have, each with a name for the report.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, name: &str, text: &str) {
        assert!(text.len() >= 12, "{name} is too short to be searched for");
        self.0.push((name.to_owned(), text.to_owned()));
        // Other forms in which a library prints bytes.
        let bytes = &text.as_bytes()[text.len() - 12..];
        let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        self.0.push((format!("{name} in hexadecimal digits"), hexadecimal));
        self.0.push((format!("{name} as numbers"), numbers.join(", ")));
    }

    /// A token as a whole and its secret part.
    fn add_token(&mut self, name: &str, token: &str) {
        self.add(name, token);
        self.add(&format!("the secret of {name}"), token.splitn(3, '_').nth(2).expect("ist_ID_SECRET"));
    }

    /// A JSON Web Token as a whole, and its signature.
    fn add_jwt(&mut self, name: &str, jwt: &str) {
        self.add(name, jwt);
        self.add(&format!("the signature of {name}"), jwt.rsplit('.').next().expect("a signature"));
    }

    /// The lines of a key in PEM.
    fn add_key(&mut self, name: &str, pem: &str) {
        for line in pem.lines().filter(|line| !line.starts_with('-') && line.len() >= 12) {
            self.add(name, line);
        }
    }

    /// Asserts that an output has none of them.
    fn assert_absent(&self, output: &str, text: &str) {
        for (name, secret) in &self.0 {
            let Some(at) = text.find(secret.as_str()) else { continue };
            let line = text[..at].rsplit('\n').next().unwrap_or_default().len();
            let line = text[at - line..].lines().next().unwrap_or_default();
            panic!("{output} has {name}: {line}");
        }
    }
}

/// The hashes in the file of tokens.
fn hashes(files: &AccessFiles) -> Vec<String> {
    let text = fs::read_to_string(files.path("tokens.toml")).expect("the tokens");
    let hashes = text.lines().filter_map(|line| line.split_once("sha256 = \""));
    hashes.map(|(_, hash)| hash.trim_end_matches('"').to_owned()).collect()
}

/// The credentials of the calls.
struct Credentials {
    valid: String,
    scoped: String,
    expired: String,
    /// It has the id of a valid token, and another secret.
    wrong_secret: String,
    jwts: Vec<String>,
    certificate: Signed,
    expired_certificate: Signed,
}

impl Credentials {
    fn new(files: &AccessFiles) -> Credentials {
        let valid = files.token("everything");
        let jwt_with = |claim: &str, value| {
            let mut claims = files.issuer.claims("everything");
            claims[claim] = value;
            files.issuer.sign(&claims)
        };
        let jwts = vec![
            files.issuer.token("everything"),
            files.issuer.token("nobody"),
            jwt_with("aud", json!("another-service")),
            jwt_with("exp", json!(seconds_from_now(-60))),
            jwt_with("iss", json!("https://elsewhere.example.com")),
            AccessFiles::new().issuer.token("everything"),
        ];
        let id = valid.split('_').nth(1).expect("ist_ID_SECRET");
        Credentials {
            scoped: files.token("checkout"),
            expired: files.token_until("everything", Some(SystemTime::now() - Duration::from_secs(1))),
            wrong_secret: format!("ist_{id}_Wr0ngWr0ngWr0ngWr0ngWr0ngWr0ngWr0ngWr0ng012"),
            jwts,
            certificate: files.authority.client("uri:spiffe://shop/everything", Validity::Now),
            expired_certificate: files.authority.client("uri:spiffe://shop/everything", Validity::Expired),
            valid,
        }
    }

    fn secrets(&self, files: &AccessFiles) -> Secrets {
        let mut secrets = Secrets::default();
        let tokens = [&self.valid, &self.scoped, &self.expired, &self.wrong_secret];
        for (name, token) in ["a valid token", "a scoped token", "an expired token", "a wrong token"].iter().zip(tokens)
        {
            secrets.add_token(name, token);
        }
        for (number, jwt) in self.jwts.iter().enumerate() {
            secrets.add_jwt(&format!("JWT {number}"), jwt);
        }
        for hash in hashes(files) {
            secrets.add("the hash of a token", &hash);
        }
        let key = fs::read_to_string(files.path("server-key.pem")).expect("the key");
        secrets.add_key("the key of the server", &key);
        secrets.add_key("the key of a client", &self.certificate.key);
        secrets.add_key("the key of a client", &self.expired_certificate.key);
        secrets.add("the password of the store", PASSWORD);
        secrets.add("a wrong password of the store", WRONG_PASSWORD);
        secrets.add("the token of the collector", COLLECTOR_TOKEN);
        secrets
    }

    /// Header values with credentials, right and wrong.
    fn headers(&self) -> Vec<String> {
        let Credentials { valid, scoped, expired, wrong_secret, jwts, .. } = self;
        let mut headers: Vec<String> =
            [valid, scoped, expired, wrong_secret].iter().map(|token| format!("Bearer {token}")).collect();
        headers.extend(jwts.iter().map(|jwt| format!("Bearer {jwt}")));
        for credential in [valid, &jwts[0]] {
            headers.extend([
                credential.clone(),
                format!("Basic {credential}"),
                format!("Bearer  {credential}"),
                format!("Bearer {credential},"),
                format!("Bearer {credential}x"),
                format!("Token {credential}"),
                format!("Bearer {}", &credential[..credential.len() - 1]),
            ]);
        }
        headers
    }
}

fn launch(files: &AccessFiles, collector: &Collector, url: &str) -> ServerBuilder {
    SentinelProcess::launch()
        .guarded_with_client_ca(files, "optional")
        .variable("SENTINEL_LOG", "trace")
        .variable("SENTINEL_REDIS_URL", url)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .variable("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer {COLLECTOR_TOKEN}"))
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
}

/// Calls with every credential in every form, and adds all statuses and pages to the text.
async fn call_with_all(server: &SentinelProcess, files: &AccessFiles, credentials: &Credentials, text: &mut String) {
    let get_stock = v1::GetStockRequest { namespace_id: "sale".into(), sku: "ps5".into() }.encode_to_vec();
    let paths = [format!("{ADMIN}GetServerInfo"), format!("{CHECKOUT}GetStock")];
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    for header in credentials.headers() {
        for path in &paths {
            let result = call(&channel, &header, path, get_stock.clone()).await;
            text.push_str(&format!("{:?}\n", result.map(|_| ())));
        }
        // A credential in another place than its header.
        let credential = header.rsplit(' ').next().expect("a credential");
        let result = call(&channel, "", &format!("{}?token={credential}", paths[1]), get_stock.clone()).await;
        text.push_str(&format!("{:?}\n", result.map(|_| ())));
        for path in ["/metrics", "/readyz", "/livez"] {
            let page = server.get(path, header.trim_start_matches("Bearer ")).await.expect("a response").1;
            text.push_str(&page);
            let page = server.get(&format!("{path}?token={credential}"), "").await.expect("a response").1;
            text.push_str(&page);
        }
    }
    call_with_unusual_headers(&channel, &credentials.valid, text).await;

    let tls = |signed: &Signed| -> ClientTlsConfig { files.client_tls().identity(signed.identity()) };
    let channel = server.connect(tls(&credentials.certificate)).await.expect("a connection");
    let mut owner = CallerClients::new(channel, "");
    let set = v1::SetStockRequest {
        namespace_id: "sale".into(),
        sku: "ps5".into(),
        on_hand: 10,
        request_id: new_id(),
        ..Default::default()
    };
    owner.admin.set_stock(set).await.expect("set");
    let result = owner.admin.get_namespace(v1::GetNamespaceRequest { namespace_id: "ghost".into() }).await;
    text.push_str(&format!("{:?}\n", result.expect_err("unknown")));
    if let Ok(channel) = server.connect(tls(&credentials.expired_certificate)).await {
        let result = call(&channel, "", &paths[0], bytes::Bytes::new()).await;
        text.push_str(&format!("{:?}\n", result.expect_err("refused")));
    }
}

/// The credential twice, and in headers that the server does not read.
async fn call_with_unusual_headers(channel: &Channel, token: &str, text: &mut String) {
    let mut clients = CallerClients::new(channel.clone(), "");
    for names in [&["authorization", "authorization"][..], &["x-token", "cookie", "proxy-authorization"]] {
        let mut request = Request::new(v1::GetServerInfoRequest {});
        for name in names {
            request.metadata_mut().append(*name, format!("Bearer {token}").parse().expect("ASCII"));
        }
        let result = clients.admin.get_server_info(request).await;
        text.push_str(&format!("{:?}\n", result.map(|_| ())));
    }
}

#[tokio::test]
async fn no_output_has_a_secret() {
    let files = AccessFiles::new();
    let credentials = Credentials::new(&files);
    let secrets = credentials.secrets(&files);
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    redis.execute::<()>(&format!("ACL SETUSER sentinel on >{PASSWORD} ~* &* +@all")).await;
    // From here on every client needs a password.
    redis.execute::<()>("ACL SETUSER default resetpass off").await;
    let url = |password: &str| format!("{}?user=sentinel&pass={password}", redis.url());
    let audit_log = files.path("audit.log");
    let flags = format!("--audit-log {}", audit_log.display());

    let mut text = String::new();
    let mut server = launch(&files, &collector, &url(PASSWORD)).flags(&flags).start().await;
    call_with_all(&server, &files, &credentials, &mut text).await;
    server.restart().await;
    call_with_all(&server, &files, &credentials, &mut text).await;
    // Bad files while it runs, one that has a secret in the wrong place.
    let good = fs::read_to_string(files.path("tokens.toml")).expect("the tokens");
    files.write("tokens.toml", &good.replace("sha256 = \"", "sha256 = \"zz"));
    eventually("bad tokens are reported", async || server.log().contains("changed files are bad").then_some(())).await;
    files.write("tokens.toml", &good);
    files.edit("server.pem", |_| fs::read_to_string(files.path("server-key.pem")).expect("the key"));
    let reports = || server.log().matches("changed files are bad").count();
    eventually("a bad certificate is reported", async || (reports() > 1).then_some(())).await;
    files.set_server_certificate(&files.authority.server());
    server.terminate();
    server.exit().await;

    secrets.assert_absent("a status or a page", &text);
    let log = server.log();
    secrets.assert_absent("the log", &log);
    let records = fs::read_to_string(&audit_log).expect("the audit log");
    assert!(records.contains("CREDENTIALS_UNKNOWN") && records.contains("an operator changed something"));
    secrets.assert_absent("the audit log", &records);
    eventually("spans arrive", async || (!collector.spans().is_empty()).then_some(())).await;
    secrets.assert_absent("a span", &format!("{:?}", collector.spans()));
    // The search finds what is in the log.
    assert!(log.contains("\"level\":\"TRACE\""), "the level trace is on");

    // A wrong password: the server serves, and reports that its store refuses it.
    let server = launch(&files, &collector, &url(WRONG_PASSWORD)).start_unready().await;
    let page = eventually("the store refuses the password", async || {
        let (_, page) = server.readyz().await;
        (page.contains("store: ") && !page.contains("not checked yet")).then_some(page)
    })
    .await;
    secrets.assert_absent("/readyz", &page);
    secrets.assert_absent("the log", &server.log());
}

#[tokio::test]
async fn a_server_that_can_not_start_prints_no_secret() {
    let collector = Collector::start().await;
    let key_in_place_of = |files: &AccessFiles, name: &str| {
        files.write(name, &fs::read_to_string(files.path("server-key.pem")).expect("the key"));
    };
    let with_token = |files: &AccessFiles, token: &str, name: &str| files.write(name, token);
    for case in 0..9 {
        let files = AccessFiles::new();
        let credentials = Credentials::new(&files);
        let secrets = credentials.secrets(&files);
        let hash = hashes(&files)[0].clone();
        match case {
            0 => files.edit("policy.toml", |text| text.replace("role = \"metrics\"", "role = \"root\"")),
            // A secret where another value belongs.
            1 => with_token(&files, &credentials.valid, "policy.toml"),
            2 => with_token(&files, &credentials.valid, "tokens.toml"),
            3 => with_token(&files, &credentials.jwts[0], "jwks.json"),
            4 => key_in_place_of(&files, "server.pem"),
            5 => key_in_place_of(&files, "client-ca.pem"),
            6 => files.edit("tokens.toml", |text| text.replace(&format!("\"{hash}\""), &format!("\"{hash}"))),
            7 => files.edit("tokens.toml", |text| {
                text.replace("identity = \"everything\"", &format!("identity = \"{}\"", credentials.valid))
            }),
            _ => files.write("jwks.json", &json!({ "keys": [credentials.jwts[0], 7] }).to_string()),
        }
        let url = format!("unix:///nowhere/redis.sock?pass={PASSWORD}");
        let (code, log) = launch(&files, &collector, &url).run().await;
        assert_eq!(code, Some(64), "case {case}: {log}");
        secrets.assert_absent(&format!("the log of case {case}"), &log);
    }
    // The content of a file in the place of its path.
    let files = AccessFiles::new();
    let credentials = Credentials::new(&files);
    let secrets = credentials.secrets(&files);
    let key = fs::read_to_string(files.path("server-key.pem")).expect("the key");
    let certificate = format!("--tls-cert {}", files.path("server.pem").display());
    for content in [key.clone(), key.replace('\n', " ")] {
        let builder = SentinelProcess::launch().variable("SENTINEL_LOG", "trace").flags(&certificate);
        let (code, log) = builder.variable("SENTINEL_TLS_KEY", &content).run().await;
        assert_eq!(code, Some(64), "{log}");
        assert!(log.contains("--tls-key is the content of a file"), "{log}");
        secrets.assert_absent("the log", &log);
    }

    // A URL that can't be used.
    let files = AccessFiles::new();
    let secrets = Credentials::new(&files).secrets(&files);
    for url in [format!("redis://:{PASSWORD}"), format!("redis://host/{PASSWORD}"), PASSWORD.to_owned()] {
        let (code, log) = launch(&files, &collector, &url).run().await;
        assert_eq!(code, Some(64), "{log}");
        secrets.assert_absent("the log", &log);
    }
}
