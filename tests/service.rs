//! The program as a service: what the service manager and the journal are told. A real systemd hears it in
//! `.ci/systemd`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// The program with a repository in a folder.
fn lifeboat(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.env_clear().env("HOME", folder).env("LIFEBOAT_PASSWORD", "correct horse").current_dir(folder);
    command.args(["-r", "repository"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn world() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/one"), "first").unwrap();
    assert!(lifeboat(folder.path(), &["init"]).status().unwrap().success());
    folder
}

/// All lines that came, without the text of the status.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length) = socket.recv(&mut buffer) {
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        heard.extend(text.lines().map(str::to_owned));
    }
    heard
}

#[test]
fn systemd_hears_that_it_is_ready_that_it_moves_and_that_it_stops() {
    let world = world();
    let name = format!("lifeboat-test-{}", std::process::id());
    let path = world.path().join("socket");
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            format!("@{name}"),
        ),
    ];
    for (socket, address) in sockets {
        // Long enough for a look before the repository is open, on the quickest machine.
        let slow = ["--password-command", "sleep 0.5; echo correct horse", "backup", "src"];
        let mut backup = lifeboat(world.path(), &slow);
        backup.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "7200000000");
        assert!(backup.status().unwrap().success());
        let heard = heard(&socket);
        let at = |line: &str| heard.iter().position(|heard| heard == line);
        assert!(at("READY=1") < at("STOPPING=1") && at("READY=1").is_some(), "{heard:?}");
        assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1, "{heard:?}");
        assert!(at("STATUS=done") < at("STOPPING=1"), "{heard:?}");
        assert!(heard.iter().any(|line| line == "EXTEND_TIMEOUT_USEC=7200000000"), "{heard:?}");
        assert!(!heard.iter().any(|line| line.starts_with("WATCHDOG_USEC")), "{heard:?}");
    }
}

#[test]
fn a_failure_is_never_ready_and_its_reason_is_the_status() {
    let world = world();
    let path = world.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut backup = lifeboat(world.path(), &["--retry-for", "2h", "backup", "src"]);
    backup.env("NOTIFY_SOCKET", &path).env("LIFEBOAT_PASSWORD", "wrong").env("WATCHDOG_USEC", "7200000000");
    assert_eq!(backup.stderr(Stdio::null()).status().unwrap().code(), Some(12));
    let heard = heard(&socket);
    assert!(!heard.iter().any(|line| line == "READY=1"), "{heard:?}");
    assert!(
        heard.iter().any(|line| line.starts_with("STATUS=") && line.contains("passphrase is wrong")),
        "{heard:?}"
    );
    // Calls that may be tried for so long need a patient watchdog.
    assert!(heard.iter().any(|line| line == "WATCHDOG_USEC=21600000000"), "{heard:?}");
}

#[test]
fn lines_for_the_journal_have_levels_and_others_do_not() {
    let world = world();
    let said = |backup: &mut Command, is_journal: bool| {
        let log = fs::File::create(world.path().join("log")).unwrap();
        let status = log.metadata().unwrap();
        let stream = format!("{}:{}", status.dev(), status.ino() + u64::from(!is_journal));
        backup.env("JOURNAL_STREAM", stream).stderr(log).status().unwrap();
        fs::read_to_string(world.path().join("log")).unwrap()
    };
    let text = said(&mut lifeboat(world.path(), &["backup", "src", "gone"]), true);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("<6>backing up 2 sources to "), "{text}");
    assert!(lines[1].starts_with("<4>/") && lines[1].contains("gone: "), "{text}");
    assert!(lines[2].starts_with("<3>1 entry could not be read. "), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    let text = said(&mut lifeboat(world.path(), &["backup", "src", "gone"]), false);
    assert!(text.lines().all(|line| line.starts_with("lifeboat: ")) && text.lines().count() == 2, "{text}");
}
