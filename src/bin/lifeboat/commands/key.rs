//! `key`: who may do what with a repository, and what opens it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use lifeboat::{
    clock::SystemClock,
    error::{Error, ErrorKind, Result},
    format::{
        role::Role,
        slot::{AccessKey, KdfParameters},
    },
    limits::{REVOKED_FOLDER_MAX, SLOTS_READ_MAX, SLOTS_TRIED_MAX},
    ops::key::{
        self, AddOptions, Added, By, LastGood, Listed, Lost, Part, PolicyOptions, RecoverOptions,
        RevokeOptions, Unlocks,
    },
    report::{
        json,
        table::{Side, Table},
        text, time,
    },
    repository::{Repository, records::Dropped},
    store::Location,
};
use serde_json::{Value, json};

use super::init::{NewFile, write_new};
use crate::context::Context;

const AFTER: &str = "\
Roles: backup (clients: add to their own domain, read nothing), audit (read names and sizes), maintain (audit, and
remove), restore (read everything), owner (everything).

Examples:
  lifeboat key list
  lifeboat key add --role backup --label web1 --access-key-out web1.key
  lifeboat key add --role restore --label drills --new-password-file drills.txt
  lifeboat key revoke web1
  lifeboat key words --verify
  lifeboat key recover --recovery-words-file words.txt";

/// Arguments of `key`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// List identities, their roles and what unlocks them
    List,
    /// Add an identity; prints the storage policy that goes with its role
    Add(Add),
    /// Revoke an identity, and remove what unlocks it
    Revoke(Revoke),
    /// Begin a new key epoch, so that what a stolen key has learned does not open what is stored from now on; or
    /// put a new key in the place of NAME
    Rotate(Rotate),
    /// Certify that several machines use a key, or several backups at once
    Share(Share),
    /// Change the passphrase of the identity that unlocks the repository (or of --slot); add one if it has none
    Passphrase(Passphrase),
    /// Show the 24 recovery words, or check a paper copy of them
    Words(Words),
    /// Make a new owner slot from the recovery words
    Recover(Recover),
    /// Write the certificate of an identity, signed by the root, for those who check reports
    ExportCertificate(Export),
}

impl Key {
    /// Whether it writes nothing to the repository.
    pub(crate) const fn only_reads(&self) -> bool {
        use KeyCommand as K;
        matches!(self.command, K::List | K::Words(_) | K::ExportCertificate(_))
    }
}

/// A role.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArgument {
    /// Clients: add to their own domain, read nothing
    Backup,
    /// Auditors: read names and sizes
    Audit,
    /// The prune host: as audit, and removes
    Maintain,
    /// Technicians: read everything
    Restore,
    /// The vault drawer: everything
    Owner,
}

/// What will unlock an identity.
#[derive(Debug, Args)]
struct New {
    /// Make an access key and write it to this new file (mode 0600)
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_file")]
    access_key_out: Option<PathBuf>,
    /// Read the new passphrase from the first line of a file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// Arguments of `key add`.
#[derive(Debug, Args)]
struct Add {
    /// What it may do
    #[arg(long, value_enum)]
    role: RoleArgument,
    /// Its name for people, such as that of the machine
    #[arg(long)]
    label: String,
    /// Back up to the domain of this name, shared with others who do [default: one of its own]
    #[arg(long)]
    domain: Option<String>,
    /// Several machines will use it
    #[arg(long)]
    shared: bool,
    #[command(flatten)]
    new: New,
}

/// Arguments of `key revoke`.
#[derive(Debug, Args)]
struct Revoke {
    /// Its label, or the first 8 digits of its identity
    who: String,
    /// The number of its last snapshot that counts; later ones may be a thief's [default: all count]
    #[arg(long, value_name = "SEQUENCE")]
    last_good: Option<u64>,
}

const AFTER_ROTATE: &str = "\
Without NAME it begins a new epoch: backups seal to it from their next run on. The keys with the roles audit, maintain and
restore do not hold it; each has to be renewed with `key rotate NAME` to read what is stored from then on. With NAME
that key is revoked, and a new one takes its role, label and domain.

What it cannot do: what was stored before stays readable to whoever has read the old keys and can read the bucket, also where
new snapshots use it again; names of chunks and the index are not sealed by epochs; and the root is never rotated: if the
recovery words or an owner's key are out, only a new repository helps. A new backup key stores again what it cannot
borrow: what nobody has verified with `check --read-data`. Change the credentials of the storage too.

When a restore, audit or maintain key was stolen:
  lifeboat key revoke drills
  lifeboat key rotate
  lifeboat key rotate prune-host --access-key-out prune-host.key
When a machine was stolen:
  lifeboat key rotate web1 --access-key-out web1.key";

/// Arguments of `key rotate`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_ROTATE)]
struct Rotate {
    /// The key that a new one is to replace: its label, or the first 8 digits of its identity
    who: Option<String>,
    /// The number of the last snapshot of the old key that counts; later ones may be a thief's [default: all count]
    #[arg(long, value_name = "SEQUENCE", requires = "who")]
    last_good: Option<u64>,
    #[command(flatten)]
    new: New,
}

/// Arguments of `key share`.
#[derive(Debug, Args)]
struct Share {
    /// Its label, or the first 8 digits of its identity
    who: String,
}

/// Arguments of `key passphrase`.
#[derive(Debug, Args)]
struct Passphrase {
    /// Read the new passphrase from the first line of a file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// Arguments of `key words`.
#[derive(Debug, Args)]
struct Words {
    /// Check a paper copy: asks for the words, and shows none
    #[arg(long)]
    verify: bool,
    /// Check the words in this file
    #[arg(long, value_name = "FILE", requires = "verify")]
    words_file: Option<PathBuf>,
    /// Write the words to this new file (mode 0600) and show none
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    recovery_file: Option<PathBuf>,
}

/// Arguments of `key recover`.
#[derive(Debug, Args)]
struct Recover {
    /// Rebuild a lost config and registry too
    #[arg(long)]
    rebuild_config: bool,
    #[command(flatten)]
    new: New,
}

/// Arguments of `key export-certificate`.
#[derive(Debug, Args)]
struct Export {
    /// Its label, or the first 8 digits of its identity
    who: String,
    /// Write it to this new file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Key, context: &Context<'_>) -> Result<()> {
    match &arguments.command {
        KeyCommand::List => list(context),
        KeyCommand::Add(arguments) => add(arguments, context),
        KeyCommand::Revoke(arguments) => revoke(arguments, context),
        KeyCommand::Rotate(arguments) => rotate(arguments, context),
        KeyCommand::Share(arguments) => share(arguments, context),
        KeyCommand::Passphrase(arguments) => passphrase(arguments, context),
        KeyCommand::Words(arguments) => words(arguments, context),
        KeyCommand::Recover(arguments) => recover(arguments, context),
        KeyCommand::ExportCertificate(arguments) => export(arguments, context),
    }
}

fn list(context: &Context<'_>) -> Result<()> {
    let listed = key::list(&context.open()?)?;
    context.end_display();
    let header = ["Label", "Role", "Identity", "Domain", "Created", "Unlocked by", "State"];
    let mut table = Table::new(&header.map(|name| (name, Side::Left)));
    for known in &listed {
        let Listed { identity, label, role, domain, created, shared, revoked, slots } = known;
        let unlocks: Vec<&str> = slots.iter().map(|slot| unlocks_name(slot.unlocks)).collect();
        let state = match (revoked, role, shared) {
            (Some(time), ..) => format!("revoked {}", time::show(*time, &context.zone)),
            (None, None, _) => "not certified".to_owned(),
            (None, _, true) => "shared".to_owned(),
            _ => String::new(),
        };
        table.row(vec![
            text::shown(label.as_bytes()),
            role.map_or("", Role::name).to_owned(),
            identity.short(),
            text::shown(domain.as_deref().unwrap_or_default().as_bytes()),
            created.map(|created| time::show(created, &context.zone)).unwrap_or_default(),
            unlocks.join(","),
            state,
        ]);
        let slots: Vec<Value> = slots
            .iter()
            .map(|slot| json!({ "slot": slot.name, "unlocks": unlocks_name(slot.unlocks) }))
            .collect();
        context.output.message(&json::message(
            "key",
            json!({
                "identity": identity.to_string(),
                "label": label,
                "role": role.map(Role::name),
                "domain": domain,
                "created": created.map(time::rfc3339),
                "shared": shared,
                "revoked": revoked.map(time::rfc3339),
                "slots": slots,
            }),
        ));
    }
    for line in table.lines(context.output.width()) {
        context.output.say(&line);
    }
    context.output.message(&json::message("summary", json!({ "keys": listed.len() })));
    Ok(())
}

const fn unlocks_name(unlocks: Unlocks) -> &'static str {
    match unlocks {
        Unlocks::Passphrase => "passphrase",
        Unlocks::AccessKey => "access key",
        Unlocks::Damaged => "damaged",
        Unlocks::Unreadable => "unreadable",
    }
}

impl New {
    /// What unlocks the new identity, and the file that an access key goes to.
    fn unlock(&self, context: &Context<'_>) -> Result<(By, Option<NewFile>)> {
        if let Some(path) = &self.access_key_out {
            return Ok((By::AccessKey, Some(NewFile::create(path)?)));
        }
        let passphrase = context.credentials().changed_passphrase(self.new_password_file.as_deref())?;
        Ok((By::Passphrase(passphrase), None))
    }
}

/// Writes an access key to its file; without one the file is removed.
fn keep<T>(result: Result<T>, key: impl Fn(&T) -> Option<&AccessKey>, file: Option<NewFile>) -> Result<T> {
    match (result, file) {
        (Ok(done), Some(file)) => match key(&done) {
            Some(key) => file.fill(&key.text()).map(|()| done).map_err(|e| {
                e.with_remedy(
                    "The key was made, and nobody holds it: revoke it (`lifeboat key list` shows its label), and \
                     make another one in a place that has space",
                )
            }),
            None => Ok(done),
        },
        (Err(error), Some(file)) => {
            file.remove();
            Err(error)
        }
        (result, None) => result,
    }
}

fn add(arguments: &Add, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let repository = context.open_at(&location)?;
    let (unlock, file) = arguments.new.unlock(context)?;
    let role = match arguments.role {
        RoleArgument::Backup => Role::Backup,
        RoleArgument::Audit => Role::Audit,
        RoleArgument::Maintain => Role::Maintain,
        RoleArgument::Restore => Role::Restore,
        RoleArgument::Owner => Role::Owner,
    };
    let (label, domain) = (arguments.label.clone(), arguments.domain.clone());
    let options = AddOptions { role, label, domain, shared: arguments.shared, unlock };
    let added = keep(key::add(&repository, &options), |added| added.access_key.as_ref(), file)?;
    context.end_display();
    let policy = policy(&location, role, &added)?;
    let output = context.output;
    output.note(&format!("added the {} key `{}`, slot {}", role.name(), arguments.label, added.slot));
    tell_of_new((&repository, context), &added, (arguments.new.access_key_out.as_deref(), policy.as_ref()))?;
    output.message(&json::message(
        "summary",
        json!({
            "identity": added.identity.to_string(),
            "label": arguments.label,
            "role": role.name(),
            "slot": added.slot,
            "domain": added.domain.map(|domain| domain.to_string()),
            "access_key_file": arguments.new.access_key_out.as_ref().map(|path| path.to_string_lossy()),
            "policy": policy,
        }),
    ));
    Ok(())
}

fn rotate(arguments: &Rotate, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let repository = context.open_at(&location)?;
    let output = context.output;
    let New { access_key_out, new_password_file } = &arguments.new;
    let Some(who) = &arguments.who else {
        if access_key_out.is_some() || new_password_file.is_some() {
            return Err(Error::new(ErrorKind::Usage, "nothing says which key is to be renewed")
                .with_remedy("Name it: `lifeboat key rotate NAME`; without a name a new epoch begins"));
        }
        let done = key::rotate(&repository)?;
        context.end_display();
        output.note(&format!("key epoch {} begins: backups seal to it from their next run on", done.epoch));
        for known in &done.behind {
            let (label, role) = (text::shown(known.label.as_bytes()), known.role.name());
            output.note(&format!(
                "  the {role} key `{label}` does not hold it: renew it with `lifeboat key rotate {label}`"
            ));
        }
        let behind: Vec<Value> = done
            .behind
            .iter()
            .map(|known| json!({ "identity": known.identity.to_string(), "label": known.label, "role": known.role.name() }))
            .collect();
        output.message(&json::message("summary", json!({ "epoch": done.epoch, "behind": behind })));
        return Ok(());
    };
    let (unlock, file) = arguments.new.unlock(context)?;
    let last_good = arguments.last_good.map_or(LastGood::Head, LastGood::Sequence);
    let renewed = key::renew(&repository, who, last_good, unlock);
    let done = keep(renewed, |done| done.added.access_key.as_ref(), file)?;
    context.end_display();
    let policy = policy(&location, done.role, &done.added)?;
    output.note(&format!(
        "`{who}` has a new {} key, slot {}; the old one is revoked",
        done.role.name(),
        done.added.slot
    ));
    warn_of_dropped(done.revoked.dropped, context);
    warn_of_end(&done.revoked, context);
    output.note("the storage credentials of the old one still work: change them at the storage too");
    tell_of_new((&repository, context), &done.added, (access_key_out.as_deref(), policy.as_ref()))?;
    output.message(&json::message(
        "summary",
        json!({
            "identity": done.added.identity.to_string(),
            "revoked": done.revoked.identity.to_string(),
            "last_good": done.revoked.last_sequence,
            "dropped": dropped(done.revoked.dropped),
            "role": done.role.name(),
            "slot": done.added.slot,
            "domain": done.added.domain.map(|domain| domain.to_string()),
            "access_key_file": access_key_out.as_ref().map(|path| path.to_string_lossy()),
            "policy": policy,
        }),
    ));
    Ok(())
}

/// How a new key is used, and the policy that goes with it.
fn tell_of_new(
    (repository, context): (&Repository, &Context<'_>),
    added: &Added,
    (access_key_out, policy): (Option<&Path>, Option<&Value>),
) -> Result<()> {
    let output = context.output;
    if added.access_key.is_none() {
        warn_of_many_passphrases(repository, context)?;
    }
    if let Some(path) = access_key_out {
        output.note(&format!("its access key is in {}: use it with --access-key-file", path.display()));
    }
    if let Some(policy) = policy {
        output.note("the storage policy that goes with it:");
        output.say(&format!("{policy:#}"));
    }
    Ok(())
}

/// A passphrase is tried on a few slots only, and not all are read to find these: whoever has more must know the
/// names in time.
fn warn_of_many_passphrases(repository: &Repository, context: &Context<'_>) -> Result<()> {
    let listed = key::list(repository)?;
    let slots = || listed.iter().flat_map(|known| &known.slots);
    let all = slots().count();
    if all > SLOTS_READ_MAX {
        context.output.warn(&format!(
            "there are {all} key slots, and a passphrase is looked for in the first {SLOTS_READ_MAX} only: name the \
             slot with --slot from now on (`lifeboat key list --json` shows whose they are), or use access keys"
        ));
    }
    let count = slots().filter(|slot| slot.unlocks == Unlocks::Passphrase).count();
    if count > SLOTS_TRIED_MAX {
        context.output.warn(&format!(
            "{count} slots take a passphrase, and one is tried on {SLOTS_TRIED_MAX} only: name the slot with \
             --slot from now on (`lifeboat key list --json` shows whose they are), or use access keys"
        ));
    }
    Ok(())
}

/// The policy for a bucket; a folder has none.
fn policy(location: &Location, role: Role, added: &Added) -> Result<Option<Value>> {
    let Location::Bucket { bucket, prefix, .. } = location else { return Ok(None) };
    let Added { identity, domain, slot, .. } = added;
    let (identity, domain) = (*identity, *domain);
    let text = key::policy(&PolicyOptions { role, domain, identity, slot: Some(slot), bucket, prefix });
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| Error::new(ErrorKind::Failed, "the storage policy is not JSON").with_source(e))
}

fn revoke(arguments: &Revoke, context: &Context<'_>) -> Result<()> {
    let last_good = arguments.last_good.map_or(LastGood::Head, LastGood::Sequence);
    let options = RevokeOptions { who: arguments.who.clone(), last_good };
    let revoked = key::revoke(&context.open()?, &options)?;
    context.end_display();
    let output = context.output;
    output.note(&format!(
        "revoked `{}`; its snapshots count up to number {}; {} removed",
        arguments.who,
        revoked.last_sequence,
        text::count(revoked.slots.len() as u64, "slot", "slots")
    ));
    warn_of_dropped(revoked.dropped, context);
    warn_of_end(&revoked, context);
    output.note("its storage credentials still work: remove them at the storage too");
    output.message(&json::message(
        "summary",
        json!({
            "identity": revoked.identity.to_string(),
            "last_sequence": revoked.last_sequence,
            "records": revoked.records,
            "dropped": dropped(revoked.dropped),
            "slots_removed": revoked.slots,
        }),
    ));
    Ok(())
}

/// Its data are freed by the first prune after somebody has said that it is lost.
fn warn_of_end(revoked: &key::Revoked, context: &Context<'_>) {
    if revoked.is_end_gone {
        context.output.warn(&format!(
            "its snapshot {} counts and is gone: `lifeboat check` says how to bring it back, before any prune",
            revoked.last_sequence
        ));
    }
}

/// Tells what a revocation has left out because there was too much of it, and what to do about it.
fn warn_of_dropped(Dropped { indexes, attestations, reports }: Dropped, context: &Context<'_>) {
    for (count, (one, many), remedy) in [
        (
            indexes,
            ("index object", "index objects"),
            "`lifeboat repair index --apply` lists again what they listed",
        ),
        (
            attestations,
            ("attestation", "attestations"),
            "the next `lifeboat check --read-data` makes them anew",
        ),
        (reports, ("report", "reports"), "look at `lifeboat drill history`"),
    ] {
        if count > 0 {
            context.output.warn(&format!(
                "the key had written more than {REVOKED_FOLDER_MAX} {many}: {} of them, the youngest, {} no more; {remedy}",
                text::count(count, one, many),
                if count == 1 { "counts" } else { "count" }
            ));
        }
    }
}

fn dropped(Dropped { indexes, attestations, reports }: Dropped) -> Value {
    json!({ "indexes": indexes, "attestations": attestations, "reports": reports })
}

fn share(arguments: &Share, context: &Context<'_>) -> Result<()> {
    let identity = key::share(&context.open()?, &arguments.who)?;
    context.end_display();
    let output = context.output;
    output.note(&format!(
        "`{}` is shared now: two snapshots with one number are no alarm any more",
        arguments.who
    ));
    output.message(&json::message("summary", json!({ "identity": identity.to_string() })));
    Ok(())
}

fn passphrase(arguments: &Passphrase, context: &Context<'_>) -> Result<()> {
    let repository = context.open()?;
    let new = context.credentials().changed_passphrase(arguments.new_password_file.as_deref())?;
    let slot = context.common.unlock.slot.as_deref();
    let changed = key::passphrase(&repository, &new, slot, KdfParameters::default())?;
    context.end_display();
    let output = context.output;
    // With an access key there was none that it could replace.
    let done = if changed.removed.is_empty() { "a passphrase is added" } else { "the passphrase is changed" };
    output.note(&format!("{done}; the new slot is {}", changed.slot));
    warn_of_many_passphrases(&repository, context)?;
    let fields = json!({ "slot": changed.slot, "slots_removed": changed.removed });
    output.message(&json::message("summary", fields));
    Ok(())
}

fn words(arguments: &Words, context: &Context<'_>) -> Result<()> {
    let repository = context.open()?;
    let output = context.output;
    if arguments.verify {
        let copy = context.credentials().words_to_check(arguments.words_file.as_deref())?;
        key::verify_words(&repository, &copy)?;
        context.end_display();
        output.note("these are the recovery words of this repository");
        output.message(&json::message("summary", json!({ "words": null, "verified": true })));
        return Ok(());
    }
    let words = key::words(&repository)?;
    context.end_display();
    if let Some(path) = &arguments.recovery_file {
        write_new(path, &words)?;
        output.note(&format!("the recovery words are in {}", path.display()));
        output.message(&json::message("summary", json!({ "words": null, "verified": false })));
        return Ok(());
    }
    // Asked for by name, by the owner: this once they are the result.
    output.say(&words);
    output.message(&json::message("summary", json!({ "words": *words, "verified": false })));
    Ok(())
}

fn recover(arguments: &Recover, context: &Context<'_>) -> Result<()> {
    let store = context.store(&context.location()?)?;
    let words = context.credentials().words()?;
    let (unlock, file) = arguments.new.unlock(context)?;
    let lost = if arguments.rebuild_config { Lost::Rebuild } else { Lost::Refuse };
    let options = RecoverOptions { words: &words, unlock, lost };
    let recovered = key::recover(&store, &options, &SystemClock);
    let recovered = keep(recovered, |recovered| recovered.access_key.as_ref(), file)?;
    context.end_display();
    let output = context.output;
    for lost in &recovered.lost {
        output.warn(lost);
    }
    let part = |part: Part| match part {
        Part::Kept => "kept",
        Part::Rebuilt => "rebuilt",
    };
    let (config, registry) = (part(recovered.config), part(recovered.registry));
    output.note(&format!("the new owner slot is {}; config {config}, registry {registry}", recovered.slot));
    output.message(&json::message(
        "summary",
        json!({
            "slot": recovered.slot,
            "config": config,
            "registry": registry,
            "lost": recovered.lost,
        }),
    ));
    Ok(())
}

fn export(arguments: &Export, context: &Context<'_>) -> Result<()> {
    let bytes = key::certificate(&context.open()?, &arguments.who)?;
    context.end_display();
    let certificate: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Failed, "the certificate is not JSON").with_source(e))?;
    let text = String::from_utf8_lossy(&bytes);
    match &arguments.out {
        Some(path) => {
            write_new(path, text.trim_end())?;
            context.output.note(&format!("the certificate is in {}", shown(path)));
        }
        None => context.output.say(text.trim_end()),
    }
    context.output.message(&json::message("summary", json!({ "certificate": certificate })));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
