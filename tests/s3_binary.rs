//! The program itself against an S3 server that checks access keys, over a real connection.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

mod support {
    pub(crate) mod service;
    pub(crate) mod tcp;
}
use support::{
    service::{BUCKET, KEY, SECRET},
    tcp::Server,
};

/// One way to call the program; nothing of this machine's environment gets in.
struct Caller<'a> {
    address: String,
    keys: &'a [(&'a str, &'a str)],
    passphrase: &'a str,
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];

impl Caller<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .env_clear()
            .env("LIFEBOAT_REPOSITORY", &self.address)
            .env("LIFEBOAT_PASSWORD", self.passphrase)
            .envs(self.keys.iter().copied())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What it prints when it succeeds.
    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    /// What it prints when it ends with this code.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(!text.contains(SECRET) && !text.contains("panicked"), "{text}");
        text
    }
}

fn caller(server: &Server) -> Caller<'static> {
    let address = format!("s3:http://{}/{BUCKET}/some/prefix", server.address);
    Caller { address, keys: &KEYS, passphrase: "right" }
}

/// Every file below a folder with its bytes.
fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_backed_up_to_s3_comes_back() {
    let server = Server::start();
    let lifeboat = caller(&server);
    let work = tempfile::tempdir().unwrap();
    let source = work.path().canonicalize().unwrap().join("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    let mut noise = vec![0; 3 << 20];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(source.join("noise"), &noise).unwrap();
    std::fs::write(source.join("deep/er/text"), "small").unwrap();
    std::fs::write(source.join("empty"), "").unwrap();
    let from = source.to_str().unwrap();
    lifeboat.does(&["init"]);
    lifeboat.does(&["backup", from]);
    std::fs::write(source.join("deep/second"), "later").unwrap();
    lifeboat.does(&["backup", from]);
    assert_eq!(lifeboat.does(&["snapshots"]).lines().filter(|line| line.contains(from)).count(), 2);
    let target = work.path().join("restored");
    lifeboat.does(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(tree(&target.join(source.strip_prefix("/").unwrap())), tree(&source));
}

#[test]
fn an_account_of_a_bucket_sums_to_what_the_storage_keeps() {
    let server = Server::start();
    let lifeboat = caller(&server);
    lifeboat.does(&["init"]);
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("file"), vec![7; 300_000]).unwrap();
    lifeboat.does(&["backup", work.path().to_str().unwrap()]);
    let kept = || {
        let folder = server._folder.path().join(BUCKET).join("some/prefix");
        tree(&folder).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
    };
    let account = || {
        let out = lifeboat.does(&["usage", "--json"]);
        let summary: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let number = |name: &str| summary[name].as_u64().unwrap();
        assert_eq!(number("fair_share_bytes") + number("fixed_bytes"), number("bucket_bytes"));
        (number("bucket_bytes"), number("foreign_bytes"))
    };
    assert_eq!(account(), (kept(), 0));
    std::fs::write(server._folder.path().join(BUCKET).join("some/prefix/d/stray"), "stray").unwrap();
    assert_eq!(account(), (kept(), 5));
    assert!(lifeboat.fails(&["usage", "--reconcile"], 5).contains("not explained"));
    assert!(lifeboat.does(&["status"]).starts_with("nobody is overdue: 1 client"));
}

#[test]
fn each_way_to_be_locked_out_has_its_exit_code_and_its_remedy() {
    let server = Server::start();
    let lifeboat = caller(&server);
    lifeboat.does(&["init"]);
    lifeboat.does(&["snapshots"]);
    let secret = Caller { keys: &[KEYS[0], ("AWS_SECRET_ACCESS_KEY", "wrong")], ..caller(&server) };
    assert!(secret.fails(&["snapshots"], 1).contains("AWS_SECRET_ACCESS_KEY"));
    assert!(secret.fails(&["init"], 1).contains("credentials"));
    let key = Caller { keys: &[("AWS_ACCESS_KEY_ID", "nobody"), KEYS[1]], ..caller(&server) };
    assert!(key.fails(&["snapshots"], 1).contains("AWS_ACCESS_KEY_ID"));
    let none = Caller { keys: &[], ..caller(&server) };
    assert!(none.fails(&["snapshots"], 1).contains("no credentials"));
    let bucket = Caller { address: format!("s3:http://{}/nowhere", server.address), ..caller(&server) };
    for command in [&["snapshots"][..], &["init"]] {
        assert!(bucket.fails(command, 10).contains("bucket"));
    }
    let empty = Caller { address: format!("s3:http://{}/{BUCKET}/empty", server.address), ..caller(&server) };
    empty.fails(&["snapshots"], 10);
    let passphrase = Caller { passphrase: "wrong", ..caller(&server) };
    passphrase.fails(&["snapshots"], 12);
}
