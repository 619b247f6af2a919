//! The binary: reads the configuration, runs the server, drains at the first signal and exits at
//! the second. All else is in the library.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use sentinel_server::config::{Config, EXIT_CONFIG};
use sentinel_server::telemetry::{self, Telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code when an address can't be listened on (`EX_OSERR` of sysexits.h).
const EXIT_ADDRESS: u8 = 71;

/// Time for a stop beyond the drain: Redis, the last spans.
const STOP_MARGIN: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(message) => {
            // Also --help and --version, which are not failures.
            let _ = message.print();
            return if message.use_stderr() { EXIT_CONFIG.into() } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = config.validate() {
        for problem in error.problems {
            print_error(&problem);
        }
        return EXIT_CONFIG.into();
    }
    let runtime = match sentinel_server::runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match telemetry::init(&config) {
            Ok(telemetry) => serve(config, telemetry).await,
            Err(error) => {
                print_error(&error.to_string());
                ExitCode::FAILURE
            }
        }
    });
    // Remaining tasks end here, a child Redis with its task.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Serves until a signal; then drains, within its time limits.
async fn serve(config: Config, telemetry: Telemetry) -> ExitCode {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    let listener = match sentinel_server::bind(config.listen) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %config.listen, %error, "cannot listen");
            return EXIT_ADDRESS.into();
        }
    };

    let limit = config.drain_delay + config.drain_grace + STOP_MARGIN;
    let shutdown = CancellationToken::new();
    let mut running = std::pin::pin!(sentinel_server::run(config, listener, shutdown.clone()));
    let ended = tokio::select! {
        result = &mut running => Some(result),
        name = next_signal(&mut terminate, &mut interrupt) => {
            tracing::info!(signal = name, "draining; a second signal stops at once");
            shutdown.cancel();
            tokio::select! {
                result = &mut running => Some(result),
                _ = next_signal(&mut terminate, &mut interrupt) => {
                    tracing::warn!("stopped at once by a second signal");
                    None
                }
                () = tokio::time::sleep(limit) => {
                    tracing::warn!(?limit, "stopped before the drain was over");
                    None
                }
            }
        }
    };
    let code = match ended {
        Some(Ok(())) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            tracing::error!(%error, "the server failed");
            error.exit_code().into()
        }
        None => ExitCode::FAILURE,
    };
    telemetry.shutdown().await;
    code
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Prints an error before the log is set up; a closed standard error must not panic.
fn print_error(problem: &str) {
    let _ = writeln!(std::io::stderr(), "sentinel-server: {problem}");
}
