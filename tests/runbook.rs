//! `docs/drill-runbook.md`: its commands, exactly as they stand there, on a machine that has nothing: an empty
//! root with the program and the libraries that it is linked with, the recovery words, and a repository.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

mod support {
    pub(crate) mod service;
    pub(crate) mod tcp;
}
use support::{
    service::{BUCKET, KEY, SECRET},
    tcp::Server,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lifeboat");

/// Makes a repository with a backup from outside, and leaves the words where the runbook has them.
fn prepare(address: &str, root: &Path) {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("data/deep")).unwrap();
    fs::write(outside.path().join("data/letter"), "hello").unwrap();
    fs::write(outside.path().join("data/deep/big"), vec![7; 3 << 20]).unwrap();
    let words = root.join("words");
    for arguments in [&["init", "--recovery-file", words.to_str().unwrap()][..], &["backup", "data"]] {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("LIFEBOAT_REPOSITORY", address).env("LIFEBOAT_PASSWORD", "forgotten");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        let output = command.args(arguments).current_dir(outside.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The program and what it is linked with.
fn furnish(root: &Path) {
    fs::copy(PROGRAM, root.join("lifeboat")).unwrap();
    let output = Command::new("ldd").arg(PROGRAM).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for library in libraries {
        let inside = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(library, inside).unwrap();
    }
}

/// The commands of the runbook, each as its words.
fn commands() -> Vec<Vec<String>> {
    let document = fs::read_to_string("docs/drill-runbook.md").unwrap();
    let blocks = document.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let commands: Vec<Vec<String>> = blocks
        .flat_map(str::lines)
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    // This is no shell.
    let plain = |word: &String| !word.contains(['"', '\'', '$', '|', ';', '&', '*', '\\', '<', '>', '#']);
    assert!(commands.iter().flatten().all(plain), "{commands:?}");
    commands
}

/// A clean root. `network` says whether it sees the loopback of this machine.
struct Bare {
    root: PathBuf,
    network: bool,
    environment: Vec<(String, String)>,
}

impl Bare {
    /// Runs one command there: its exit code and what it printed.
    fn run(&self, words: &[String]) -> (Option<i32>, String) {
        assert_eq!(words[0], "lifeboat");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--ipc", "--uts"]);
        if !self.network {
            command.arg("--net");
        }
        command.arg("chroot").arg(&self.root).arg("/lifeboat").args(&words[1..]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        let output = command.envs(self.environment.iter().cloned()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    /// Follows the runbook from its first command to the last; `instead` are values of its variables.
    fn follow(&mut self, instead: &[(&str, &str)]) -> Vec<String> {
        let mut said = Vec::new();
        for words in commands() {
            if words[0] == "export" {
                let (name, value) = words[1].split_once('=').unwrap();
                let other = instead.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
                self.environment.push((name.to_owned(), other.unwrap_or(value).to_owned()));
                continue;
            }
            let (code, text) = self.run(&words);
            assert_eq!(code, Some(0), "{words:?}: {text}");
            said.push(text);
        }
        said
    }
}

fn check(said: &[String], root: &Path) {
    let starts = |start: &str| said.iter().filter(|text| text.starts_with(start)).count();
    assert_eq!((starts("PASS: 1 client: 2 files"), starts("VALID: ")), (1, 1), "{said:?}");
    assert!(said.last().unwrap().contains("pass"), "{said:?}");
    assert!(!root.join("drill").try_exists().unwrap(), "what was restored is gone");
}

#[test]
fn the_runbook_works_on_a_bare_machine_with_program_address_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    prepare(root.join("repository").to_str().unwrap(), &root);
    furnish(&root);
    let mut bare = Bare { root: root.clone(), network: false, environment: Vec::new() };
    let said = bare.follow(&[]);
    check(&said, &root);
    // The same page on the day when the backup is bad.
    let mut folders = vec![root.join("repository/d")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if entry.path().to_str().unwrap().contains("/packs/d/") => {
                    fs::remove_file(entry.path()).unwrap();
                }
                false => {}
            }
        }
    }
    let drill = commands().into_iter().find(|words| words.iter().any(|word| word == "run")).unwrap();
    let drill: Vec<String> =
        drill.into_iter().map(|word| word.replace("/report.json", "/second.json")).collect();
    let (code, text) = bare.run(&drill);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.starts_with("FAIL: "), "{text}");
}

#[test]
fn the_runbook_works_with_a_bucket() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let address = format!("s3:http://{}/{BUCKET}/customer", server.address);
    prepare(&address, folder.path());
    furnish(folder.path());
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let environment = keys.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut bare = Bare { root: folder.path().to_owned(), network: true, environment };
    let said = bare.follow(&[("LIFEBOAT_REPOSITORY", &address)]);
    check(&said, folder.path());
    // Nor does an encrypted connection need anything that a bare machine may lack: it gets as far as to knock.
    bare.environment.push(("LIFEBOAT_REPOSITORY".to_owned(), "s3:https://127.0.0.1:1/bucket".to_owned()));
    let words = ["lifeboat", "--retry-for", "0s", "--recovery-words-file", "/words", "snapshots"];
    let (code, text) = bare.run(&words.map(str::to_owned));
    assert_eq!(code, Some(75), "{text}");
}
