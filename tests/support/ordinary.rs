//! Runs a test as a user who is not root.

use std::{os::unix::process::CommandExt, process::Command};

/// A number that belongs to nobody.
const ORDINARY: u32 = 23_456;

/// Runs the test that is called so once more, as an ordinary user, if this is root. Then there is nothing left to do.
pub(crate) fn is_done_as_ordinary_user(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["--exact", test, "--nocapture"]);
    let output = this.uid(ORDINARY).gid(ORDINARY).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    true
}
