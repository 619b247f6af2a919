//! The client of the checkout: plain, or with TLS and credentials if SENTINEL_TLS_CA is set. Reads the environment and
//! the files that it names.

use std::{env, fs};

use inventory_sentinel_client::Sentinel;

use crate::checkout::{CALL_DEADLINE, Failure};

// region connect
/// One client for the whole process: it is cheap to clone, keeps its connections alive, and reconnects automatically.
/// It reads a replaced token file again.
pub fn connect(address: &str) -> Result<Sentinel, Failure> {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(ca) = set("SENTINEL_TLS_CA") else {
        return Ok(Sentinel::builder(format!("http://{address}")).deadline(CALL_DEADLINE).connect_lazy()?);
    };
    let mut builder = Sentinel::builder(format!("https://{address}")).deadline(CALL_DEADLINE).tls_ca(fs::read(ca)?);
    if let (Some(certificate), Some(key)) = (set("SENTINEL_CLIENT_CERT"), set("SENTINEL_CLIENT_KEY")) {
        builder = builder.client_certificate(fs::read(certificate)?, fs::read(key)?);
    }
    builder = match (set("SENTINEL_TOKEN_FILE"), set("SENTINEL_TOKEN")) {
        (Some(file), _) => builder.bearer_token_file(file),
        (None, Some(token)) => builder.bearer_token(token),
        (None, None) => builder,
    };
    Ok(builder.connect_lazy()?)
}
// endregion connect
