//! Runs the commands of docs/operate/security.md as printed, in order, in a temporary folder. Exported variables apply
//! to later blocks too. A comment before a block sets its kind: `<!-- test: server -->` starts the server with the
//! flags of the block, on free ports; `grpcurl` runs the block only where grpcurl is installed; `issuer` first
//! publishes the keys of an issuer, and writes a token of it to `job.jwt`.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use inventory_sentinel_client::Sentinel;
use sentinel_tests::{SentinelProcess, credentials::AccessFiles, shell_with};
use serde_json::Value;
use tempfile::TempDir;

const PAGE: &str = include_str!("../../../../docs/operate/security.md");
const SOURCE: &str = include_str!("guide.rs");

/// A block of code of the page.
#[derive(Debug, Default)]
struct Block {
    language: String,
    /// The word of the comment before it; empty if there is none.
    kind: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut open, mut kind) = (Vec::new(), None::<(usize, Block)>, String::new());
    for line in page.lines() {
        let content = line.trim_start();
        match &mut open {
            Some(_) if content == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => block.text.extend([line.get(*indent..).unwrap_or_default(), "\n"]),
            None => {
                if let Some(word) = content.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) {
                    kind = word.to_owned();
                } else if let Some(language) = content.strip_prefix("```") {
                    let block =
                        Block { language: language.into(), kind: std::mem::take(&mut kind), ..Block::default() };
                    open = Some((line.len() - content.len(), block));
                }
            }
        }
    }
    assert!(open.is_none() && kind.is_empty(), "an open block, or a comment without one");
    blocks
}

/// The code between the comments `region page` and `endregion page` of this file, as the page prints it.
fn region() -> String {
    let (_, rest) = SOURCE.split_once("// region page\n").expect("a region");
    let (code, _) = rest.split_once("    // endregion page").expect("its end");
    code.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

/// The Rust code of the page.
async fn reserve_in_rust(server: String, ca: PathBuf, token: PathBuf) -> anyhow::Result<String> {
    // region page
    let sentinel = Sentinel::builder(server) // "https://localhost:50051"
        .tls_ca(std::fs::read(ca)?) // "credentials/ca.pem"
        .bearer_token_file(token) // "credentials/web.token"
        .connect()
        .await?;
    let hold = sentinel.namespace("drop-1").reserve("t-shirt", 1).await?;
    // endregion page
    Ok(hold.id.to_string())
}

/// The reader who follows the page.
struct Reader {
    folder: TempDir,
    server: Option<SentinelProcess>,
    /// The lines of earlier blocks that export variables.
    exports: String,
    has_grpcurl: bool,
    ran: usize,
}

impl Reader {
    fn new() -> Reader {
        let folder = TempDir::with_prefix("security-guide-").expect("a folder");
        let grpcurl = grpcurl();
        if let Some(path) = &grpcurl {
            symlink(path, folder.path().join("grpcurl")).expect("a link");
        }
        Reader { folder, server: None, exports: String::new(), has_grpcurl: grpcurl.is_some(), ran: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn follow(&mut self, block: Block) {
        match (block.language.as_str(), block.kind.as_str()) {
            ("sh", "server") => self.start(&block.text).await,
            ("sh", "grpcurl") if !self.has_grpcurl => {
                eprintln!("skipped, because grpcurl is not here:\n{}", block.text)
            }
            ("sh", "issuer") => {
                let issuer = AccessFiles::new().issuer;
                fs::write(self.path("published-keys"), issuer.key_set().to_string()).expect("written");
                fs::write(self.path("job.jwt"), issuer.token("nightly-job")).expect("written");
                self.run(&block.text).await;
            }
            ("sh", _) => self.run(&block.text).await,
            ("rust", _) => {
                assert_eq!(block.text, region(), "the page prints the code of this test");
                let (ca, token) = (self.path("credentials/ca.pem"), self.path("credentials/web.token"));
                let id = reserve_in_rust(self.on_its_ports("https://localhost:50051"), ca, token).await;
                assert!(!id.expect("a hold").is_empty());
            }
            // Examples of lines, and the commands of containers.
            ("json" | "text", _) => {}
            other => panic!("no kind of block: {other:?}"),
        }
    }

    /// The text with the ports of the server that runs.
    fn on_its_ports(&self, text: &str) -> String {
        let Some(server) = &self.server else { return text.to_owned() };
        let admin_calls = server.log_lines().iter().find_map(|line| {
            (line["port"] == "grpc_admin").then(|| line["address"].as_str()?.rsplit(':').next().map(str::to_owned))?
        });
        let ports = [
            ("50051", server.grpc().port().to_string()),
            ("9464", server.admin_address().port().to_string()),
            ("50052", admin_calls.unwrap_or_else(|| "50052".to_owned())),
        ];
        ports.iter().fold(text.to_owned(), |text, (printed, port)| {
            text.replace(&format!("localhost:{printed}"), &format!("localhost:{port}"))
        })
    }

    async fn start(&mut self, command: &str) {
        // The previous one ends.
        self.server = None;
        let command = command.replace("\\\n", " ");
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("sentinel-server"));
        let flags: Vec<_> = words
            .map(|word| match word {
                "127.0.0.1:50052" => "127.0.0.1:0".to_owned(),
                file if Path::new(file).extension().is_some() => self.path(file).display().to_string(),
                other => other.to_owned(),
            })
            .collect();
        let ca = fs::read_to_string(self.path("credentials/ca.pem")).expect("a CA");
        let server = SentinelProcess::launch().flags(&flags.join(" ")).trusting(ca);
        self.server = Some(server.variable("SENTINEL_RELOAD_INTERVAL", "100ms").start().await);
    }

    async fn run(&mut self, script: &str) {
        let text = self.on_its_ports(&format!("{}{script}", self.exports));
        let keys = format!("file://{}", self.path("published-keys").display());
        let path = format!("PATH=\"$PATH:{}\"\n{text}", self.folder.path().display());
        let ran = shell_with(&path, self.folder.path(), &[("JWKS_URL", keys)]).await;
        let log = self.server.as_ref().map(SentinelProcess::log).unwrap_or_default();
        assert_eq!(ran.code, 0, "{text}\nstandard output:\n{}\nstandard error:\n{}\n{log}", ran.out, ran.err);
        let exports = script.lines().filter(|line| line.starts_with("export "));
        self.exports.extend(exports.flat_map(|line| [line, "\n"]));
        self.ran += 1;
    }
}

/// In PATH, or as the tests of other languages have built it.
fn grpcurl() -> Option<PathBuf> {
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = in_path.map(|folder| folder.join("grpcurl")).find(|path| path.is_file());
    let built = || {
        let test = std::env::current_exe().ok()?;
        let tools = fs::read_dir(test.ancestors().nth(3)?.join("polyglot/bin")).ok()?;
        let mut paths = tools.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("grpcurl-")))
    };
    found.or_else(built)
}

/// The message and the names of the fields of a line of the audit log.
fn form(line: &Value) -> (String, BTreeSet<String>) {
    let fields = line.as_object().expect("an object").keys().cloned().collect();
    (line["message"].as_str().expect("a message").to_owned(), fields)
}

#[tokio::test]
async fn the_commands_of_the_page_work_in_order() {
    let mut reader = Reader::new();
    for block in blocks(PAGE) {
        reader.follow(block).await;
    }
    assert!(reader.ran > 12, "{} blocks", reader.ran);

    // The example lines of the audit log have the form of those that the commands above wrote.
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    let log = fs::read_to_string(reader.path("audit.log")).expect("the audit log");
    let written: BTreeSet<_> = lines(&log).iter().map(form).collect();
    let printed = blocks(PAGE).into_iter().filter(|block| block.language == "json");
    let printed: Vec<_> = printed.flat_map(|block| lines(&block.text)).collect();
    assert!(printed.len() >= 2, "{printed:?}");
    for example in &printed {
        assert!(written.contains(&form(example)), "{example} has another form than all of {log}");
    }
}
