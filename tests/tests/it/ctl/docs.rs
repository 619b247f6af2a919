//! Runs the examples of docs/operate/sentinelctl.md and docs/operate/running-a-sale.md as printed, in order. A comment
//! before an example sets the scene: `<!-- test: hold NAMESPACE SKU UNITS BUYER [REQUEST_ID] -->` adds a buyer, `sell`
//! with the same words a sale, `<!-- test: fence NAMESPACE -->` a loss. In a SKU `_` replaces a space.

use std::collections::VecDeque;

use inventory_sentinel::v1;
use sentinel_tests::{Ctl, Redis, SentinelProcess, new_id, reserve_request, shell, until_fenced};
use tempfile::TempDir;

const REFERENCE: &str = include_str!("../../../../docs/operate/sentinelctl.md");
const SALE: &str = include_str!("../../../../docs/operate/running-a-sale.md");

/// The steps of a page, in order.
#[derive(Debug)]
enum Step {
    Script(String),
    Scene(Vec<String>),
}

fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut script) = (Vec::new(), None::<String>);
    for line in page.lines() {
        match (&mut script, line) {
            (None, "```sh") => script = Some(String::new()),
            (Some(_), "```") => steps.extend(script.take().map(Step::Script)),
            (Some(script), line) => script.extend([line, "\n"]),
            (None, line) => {
                let scene = line.strip_prefix("<!-- test: ").and_then(|line| line.strip_suffix(" -->"));
                steps.extend(
                    scene.map(|scene| Step::Scene(scene.split(' ').map(|word| word.replace('_', " ")).collect())),
                );
            }
        }
    }
    steps
}

async fn run(page: &str) {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let folder = TempDir::with_prefix("sentinelctl-docs-").expect("a folder");
    let steps = steps(page);
    assert!(steps.iter().filter(|step| matches!(step, Step::Script(_))).count() > 5, "{steps:?}");
    for step in steps {
        match step {
            Step::Script(script) => {
                let ran = shell(&script, folder.path(), &server).await;
                assert_eq!(ran.code, 0, "{script}\nstandard output:\n{}\nstandard error:\n{}", ran.out, ran.err);
            }
            Step::Scene(words) => play(&words, &server, &mut redis).await,
        }
    }
}

async fn play(words: &[String], server: &SentinelProcess, redis: &mut Redis) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [verb @ ("hold" | "sell"), namespace, sku, units, buyer, ref request_id @ ..] => {
            let shop = server.shop(namespace);
            let mut order = reserve_request(&[(sku, units.parse().expect("a number"))]);
            if let Some(&request_id) = request_id.first() {
                order.request_id = request_id.into();
            }
            let held = shop.hold_order(v1::ReserveRequest { buyer_id: buyer.into(), ..order }).await;
            if verb == "sell" {
                shop.commit(&held.reservation_id).await.expect("sold");
            }
        }
        ["fence", namespace] => {
            let (copy, shop) = (redis.files().copy(), server.shop(namespace));
            shop.supply("lost", 1).await;
            redis.restart_with_copy(&copy).await;
            until_fenced("SetStock", async || shop.set_stock("found", 1, &new_id()).await).await;
        }
        _ => panic!("no scene: {words:?}"),
    }
}

#[tokio::test]
async fn every_example_of_the_reference_works() {
    run(REFERENCE).await;
}

#[tokio::test]
async fn a_sale_can_be_run_as_it_is_written() {
    run(SALE).await;
}

/// The commands that a help text lists.
async fn listed(command: &[String]) -> Vec<String> {
    let help = Ctl::new(command.iter().cloned().chain(["--help".to_owned()])).run().await.ends(0).out;
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap_or_default();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split(' ').next()).filter(|&name| name != "help").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_has_an_example() {
    let (mut open, mut commands) = (VecDeque::from([Vec::new()]), Vec::new());
    while let Some(command) = open.pop_front() {
        let below = listed(&command).await;
        if below.is_empty() {
            commands.push(format!("sentinelctl {}", command.join(" ")));
        }
        open.extend(below.into_iter().map(|name| [command.clone(), vec![name]].concat()));
    }
    assert!(commands.len() > 20, "{commands:?}");
    let without: Vec<_> = commands.iter().filter(|command| !REFERENCE.contains(command.as_str())).collect();
    assert!(without.is_empty(), "without an example: {without:?}");
}
