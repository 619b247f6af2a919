//! The connection of a command, with namespace, deadline and form of the output. The only file that connects for the
//! operators' commands.

use std::{error::Error, time::Duration};

use inventory_sentinel_client::{Admin, Builder, ConnectError, GetNamespaceError, Namespace, Sentinel};
use uuid::Uuid;

use crate::{
    config::Settings,
    failure::Failure,
    output::{Output, note},
    refusal::{self, Refusal, Subject},
    security,
    table::shown,
};

/// One connection and the global options.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) sentinel: Sentinel,
    pub(crate) output: Output,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(settings: Settings, output: Output) -> Result<Session, Failure> {
        let sentinel = builder(&settings)?.connect().await.map_err(|error| unreachable(&settings.server, &error))?;
        Ok(Session { settings, sentinel, output })
    }

    /// The operations on the namespace.
    pub(crate) fn namespace(&self) -> Namespace {
        self.sentinel.namespace(&self.settings.namespace)
    }

    /// The operators' operations on the namespace.
    pub(crate) fn admin(&self) -> Admin {
        self.with_options(self.namespace())
    }

    /// The same for slow calls.
    pub(crate) fn patient_admin(&self, default: Duration) -> Admin {
        self.with_options(self.namespace().with_deadline(self.settings.timeout_of_long_call(default)))
    }

    fn with_options(&self, namespace: Namespace) -> Admin {
        let admin = namespace.admin();
        if self.settings.existing_namespace { admin.existing_namespace_only() } else { admin }
    }

    /// The failure of the command for a failed call.
    pub(crate) fn refused(&self, subject: Subject<'_>, error: &impl Refusal) -> Failure {
        refusal::failure(&self.settings, subject, error)
    }

    /// The failure of the command for a failed read without a SKU.
    pub(crate) fn unread(&self, error: &impl Refusal) -> Failure {
        self.refused(Subject::default(), error)
    }

    /// Whether the namespace does not exist yet.
    pub(crate) async fn is_namespace_new(&self) -> Result<bool, Failure> {
        match self.admin().namespace_config().await {
            Ok(_) => Ok(false),
            Err(GetNamespaceError::NamespaceNotFound(_)) => Ok(true),
            Err(error) => Err(self.unread(&error)),
        }
    }

    /// Notes that the whole namespace is paused, which its SKUs do not show.
    pub(crate) async fn note_paused_namespace(&self) {
        if self.admin().namespace_config().await.is_ok_and(|config| config.is_paused) {
            note(&format!("namespace {} is paused: none of its SKUs can be reserved", self.settings.namespace));
        }
    }

    /// Notes that the namespace was created.
    pub(crate) fn note_new_namespace(&self, is_new: bool) {
        if is_new {
            note(&format!("namespace {} was created", self.settings.namespace));
        }
    }
}

/// The client of a command, before it connects.
pub(crate) fn builder(settings: &Settings) -> Result<Builder, Failure> {
    let timeout = settings.timeout();
    settings.security.apply(Sentinel::builder(&settings.server).deadline(timeout).connect_timeout(timeout))
}

/// The identity of a change: the given one, or a new one.
pub(crate) fn identity(named: Option<&str>) -> String {
    named.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The failure to connect, with the next step.
pub(crate) fn unreachable(server: &str, error: &ConnectError) -> Failure {
    match error {
        ConnectError::InvalidUri { .. } => {
            Failure::usage(shown(&error.to_string()), "set --server, for example http://127.0.0.1:50051")
        }
        ConnectError::TlsWithoutHttps { .. } | ConnectError::TokenWithoutTls { .. } => {
            Failure::usage(shown(&error.to_string()), "set --server to the https:// URI of the server")
        }
        ConnectError::InvalidTls { .. } => Failure::usage(
            shown(&error.to_string()),
            "correct the files of --tls-ca, --tls-cert and --tls-key, which are PEM",
        ),
        ConnectError::InvalidToken { .. } | ConnectError::TokenFile { .. } => Failure::usage(
            shown([error.to_string(), causes(error)].join(": ").trim_end_matches(": ")),
            "correct --token-file, SENTINEL_TOKEN_FILE or SENTINEL_TOKEN",
        ),
        _ => {
            let causes = causes(error);
            let (what, next) = match security::handshake_advice(&causes) {
                Some(next) => (format!("no TLS connection to {server}: {causes}"), next),
                None => (
                    format!("no server responds at {server}: {causes}"),
                    "start one with `make run` or `sentinel-server`, or set another one with --server or \
                     SENTINEL_SERVER",
                ),
            };
            Failure::Advised { code: Failure::UNAVAILABLE, what: shown(&what), next: next.to_owned() }
        }
    }
}

/// The causes below an error, each once.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        if !text.contains(&layer) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&layer);
        }
        cause = error.source();
    }
    text
}
