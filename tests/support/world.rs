//! The program in a folder of its own, as users and scripts run it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

pub(crate) const PASSPHRASE: &str = "correct-horse-42";

/// A folder with a source, and the program with nothing of this machine's environment.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.path("src/deep")).unwrap();
        fs::write(world.path("src/one"), "first").unwrap();
        fs::write(world.path("src/deep/two"), "second").unwrap();
        world
    }

    pub(crate) fn with_repository() -> Self {
        let world = Self::new();
        world.does(&["init", "--recovery-file", "words"]);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("TZ", "UTC").env("HOME", self.path("home")).current_dir(self.folder.path());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.env("LIFEBOAT_REPOSITORY", self.path("repo")).env("LIFEBOAT_PASSWORD", PASSPHRASE);
        command
    }

    #[track_caller]
    pub(crate) fn ends(&self, command: &mut Command, code: i32) -> (String, String) {
        let output = command.output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {out}{err}");
        assert!(!err.contains("panicked"), "{err}");
        (out, err)
    }

    #[track_caller]
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        self.ends(&mut self.command(arguments), 0).0
    }

    /// Makes a backup key, in the domain of this name or in one of its own.
    #[track_caller]
    pub(crate) fn adds_client(&self, label: &str, domain: Option<&str>, access: &str) {
        let mut arguments =
            vec!["key", "add", "--role", "backup", "--label", label, "--access-key-out", access];
        arguments.extend(domain.into_iter().flat_map(|domain| ["--domain", domain]));
        self.does(&arguments);
    }

    /// What it says when it ends with this code.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        self.ends(&mut self.command(arguments), code).1
    }

    /// The messages of a command under `--json`, without those that say how far it is: a slow machine has time for some.
    #[track_caller]
    pub(crate) fn messages(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let mut messages = objects(&self.does(&arguments));
        messages.retain(|message| message["message_type"] != "status");
        messages
    }

    pub(crate) fn snapshots(&self) -> usize {
        let messages = self.messages(&["snapshots"]);
        messages.iter().filter(|message| message["message_type"] == "snapshot").count()
    }
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            let value = value.unwrap_or_default();
            assert!(value["message_type"].is_string(), "{line}");
            value
        })
        .collect()
}

/// Every file below a folder with its bytes.
pub(crate) fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push((path.clone(), fs::read(path).unwrap()))
            }
        }
    }
    found.sort();
    found
}
