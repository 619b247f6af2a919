//! Child processes that end with their test. Sends signals by process id, and to nobody else.

use std::{
    path::{Path, PathBuf},
    process::Child,
};

use rustix::process::{Pid, Signal};

/// A child that is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Owned(pub(crate) Child);

impl Owned {
    pub(crate) fn signal(&self, signal: Signal) {
        // It fails if the process has already exited. The test finds that out.
        let _ = rustix::process::kill_process(Pid::from_child(&self.0), signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first of these programs that is in PATH.
pub(crate) fn find(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    names
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("none of {names:?} is in PATH: `make bootstrap` installs one"))
}

/// A binary of this workspace, built in the same profile as the test that runs.
pub(crate) fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("a test is in target/<profile>/deps");
    let binary = folder.join(name);
    assert!(binary.is_file(), "{} is not built: `make test` builds it", binary.display());
    binary
}
