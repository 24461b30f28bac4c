//! Profiles: what a machine always says, in a file; who wins; what `config` tells of it.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A user's home with a source, a repository and a profile.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(more: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.path("src")).unwrap();
        fs::write(world.path("src/one"), "first").unwrap();
        fs::write(world.path("src/two.tmp"), "second").unwrap();
        fs::write(world.path("passphrase"), "correct horse\n").unwrap();
        fs::set_permissions(world.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
        world.write(&format!(
            "[profile.default]\nrepository = {repo:?}\npassword-file = {file:?}\nsources = [{src:?}]\n\
             exclude = [\"*.tmp\"]\ntags = [\"nightly\"]\nhost = \"web1\"\n{more}",
            repo = world.path("repo"),
            file = world.path("passphrase"),
            src = world.path("src"),
        ));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, text: &str) {
        fs::create_dir_all(self.path("config/lifeboat")).unwrap();
        fs::write(self.path("config/lifeboat/config.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("XDG_CONFIG_HOME", self.path("config")).env("HOME", self.path("home"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ends(&self, command: &mut Command, code: i32) -> (String, String) {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{command:?}: {out}{err}");
        (out, err)
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        self.ends(&mut self.command(arguments), 0).0
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        self.ends(&mut self.command(arguments), code).1
    }

    #[track_caller]
    fn messages(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ends(&mut self.command(arguments), 0).0;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn the_default_profile_needs_no_flags_at_all() {
    let world = World::new("max-age = \"26h\"\n");
    world.does(&["init"]);
    let said = world.does(&["backup"]);
    assert!(said.contains("saved snapshot") && said.contains("lifeboat --profile default restore"), "{said}");
    let listed = world.does(&["ls", "latest"]);
    assert!(listed.contains("src/one") && !listed.contains("two.tmp"), "{listed}");
    let snapshot = &world.messages(&["snapshots", "--json"])[0];
    assert_eq!((snapshot["host"].as_str(), &snapshot["tags"][0]), (Some("web1"), &Value::from("nightly")));
}

#[test]
fn a_repository_named_by_hand_takes_nothing_from_a_profile_that_nobody_named() {
    let world = World::new("");
    world.does(&["init"]);
    assert!(world.fails(&["-r", world.path("repo").to_str().unwrap(), "snapshots"], 12).contains("unlock"));
    world.ends(world.command(&["snapshots"]).env("LIFEBOAT_REPOSITORY", world.path("repo")), 12);
    world.does(&["-r", world.path("repo").to_str().unwrap(), "--profile", "default", "snapshots"]);
}

#[test]
fn flags_beat_the_environment_which_beats_the_profile() {
    let world = World::new("limit-upload = \"10M\"\n");
    let mut command =
        world.command(&["--profile", "default", "--limit-upload", "20M", "config", "show", "--json"]);
    let command = command.env("LIFEBOAT_REPOSITORY", "/elsewhere").env("LIFEBOAT_PASSWORD", "hush");
    let text = world.ends(command, 0).0;
    assert!(!text.contains("hush"), "{text}");
    let messages: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let setting = |key: &str| {
        let found = messages.iter().find(|message| message["key"] == key).unwrap();
        (found["values"][0].as_str().unwrap().to_owned(), found["origin"].as_str().unwrap().to_owned())
    };
    let file = world.path("config/lifeboat/config.toml");
    let line = |number: u32| format!("{}:{number}", file.display());
    assert_eq!(setting("limit-upload"), ("20M".into(), "--limit-upload".into()));
    assert_eq!(setting("repository"), ("/elsewhere".into(), "LIFEBOAT_REPOSITORY".into()));
    assert_eq!(setting("password"), ("(hidden)".into(), "LIFEBOAT_PASSWORD".into()));
    assert_eq!(setting("exclude"), ("*.tmp".into(), line(5)));
    assert_eq!(setting("host"), ("web1".into(), line(7)));
    assert_eq!(setting("compression"), ("auto".into(), "default".into()));
    let shown = world.does(&["config", "show"]);
    assert!(shown.contains("profile default in") && shown.contains("nightly"), "{shown}");
}

#[test]
fn config_show_shows_no_secret_wherever_it_stands() {
    let world = World::new("");
    let file = fs::read_to_string(world.path("config/lifeboat/config.toml")).unwrap();
    let key = file.lines().find(|line| line.starts_with("password-file")).unwrap();
    for (line, address) in [
        ("password-command = \"VAULT_TOKEN=hunter cat /x\"", "s3://b/p"),
        ("password-command = \"TOKEN='a hunter' cat\"", "s3:https://u:hunter@h/b"),
        ("password-command = \"pass show hunter\"", "s3:https://h/b?X-Amz-Signature=hunter"),
        ("options = { proxy_url = \"http://u:hunter@proxy\", region = \"x\" }", "s3://b/p"),
        ("options = { endpoint = \"https://u:hunter@h\" }", "https://h/b?sig=hunter"),
        ("options = { sse_customer_key_base64 = \"hunter\" }", "s3://b/p"),
    ] {
        let file = file.replace(world.path("repo").to_str().unwrap(), address).replace(key, line);
        world.write(&file);
        for arguments in [&["config", "show"][..], &["config", "show", "--json"]] {
            let said = world.does(arguments);
            assert!(said.contains("hidden") && !said.contains("hunter"), "{line}: {said}");
        }
    }
    let said =
        world.ends(world.command(&["config", "show"]).env("LIFEBOAT_PASSWORD_COMMAND", "A=hunter cat"), 0);
    assert!(said.0.contains("LIFEBOAT_PASSWORD_COMMAND") && !said.0.contains("hunter"), "{}", said.0);
    world.write(&file.replace("/repo\"", "/re@po\""));
    assert!(world.does(&["config", "show"]).contains("/re@po"));
}

#[test]
fn a_variable_of_the_storage_beats_the_options_of_the_profile_and_a_flag_beats_it() {
    let world =
        World::new("options = { region = \"profile\", endpoint = \"http://profile\", imds = \"true\" }\n");
    let file = fs::read_to_string(world.path("config/lifeboat/config.toml")).unwrap();
    world.write(&file.replace(world.path("repo").to_str().unwrap(), "s3://b/p"));
    let told = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = world.command(arguments);
        command.envs(variables.iter().copied()).args(["config", "show", "--json"]);
        let text = world.ends(&mut command, 0).0;
        assert!(!text.contains("hush"), "{text}");
        let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let options = messages.filter(|message| message["key"] == "options");
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let mut all: Vec<String> = options
            .flat_map(|it| it["values"].as_array().unwrap().iter().map(word).collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        all
    };
    assert_eq!(told(&[], &[("AWS_REGION", "")]), ["endpoint=http://profile", "imds=true", "region=profile"]);
    let variables = [
        ("AWS_DEFAULT_REGION", "here"),
        ("AWS_ENDPOINT_URL_S3", "http://here"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", "hush"),
        ("AWS_NOT_FOR_US", "hush"),
    ];
    let hidden = ["secret_access_key", "sse_customer_key_base64"].map(|name| format!("{name}=(hidden)"));
    let expected = |known: &[&str]| {
        let mut all: Vec<String> =
            known.iter().map(|text| (*text).to_owned()).chain(hidden.clone()).collect();
        all.sort_unstable();
        all
    };
    let (region, endpoint) = ("default_region=here", "endpoint_url_s3=http://here");
    assert_eq!(told(&[], &variables), expected(&[region, endpoint, "imds=true"]));
    assert_eq!(told(&["-o", "region=flag"], &variables), expected(&["region=flag", endpoint]));
}

#[test]
fn what_a_backup_is_told_replaces_what_the_profile_says() {
    let world = World::new("");
    world.does(&["init"]);
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/x"), "").unwrap();
    world.does(&["backup", "other", "--tag", "by-hand", "--host", "h2"]);
    let snapshot = &world.messages(&["snapshots", "--json"])[0];
    assert_eq!((snapshot["host"].as_str(), &snapshot["tags"]), (Some("h2"), &Value::from(vec!["by-hand"])));
    assert!(!world.does(&["ls", "latest"]).contains("src"));
    let mut stream = world.command(&["backup", "--stdin"]);
    world.ends(&mut stream, 0);
    assert!(world.does(&["ls", "latest"]).contains("stdin"));
}

#[test]
fn what_is_wrong_with_a_profile_is_said_before_anything_is_done() {
    let world = World::new("soruces = []\n");
    let said = world.fails(&["backup"], 2);
    assert!(said.contains("config.toml:8: unknown key `soruces`") && said.contains("`sources`?"), "{said}");
    let said = world.fails(&["--profile", "web", "backup"], 2);
    assert!(said.contains("no [profile.web]") && said.contains("There is default"), "{said}");
    assert!(world.fails(&["--config", "nowhere", "backup"], 2).contains("no file nowhere"));
    fs::set_permissions(world.path("config/lifeboat/config.toml"), fs::Permissions::from_mode(0o666))
        .unwrap();
    assert!(world.fails(&["backup"], 2).contains("chmod o-w"));
    // Neither needs a repository.
    world.does(&["completions", "bash"]);
}

#[test]
fn config_check_says_what_works_and_what_does_not() {
    let world = World::new("\n[profile.other]\ncolour = 1\n");
    let said = world.ends(&mut world.command(&["config", "check"]), 10).0;
    assert!(said.contains("ok       source") && said.contains("failed   repository"), "{said}");
    assert!(said.contains("failed   profile other: ") && said.contains("unknown key `colour`"), "{said}");
    world.write(
        &fs::read_to_string(world.path("config/lifeboat/config.toml")).unwrap().replace("colour = 1", ""),
    );
    world.does(&["init"]);
    let said = world.does(&["config", "check"]);
    assert!(said.contains("ok       key: unlocked with the role owner"), "{said}");
    fs::set_permissions(world.path("passphrase"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_dir_all(world.path("src")).unwrap();
    let (said, error) = world.ends(&mut world.command(&["config", "check"]), 1);
    assert!(said.contains("failed   source") && said.contains("chmod 600"), "{said}");
    assert!(error.contains("2 checks of 7 failed"), "{error}");
    fs::create_dir(world.path("src")).unwrap();
    let file = world.path("config/lifeboat/config.toml");
    let text = fs::read_to_string(&file).unwrap();
    for (from, to, code, wrong) in [
        ("/src\"", "/repo/keys\"", 2, "it is in the repository"),
        ("sources", "cache-dir = \"/proc/none\"\nsources", 1, "failed   cache /proc/none: it cannot be used"),
        (
            "sources",
            "s3-credentials = \"/none\"\nsources",
            2,
            "failed   S3 credentials /none: could not read",
        ),
    ] {
        fs::set_permissions(world.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
        world.write(&text.replacen(from, to, 1));
        let said = world.ends(&mut world.command(&["config", "check"]), code).0;
        assert!(said.contains(wrong), "{said}");
    }
    world.write(&text);
    fs::write(world.path("passphrase"), "wrong\n").unwrap();
    world.ends(&mut world.command(&["config", "check"]), 12);
}

#[test]
fn a_profile_names_the_source_of_a_copy_and_flags_and_variables_beat_it() {
    let world = World::new("");
    world.does(&["init"]);
    world.does(&["backup"]);
    world.write(&format!(
        "[profile.offsite]\nrepository = {target:?}\npassword-file = {file:?}\nfrom-repository = {source:?}\n\
         from-password-file = {file:?}\n",
        target = world.path("offsite"),
        source = world.path("repo"),
        file = world.path("passphrase"),
    ));
    world.does(&["--profile", "offsite", "init"]);
    let copied = |out: &str| out.contains("1 snapshot copied");
    assert!(copied(&world.does(&["--profile", "offsite", "copy"])));
    let other = ["--profile", "offsite", "copy", "--from-repository", "none"];
    assert!(world.fails(&other, 10).contains("none"));
    let mut variable = world.command(&["--profile", "offsite", "copy"]);
    assert!(world.ends(variable.env("LIFEBOAT_FROM_REPOSITORY", "nowhere"), 10).1.contains("nowhere"));
    // A passphrase of the environment for the source beats that of the profile; one for the target does not.
    let mut wrong = world.command(&["--profile", "offsite", "copy"]);
    world.ends(wrong.env("LIFEBOAT_FROM_PASSWORD", "wrong"), 12);
    let shown = world.does(&["--profile", "offsite", "config", "show"]);
    assert!(shown.contains("from-repository") && shown.contains("from-password-file"), "{shown}");
    let both = "from-repository = \"/a\"\nfrom-repository-file = \"/b\"\n";
    world.write(&format!("[profile.offsite]\n{both}"));
    assert!(world.fails(&["--profile", "offsite", "copy"], 2).contains("exclude each other"));
}
