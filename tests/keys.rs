//! Keys and roles: what each role can do with its secrets alone, what a revocation leaves valid, what two
//! owners at once lose (nothing), and what the recovery words bring back.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::{Compression, Decompressor},
    crypto::{RootSecret, SigningKey},
    error::{ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{
        annotation::{Annotation, Says, TagChange},
        attestation::{Attestation, AttestedSection, digest},
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        forgotten::Forgotten,
        pack::PackKind,
        quarantine::Quarantine,
        registry::{Certificate, Revocation},
        role::Role,
        slot::KdfParameters,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId},
    limits::REVOKED_FOLDER_MAX,
    ops::{
        backup::{self, BackupOptions, tree::Tree},
        check::{self, CheckOptions, Depth, Subset},
        key::{self, AddOptions, Added, By, LastGood, Lost, Part, RecoverOptions, RevokeOptions},
        prune::{self, PruneOptions},
        repair, restore,
    },
    repository::{
        InitOptions, Repository, index::Standing, manifest::ManifestCursor, reader::NodeReader, registry,
        section::Section, unlock::Credential,
    },
    store::{self, Name, Parsed, Prefix, Store, StoreOptions},
};
use zeroize::Zeroizing;

mod support {
    pub(crate) mod faults;
    pub(crate) mod intercepted;
}
use support::{
    faults::{Fault, nth},
    intercepted::{Call, Fate, Intercepted, Kind, broken},
};

const COUNTS: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn options() -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    }
}

fn memory() -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "p", options()).unwrap()
}

fn in_every_store(test: impl Fn(Store)) {
    test(memory());
    let folder = tempfile::tempdir().unwrap();
    let location = store::Location::parse(folder.path().to_str().unwrap()).unwrap();
    test(Store::open(&location, options()).unwrap());
}

fn open_with(store: &Store, credential: &Credential, cache: Option<&Path>) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, credential)?;
    Repository::open(store.clone(), config, secrets, cache, Arc::new(SystemClock))
}

fn created(store: &Store) -> (RootSecret, Repository) {
    let root = RootSecret::generate().unwrap();
    Repository::create(store, &root, "owner", InitOptions::default(), &SystemClock).unwrap();
    (root.clone(), open_with(store, &Credential::Words(root.words()), None).unwrap())
}

fn add(owner: &Repository, role: Role, label: &str, domain: Option<&str>) -> Added {
    let domain = domain.map(str::to_owned);
    let options = AddOptions { role, label: label.to_owned(), domain, shared: false, unlock: By::AccessKey };
    key::add(owner, &options).unwrap()
}

/// From the text of the access key, as a machine reads it from a file.
fn credential(added: &Added) -> Credential {
    Credential::AccessKey(added.access_key.as_ref().unwrap().text())
}

fn open(store: &Store, added: &Added) -> Result<Repository> {
    open_with(store, &credential(added), None)
}

struct Source {
    folder: tempfile::TempDir,
}

impl Source {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/file"), text.repeat(3000)).unwrap();
        Self { folder }
    }

    fn backup(&self, repository: &Repository) -> Result<(ObjectId, u64)> {
        let mut tree = Tree { sources: vec![self.folder.path().to_owned()], filter: Default::default() };
        let options = BackupOptions {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: Vec::new(),
            sources: vec![self.folder.path().to_str().unwrap().into()],
            time: None,
            compression: Compression::Auto,
            reuse: backup::Reuse::default(),
            unchanged: backup::Unchanged::Keep,
            mode: backup::Mode::Store,
            program: "test".to_owned(),
            workers: 1,
        };
        Ok(backup::run(repository, &mut tree, &options)?.snapshot.unwrap())
    }

    /// Restores the snapshot and compares.
    fn is_restored_by(&self, repository: &Repository, id: &ObjectId) {
        let (snapshots, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        let snapshot = snapshots.iter().find(|snapshot| snapshot.name.id == *id).unwrap();
        let target = tempfile::tempdir().unwrap();
        let options = restore::RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::ByName),
            subpath: Vec::new(),
            selection: Selection::new(&[], &[]).unwrap(),
            workers: 2,
            ..restore::RestoreOptions::default()
        };
        let restored = restore::run(repository, snapshot, target.path(), &options).unwrap();
        assert!(restored.failed.is_empty(), "{:?}", restored.failed);
        let source = self.folder.path();
        let copy = target.path().join(source.strip_prefix("/").unwrap());
        let file = |folder: &Path| std::fs::read(folder.join("sub/file")).unwrap();
        assert_eq!(file(source), file(&copy));
    }
}

fn names(store: &Store) -> Vec<Name> {
    store.list(&Prefix::all()).unwrap().iter().filter_map(|listed| Name::parse(&listed.name)).collect()
}

fn delete(store: &Store, which: impl Fn(&Parsed) -> bool) -> usize {
    let doomed: Vec<Name> = names(store).into_iter().filter(|name| which(&name.parsed())).collect();
    doomed.iter().for_each(|name| store.delete(name).unwrap());
    doomed.len()
}

fn allowed<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("role")), "{error}");
            false
        }
    }
}

/// The data of one frame, with this repository's secrets alone.
fn read_data(repository: &Repository, domain: &DomainId) -> Result<Vec<u8>> {
    let view = repository.view(domain)?;
    let pack = view.index.packs().find(|pack| pack.kind == PackKind::Data).unwrap();
    let directory = view.index.directory(&pack).unwrap();
    let (frame, section) = (&directory.frames[0], &directory.sections[0]);
    let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
    let sealed = repository.store.read_range(&Name::pack(domain, pack.kind, &pack.id), range)?;
    repository.open_frame(domain, (frame, section), &sealed, &mut Decompressor::new()?)
}

fn read_node(repository: &Repository, domain: &DomainId, root: lifeboat::id::BlobId) -> Result<()> {
    let view = repository.view(domain)?;
    let nodes = NodeReader::new(repository, *domain, &view.index)?;
    ManifestCursor::new(&nodes, root).next_entry().map(drop)
}

#[test]
fn each_role_can_do_what_the_table_says_and_nothing_else() {
    in_every_store(|store| {
        let (_, owner) = created(&store);
        let source = Source::new("content ");
        source.backup(&owner).unwrap();
        let main = owner.own_domain().unwrap();
        let machine = add(&owner, Role::Backup, "machine", None);
        assert_ne!(machine.domain, Some(main));
        source.backup(&open(&store, &machine).unwrap()).unwrap();
        let owner =
            open_with(&store, &Credential::Passphrase("owner".to_owned().into(), None), None).unwrap();
        let root = owner.snapshots().unwrap().0[0].record.root;
        // backs up, own index, other index, names, content, attest, forget, quarantine, add keys, words
        let table = [
            (Role::Backup, [true, true, false, false, false, false, false, false, false, false]),
            (Role::Audit, [false, true, true, true, false, false, false, false, false, false]),
            (Role::Maintain, [false, true, true, true, false, false, true, true, false, false]),
            (Role::Restore, [false, true, true, true, true, true, false, false, false, false]),
            (Role::Owner, [true; 10]),
        ];
        for (role, expected) in table {
            let domain = matches!(role, Role::Backup | Role::Owner).then_some("machine");
            let added = add(&owner, role, &format!("a {}", role.name()), domain);
            let it = open(&store, &added).unwrap();
            assert_eq!((it.role(), it.identity()), (role, added.identity));
            let own = machine.domain.unwrap();
            let (time, reason) = (COUNTS, "a test".to_owned());
            let forgotten = Forgotten::new(time, vec![ObjectId::new([1; 32])], reason.clone());
            let quarantine = Quarantine { time, objects: vec!["nothing".to_owned()], reason };
            let options = AddOptions {
                role: Role::Audit,
                label: format!("by {}", role.name()),
                domain: None,
                shared: false,
                unlock: By::AccessKey,
            };
            let can = [
                allowed(source.backup(&it)),
                allowed(it.view(&own)),
                allowed(it.view(&main)),
                allowed(it.snapshots()) && allowed(read_node(&it, &main, root)),
                allowed(read_data(&it, &own)),
                allowed(it.publish_attestation(&own, &Attestation { time, sections: Vec::new() })),
                allowed(it.publish_forgotten(&own, &forgotten)),
                allowed(it.publish_quarantine(&own, &quarantine)),
                allowed(key::add(&it, &options)),
                allowed(key::words(&it)),
            ];
            assert_eq!(can, expected, "{role:?}");
            assert_eq!(allowed(key::certificate(&it, "owner")), role == Role::Owner);
            let who = RevokeOptions { who: "machine".to_owned(), last_good: LastGood::Head };
            assert!(role == Role::Owner || !allowed(key::revoke(&it, &who)));
        }
    });
}

#[test]
fn a_machine_backs_up_from_another_cache_and_the_words_alone_restore_it() {
    in_every_store(|store| {
        let (root, owner) = created(&store);
        let machine = add(&owner, Role::Backup, "machine", None);
        let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let source = Source::new("content ");
        for (sequence, cache) in (1..).zip(&caches) {
            let it = open_with(&store, &credential(&machine), Some(cache.path())).unwrap();
            assert_eq!(source.backup(&it).unwrap().1, sequence);
        }
        let third = tempfile::tempdir().unwrap();
        let words = open_with(&store, &Credential::Words(root.words()), Some(third.path())).unwrap();
        let last = words.snapshots().unwrap().0[1].name.clone();
        assert_eq!((last.identity, last.domain), (machine.identity, machine.domain.unwrap()));
        source.is_restored_by(&words, &last.id);
    });
}

#[test]
fn machines_that_share_a_domain_share_its_index_and_copies_that_a_verifier_vouches_for() {
    let store = memory();
    let (_, owner) = created(&store);
    let [a, b] = ["a", "b"].map(|label| add(&owner, Role::Backup, label, Some("office")));
    assert_eq!(a.domain, b.domain);
    let domain = a.domain.unwrap();
    let source = Source::new("the same on both ");
    source.backup(&open(&store, &a).unwrap()).unwrap();
    let packs = |kind| {
        let packs = names(&store)
            .into_iter()
            .filter(|name| matches!(name.parsed(), Parsed::Pack { kind: other, .. } if other == kind));
        packs.count()
    };
    assert_eq!(packs(PackKind::Data), 1);
    let technician = add(&owner, Role::Restore, "technician", None);
    let verifier = open(&store, &technician).unwrap();
    let view = verifier.view(&domain).unwrap();
    let mut sections = Vec::new();
    for pack in view.index.packs() {
        let directory = view.index.directory(&pack).unwrap();
        for (number, section) in (0..).zip(&directory.sections) {
            sections.push(AttestedSection { id: section.id(), digest: digest(&directory, number) });
        }
    }
    // One that vouches for something else gains nothing.
    let lying = sections.iter().map(|section| AttestedSection { digest: [0; 32], ..*section }).collect();
    verifier.publish_attestation(&domain, &Attestation { time: COUNTS, sections: lying }).unwrap();
    source.backup(&open(&store, &b).unwrap()).unwrap();
    assert_eq!(packs(PackKind::Data), 2, "b may not count on what only a vouches for");

    let c = add(&owner, Role::Backup, "c", Some("office"));
    verifier.publish_attestation(&domain, &Attestation { time: COUNTS, sections }).unwrap();
    let (id, _) = source.backup(&open(&store, &c).unwrap()).unwrap();
    assert_eq!(packs(PackKind::Data), 2, "c counts on the copy that was verified");
    // A check attests what nobody has, and no more.
    let verifier = open(&store, &technician).unwrap();
    let options = CheckOptions { depth: Depth::Data(Subset::All), workers: 1 };
    let attests = || check::run(&verifier, options).unwrap().attested;
    assert!(attests() > 0);
    let before = names(&store).len();
    assert_eq!((attests(), names(&store).len()), (0, before));
    let owner = open(&store, &add(&owner, Role::Owner, "second", None)).unwrap();
    source.is_restored_by(&owner, &id);
}

#[test]
fn a_revoked_key_opens_nothing_and_only_what_it_left_counts() {
    in_every_store(|store| {
        let (root, owner) = created(&store);
        let machine = add(&owner, Role::Backup, "machine", None);
        let source = Source::new("before ");
        let thief = open(&store, &machine).unwrap();
        let (good, _) = source.backup(&thief).unwrap();
        let slot = store.read(&Name::slot(&machine.slot), 1 << 20).unwrap();
        let options = RevokeOptions { who: "machine".to_owned(), last_good: LastGood::Head };
        let revoked = key::revoke(&owner, &options).unwrap();
        assert_eq!((revoked.last_sequence, revoked.records), (1, 1));
        assert_eq!(revoked.slots, std::slice::from_ref(&machine.slot));
        let error = open(&store, &machine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock);
        // Even with a copy of its slot.
        store.create(&Name::slot(&machine.slot), slot).unwrap();
        let error = open(&store, &machine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock);
        assert!(error.to_string().contains("this key was revoked"), "{error}");
        // Run again, it finishes what an interruption left.
        assert_eq!(key::revoke(&owner, &options).unwrap().slots.len(), 1);

        // Whoever had it open goes on writing, and none of it counts. Their program would refuse to: they hide
        // the newest registry from it.
        std::fs::write(source.folder.path().join("sub/other"), "after".repeat(9000)).unwrap();
        let error = source.backup(&thief).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock, "{error}");
        let newer = |name: &Name| matches!(name.parsed(), Parsed::Registry { number, .. } if number > 2);
        let hidden = names(&store).into_iter().filter(newer);
        let hidden: Vec<_> = hidden.map(|name| (store.read(&name, 1 << 20).unwrap(), name)).collect();
        assert!(delete(&store, |name| matches!(name, Parsed::Registry { number, .. } if *number > 2)) > 0);
        let (bad, sequence) = source.backup(&thief).unwrap();
        hidden.into_iter().for_each(|(bytes, name)| store.create(&name, bytes).unwrap());
        assert_eq!(sequence, 2);
        std::fs::remove_file(source.folder.path().join("sub/other")).unwrap();
        let words = open_with(&store, &Credential::Words(root.words()), None).unwrap();
        let (snapshots, damaged) = words.snapshots().unwrap();
        assert_eq!(snapshots.iter().map(|snapshot| snapshot.name.id).collect::<Vec<_>>(), [good]);
        assert!(damaged.len() == 1 && damaged[0].to_string().contains(&bad.to_string()), "{damaged:?}");
        let view = words.view(&machine.domain.unwrap()).unwrap();
        assert_eq!(view.damaged.len(), 1, "its later index object: {:?}", view.damaged);
        assert!(!view.unindexed.is_empty());
        store
            .delete(&names(&store).into_iter().find(|name| name.as_str().contains(&bad.to_string())).unwrap())
            .unwrap();
        source.is_restored_by(&words, &good);

        // The label is free again.
        assert_eq!(add(&words, Role::Backup, "machine", Some("machine")).domain, machine.domain);
    });
}

#[test]
fn what_a_restore_key_has_learned_opens_what_is_stored_after_it_was_revoked() {
    let store = memory();
    let (_, owner) = created(&store);
    let technician = add(&owner, Role::Restore, "technician", None);
    let config = Repository::read_config(&store).unwrap();
    let kept = Repository::unlock(&store, &config, &credential(&technician)).unwrap();
    let options = RevokeOptions { who: "technician".to_owned(), last_good: LastGood::Head };
    key::revoke(&owner, &options).unwrap();
    // What is stored now is sealed to a key whose other half they still have.
    let (place, me) = (owner.place(owner.own_domain().unwrap()), owner.identity());
    let public = owner.data_public().unwrap();
    let (header, section) = Section::create(place, PackKind::Data, me, public).unwrap();
    let sealed = section.seal_frame(0, b"stored later".to_vec()).unwrap();
    let opened = Section::open(place, &header, &kept.open_data(header.epoch).unwrap()).unwrap();
    assert_eq!(opened.open_frame(0, &sealed).unwrap(), b"stored later");
}

#[test]
fn a_new_epoch_closes_what_is_stored_later_to_a_stolen_key_and_a_renewed_one_reads_everything() {
    let store = memory();
    let (_, owner) = created(&store);
    let technician = add(&owner, Role::Restore, "technician", None);
    let host = add(&owner, Role::Maintain, "host", None);
    let machine = add(&owner, Role::Backup, "machine", None);
    let config = Repository::read_config(&store).unwrap();
    let stolen = Repository::unlock(&store, &config, &credential(&technician)).unwrap();
    Source::new("before ").backup(&open(&store, &machine).unwrap()).unwrap();
    let rotated = key::rotate(&owner).unwrap();
    assert_eq!(rotated.epoch, 2);
    let behind: Vec<&str> = rotated.behind.iter().map(|known| known.label.as_str()).collect();
    assert_eq!(behind, ["technician", "host"]);
    // A client needs nothing new: it seals to what the registry names.
    let (later, _) = Source::new("later ").backup(&open(&store, &machine).unwrap()).unwrap();
    let owner = owner_again(&store, &owner);
    assert_eq!(owner.data_public().unwrap().0, 2);
    assert!(
        stolen.open_data(1).is_some() && stolen.open_data(2).is_none() && stolen.open_metadata(2).is_none()
    );
    // Who was not renewed sees what there was, is told why not more, and deletes nothing.
    for behind in [&technician, &host] {
        let (known, damaged) = open(&store, behind).unwrap().snapshots().unwrap();
        assert_eq!((known.len(), damaged.len()), (1, 1), "{damaged:?}");
        assert!(damaged[0].to_string().contains("key epoch 2"), "{damaged:?}");
        assert!(damaged[0].remedy().unwrap().contains("key rotate"), "{damaged:?}");
    }
    let roots = open(&store, &host).unwrap().roots(&machine.domain.unwrap()).unwrap();
    assert_eq!(roots.doubts.len(), 1);
    let renewed = key::renew(&owner, "technician", LastGood::Head, By::AccessKey).unwrap();
    assert_eq!((renewed.role, renewed.revoked.identity), (Role::Restore, technician.identity));
    assert_eq!(open(&store, &technician).unwrap_err().kind(), ErrorKind::CannotUnlock);
    let again = open(&store, &renewed.added).unwrap();
    let (known, damaged) = again.snapshots().unwrap();
    assert!(known.len() == 2 && damaged.is_empty(), "{damaged:?}");
    assert!(known.iter().any(|known| known.name.id == later));
    let main = machine.domain.unwrap();
    assert!(allowed(read_data(&again, &main)));
    // The next epoch is the next number, and a key that was renewed before is behind again.
    let rotated = key::rotate(&owner).unwrap();
    assert_eq!((rotated.epoch, rotated.behind.len()), (3, 2));
}

#[test]
fn a_key_in_the_place_of_a_stolen_one_goes_on_where_that_was() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let source = Source::new("x ");
    (0..2).for_each(|_| _ = source.backup(&open(&store, &machine).unwrap()).unwrap());
    let renewed = key::renew(&owner, "machine", LastGood::Sequence(1), By::AccessKey).unwrap();
    assert_eq!((renewed.role, renewed.added.domain), (Role::Backup, machine.domain));
    assert_eq!(renewed.revoked.last_sequence, 1);
    assert_eq!(open(&store, &machine).unwrap_err().kind(), ErrorKind::CannotUnlock);
    let (id, sequence) = source.backup(&open(&store, &renewed.added).unwrap()).unwrap();
    assert_eq!(sequence, 1, "a chain of its own");
    let (known, _) = owner_again(&store, &owner).snapshots().unwrap();
    assert!(known.len() == 2 && known.iter().any(|known| known.name.id == id));
    let labels: Vec<_> =
        key::list(&owner).unwrap().into_iter().map(|known| (known.label, known.revoked.is_some())).collect();
    assert_eq!(labels[1..], [("machine".to_owned(), true), ("machine".to_owned(), false)]);
    // The words cannot be rotated, nor by anybody but an owner.
    assert_eq!(
        key::renew(&owner, "owner", LastGood::Head, By::AccessKey).unwrap_err().kind(),
        ErrorKind::Usage
    );
    let it = open(&store, &renewed.added).unwrap();
    assert_eq!(key::rotate(&it).unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(
        key::renew(&it, "machine", LastGood::Head, By::AccessKey).unwrap_err().kind(),
        ErrorKind::Forbidden
    );
    // Who was stopped before the new access key was seen, and names the old one again, is not told to revoke the new one.
    let old = machine.identity.to_string();
    let error = key::renew(&owner, &old, LastGood::Head, By::AccessKey).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.remedy().unwrap().contains("`lifeboat key rotate machine`"), "{error:?}");
    let last = key::renew(&owner, "machine", LastGood::Head, By::AccessKey).unwrap();
    assert_eq!(last.revoked.identity, renewed.added.identity);
    source.backup(&open(&store, &last.added).unwrap()).unwrap();
}

#[test]
fn an_owner_can_say_that_the_last_snapshots_were_the_thiefs_and_bad_objects_do_not_stop_him() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let it = open(&store, &machine).unwrap();
    let source = Source::new("x ");
    let ids: Vec<ObjectId> = (0..3).map(|_| source.backup(&it).unwrap().0).collect();
    let garbage = ObjectId::new(*blake3::hash(b"garbage").as_bytes());
    let name = Name::snapshot(&machine.domain.unwrap(), &machine.identity, 99, &garbage);
    store.create(&name, "garbage".into()).unwrap();
    let options = RevokeOptions { who: machine.identity.to_string(), last_good: LastGood::Sequence(2) };
    assert_eq!(key::revoke(&owner, &options).unwrap().last_sequence, 2);
    let (snapshots, damaged) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|snapshot| snapshot.name.id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    // It can be told again that less of it counts, and not that more does.
    let again = |number| {
        let who = machine.identity.to_string();
        key::revoke(
            &owner_again(&store, &owner),
            &RevokeOptions { who, last_good: LastGood::Sequence(number) },
        )
    };
    assert_eq!(again(3).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(again(2).unwrap().last_sequence, 2);
    assert_eq!(again(1).unwrap().last_sequence, 1);
    let (snapshots, _) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|snapshot| snapshot.name.id).collect::<Vec<_>>(), ids[..1]);
    assert_eq!(again(0).unwrap().last_sequence, 0);
    assert!(owner_again(&store, &owner).snapshots().unwrap().0.is_empty());
}

#[test]
fn no_snapshot_is_cut_off_by_a_label_that_an_older_key_had_too() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let source = Source::new("x ");
    source.backup(&open(&store, &machine).unwrap()).unwrap();
    let renewed = key::renew(&owner, "machine", LastGood::Head, By::AccessKey).unwrap();
    let (good, _) = source.backup(&open(&store, &renewed.added).unwrap()).unwrap();
    let options = |who: &str| RevokeOptions { who: who.to_owned(), last_good: LastGood::Sequence(0) };
    let owner = owner_again(&store, &owner);
    let error = key::revoke(&owner, &options("machine")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let ids = [&machine.identity, &renewed.added.identity].map(IdentityId::short);
    assert!(ids.iter().all(|id| error.to_string().contains(id)), "{error}");
    assert_eq!(key::revoke(&owner, &options(&ids[0])).unwrap().last_sequence, 0);
    let (known, _) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!(known.iter().map(|known| known.name.id).collect::<Vec<_>>(), [good]);
    // A second renewal names the key that it has.
    let last =
        key::renew(&owner_again(&store, &owner), "machine", LastGood::Sequence(1), By::AccessKey).unwrap();
    assert_eq!((last.revoked.identity, last.revoked.last_sequence), (renewed.added.identity, 1));
}

#[test]
fn a_thief_who_fills_his_folders_cannot_keep_his_key_from_being_revoked() {
    let store = memory();
    let (_, owner) = created(&store);
    let flood = |count: usize, name: &dyn Fn(&ObjectId) -> Name| {
        for number in 0..count {
            let bytes = number.to_string();
            let id = ObjectId::new(*blake3::hash(bytes.as_bytes()).as_bytes());
            store.create(&name(&id), bytes.into()).unwrap();
        }
    };
    let revoke = |added: &Added| {
        let options = RevokeOptions { who: added.identity.to_string(), last_good: LastGood::Head };
        key::revoke(&owner, &options).unwrap()
    };
    for overwritten in [false, true] {
        let machine = add(&owner, Role::Backup, &format!("machine {overwritten}"), None);
        let (domain, source) = (machine.domain.unwrap(), Source::new("before "));
        let (good, _) = source.backup(&open(&store, &machine).unwrap()).unwrap();
        let prefix = Prefix::index(&domain);
        let own = Name::parse(&store.list(&prefix).unwrap()[0].name).unwrap();
        flood(REVOKED_FOLDER_MAX + 4, &|id| Name::index(&domain, &machine.identity, id));
        if overwritten {
            let bytes = store.read(&own, 1 << 26).unwrap();
            store.delete(&own).unwrap();
            store.create(&own, bytes).unwrap();
        }
        let revoked = revoke(&machine);
        assert_eq!((revoked.records, revoked.dropped.indexes), (REVOKED_FOLDER_MAX, 5));
        let owner = owner_again(&store, &owner);
        let lists = || owner.view(&domain).unwrap().index.packs().count();
        assert_eq!(lists() > 0, !overwritten, "what he overwrote is younger than what he put there before");
        if overwritten {
            repair::index(&owner, repair::Mode::Write).unwrap();
        }
        source.is_restored_by(&owner, &good);
    }
    // The same for reports, which bear his name too.
    let auditor = add(&owner, Role::Audit, "auditor", None);
    flood(REVOKED_FOLDER_MAX + 3, &|id| Name::evidence(&auditor.identity, 1, id));
    let revoked = revoke(&auditor);
    assert_eq!((revoked.records, revoked.dropped.reports), (REVOKED_FOLDER_MAX, 3));
    add(&owner, Role::Backup, "the next one", None);
}

fn owner_again(store: &Store, owner: &Repository) -> Repository {
    open_with(store, &Credential::Words(key::words(owner).unwrap()), None).unwrap()
}

#[test]
fn the_last_owner_cannot_be_revoked_and_another_one_can() {
    let store = memory();
    let (_, owner) = created(&store);
    let second = add(&owner, Role::Owner, "second", None);
    let it = open(&store, &second).unwrap();
    let revoke = |by: &Repository, who: &str| {
        key::revoke(by, &RevokeOptions { who: who.to_owned(), last_good: LastGood::Head })
    };
    for by in [&owner, &it] {
        assert_eq!(revoke(by, "owner").unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(revoke(&owner, "nobody").unwrap_err().kind(), ErrorKind::Usage);
    revoke(&owner, "second").unwrap();
    assert_eq!(open(&store, &second).unwrap_err().kind(), ErrorKind::CannotUnlock);
}

#[test]
fn the_list_shows_labels_domains_slots_and_revocations() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    add(&owner, Role::Audit, "auditor", None);
    key::revoke(&owner, &RevokeOptions { who: "auditor".to_owned(), last_good: LastGood::Head }).unwrap();
    let listed = key::list(&owner).unwrap();
    let rows: Vec<_> = listed
        .iter()
        .map(|row| (row.label.as_str(), row.domain.as_deref(), row.revoked.is_some(), row.slots.len()))
        .collect();
    assert_eq!(
        rows,
        [
            ("owner", Some("main"), false, 1),
            ("machine", Some("machine"), false, 1),
            ("auditor", None, true, 0)
        ]
    );
    assert_eq!(listed[0].slots[0].unlocks, key::Unlocks::Passphrase);
    assert_eq!(listed[1].slots[0], key::ListedSlot { name: machine.slot, unlocks: key::Unlocks::AccessKey });
    for bad in ["machine", "", "a\u{1b}[2J", &"x".repeat(65)] {
        let options = AddOptions {
            role: Role::Audit,
            label: bad.to_owned(),
            domain: None,
            shared: false,
            unlock: By::AccessKey,
        };
        assert_eq!(key::add(&owner, &options).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
    }
}

#[test]
fn a_new_passphrase_replaces_the_old_one_and_leaves_access_keys() {
    let store = memory();
    created(&store);
    let with = |text: &str| open_with(&store, &Credential::Passphrase(text.to_owned().into(), None), None);
    let owner = with("owner").unwrap();
    assert_eq!(
        key::passphrase(&owner, "", None, KdfParameters::default()).unwrap_err().kind(),
        ErrorKind::Usage
    );
    let other = add(&owner, Role::Audit, "auditor", None);
    assert_eq!(
        key::passphrase(&owner, "new", Some(&other.slot), KdfParameters::default()).unwrap_err().kind(),
        ErrorKind::Usage
    );
    let changed = key::passphrase(&owner, "new", None, KdfParameters::default()).unwrap();
    assert_eq!(changed.removed.len(), 1);
    assert_eq!(with("owner").unwrap_err().kind(), ErrorKind::CannotUnlock);
    assert_eq!(with("new").unwrap().identity(), owner.identity());
    open(&store, &other).unwrap();
    let words = key::words(&owner).unwrap();
    let auditor = open(&store, &other).unwrap();
    key::verify_words(&auditor, &words.to_uppercase()).unwrap();
    let foreign = RootSecret::generate().unwrap().words();
    assert_eq!(key::verify_words(&auditor, &foreign).unwrap_err().kind(), ErrorKind::CannotUnlock);
}

#[test]
fn owners_who_write_at_the_same_time_lose_nothing() {
    let store = memory();
    let (_, owner) = created(&store);
    // Each change finds that another owner has just written on top of the same registry.
    let rivals = Mutex::new(0);
    let certificate = |label: &str| {
        let key = SigningKey::generate().unwrap();
        Certificate {
            identity: key.identity(),
            verifying_key: key.verifying_key().to_bytes(),
            role: Role::Audit,
            label: label.to_owned(),
            domain: None,
            shared: false,
            created: COUNTS,
        }
    };
    let mine = certificate("mine");
    owner
        .change_registry(&|registry| {
            let number = {
                let mut rivals = rivals.lock().unwrap();
                *rivals += 1;
                *rivals
            };
            if number <= 3 {
                let theirs = certificate(&format!("rival {number}"));
                owner
                    .change_registry(&|registry| {
                        if registry.certificate(&theirs.identity).is_none() {
                            registry.certificates.push(theirs.clone());
                        }
                    })
                    .unwrap();
            }
            if registry.certificate(&mine.identity).is_none() {
                registry.certificates.push(mine.clone());
            }
        })
        .unwrap();
    let mut labels: Vec<String> = key::list(&owner).unwrap().into_iter().map(|listed| listed.label).collect();
    labels.sort();
    assert_eq!(labels, ["mine", "owner", "rival 1", "rival 2", "rival 3"]);
}

#[test]
fn registries_of_one_number_count_together() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    add(&owner, Role::Audit, "auditor", None);
    // Two owners on top of one registry; the second one died before it looked again.
    let base = owner.newest_registry().unwrap().registry;
    for who in &base.certificates[1..] {
        let mut next = base.clone();
        next.number += 1;
        let (identity, last) = (who.identity, Vec::new());
        let records = Vec::new();
        next.revocations.push(Revocation { identity, last_sequence: 0, last, time: COUNTS, records });
        registry::publish(&store, &root, &next).unwrap();
    }
    let revoked = || key::list(&owner).unwrap().iter().filter(|row| row.revoked.is_some()).count();
    assert_eq!(revoked(), 2);
    assert_eq!(open(&store, &machine).unwrap_err().kind(), ErrorKind::CannotUnlock);
    add(&owner, Role::Audit, "later", None);
    assert_eq!(revoked(), 2);
}

#[test]
fn nobody_writes_in_the_name_of_another_or_into_another_domain() {
    let store = memory();
    let (root, owner) = created(&store);
    let [a, b] = ["a", "b"].map(|label| add(&owner, Role::Backup, label, Some("office")));
    let domain = a.domain.unwrap();
    let it = open(&store, &a).unwrap();
    let source = Source::new("x ");
    let (id, _) = source.backup(&it).unwrap();
    // A copy of a's index object below b's name hides nothing; alone it counts for nothing.
    let (index, object) = names(&store)
        .into_iter()
        .find_map(|name| match name.parsed() {
            Parsed::Index { id, .. } => Some((name, id)),
            _ => None,
        })
        .unwrap();
    for other in [b.identity, IdentityId::new([0; 16]), IdentityId::new([255; 16])] {
        let bytes = store.read(&index, 1 << 20).unwrap();
        store.create(&Name::index(&domain, &other, &object), bytes).unwrap();
    }
    source.is_restored_by(&owner_again(&store, &owner), &id);
    store.delete(&index).unwrap();
    let view = owner_again(&store, &owner).view(&domain).unwrap();
    assert_eq!((view.index.packs().count(), view.damaged.len()), (0, 1), "{:?}", view.damaged);
    // A snapshot of a in the owner's domain.
    let main = owner.own_domain().unwrap();
    let snapshot = names(&store).into_iter().find(|name| name.as_str().contains(&id.to_string())).unwrap();
    let known = owner_again(&store, &owner).snapshots().unwrap().0.remove(0);
    let header = EnvelopeHeader {
        kind: RecordKind::Snapshot,
        repository: root.repository_id(),
        domain: main,
        author: a.identity,
        sequence: 1,
        epoch: 1,
    };
    let (_, public) = it.metadata_public().unwrap();
    let sealed =
        envelope::seal(&header, &Sealer::Public(public), it.signer(), &known.record.encode()).unwrap();
    let forged = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    store.create(&Name::snapshot(&main, &a.identity, 1, &forged), sealed.into()).unwrap();
    let (known, damaged) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!(known.iter().map(|known| known.name.name.clone()).collect::<Vec<_>>(), [snapshot]);
    assert!(damaged.len() == 1 && damaged[0].to_string().contains("not certified"), "{damaged:?}");
}

#[test]
fn quarantined_packs_and_index_objects_are_out_of_the_view() {
    let store = memory();
    let (_, owner) = created(&store);
    let domain = owner.own_domain().unwrap();
    Source::new("x ").backup(&owner).unwrap();
    let set_aside = |which: &dyn Fn(&Parsed) -> bool| {
        let all = names(&store).into_iter().filter(|name| which(&name.parsed()));
        let objects = all.map(|name| name.to_string()).collect();
        let quarantine = Quarantine { time: COUNTS, objects, reason: String::new() };
        owner.publish_quarantine(&domain, &quarantine).unwrap();
        owner_again(&store, &owner).view(&domain).unwrap()
    };
    let view = set_aside(&|name| matches!(name, Parsed::Pack { kind: PackKind::Data, .. }));
    let standing = |kind| view.index.packs().find(|pack| pack.kind == kind).unwrap().standing;
    assert_eq!(
        (standing(PackKind::Data), standing(PackKind::Metadata)),
        (Standing::SetAside, Standing::Live)
    );
    assert!(view.unindexed.is_empty());
    let view = set_aside(&|name| matches!(name, Parsed::Index { .. }));
    assert_eq!((view.index.packs().count(), view.unindexed.len()), (0, 1));
}

#[test]
fn a_store_that_shows_an_older_world_is_refused_by_whoever_saw_the_newer_one() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let cache = tempfile::tempdir().unwrap();
    let open = || open_with(&store, &credential(&machine), Some(cache.path()));
    let source = Source::new("x ");
    source.backup(&open().unwrap()).unwrap();
    let (head, _) = source.backup(&open().unwrap()).unwrap();
    // Its last snapshot vanishes.
    assert_eq!(delete(&store, |name| matches!(name, Parsed::Snapshot { id, .. } if *id == head)), 1);
    let error = source.backup(&open().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.remedy().unwrap().contains("lifeboat recover"), "{error}");
    // The newest registry vanishes.
    add(&owner, Role::Audit, "later", None);
    open().unwrap();
    assert_eq!(delete(&store, |name| matches!(name, Parsed::Registry { number: 3, .. })), 1);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Damaged);
    let fresh = tempfile::tempdir().unwrap();
    open_with(&store, &credential(&machine), Some(fresh.path())).unwrap();
}

#[test]
fn a_snapshot_tells_of_a_newer_registry_than_the_store_shows() {
    let store = memory();
    let (_, owner) = created(&store);
    add(&owner, Role::Audit, "later", None);
    Source::new("x ").backup(&owner_again(&store, &owner)).unwrap();
    delete(&store, |name| matches!(name, Parsed::Registry { number: 2, .. }));
    let (snapshots, damaged) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!(snapshots.len(), 1);
    assert!(damaged.len() == 1 && damaged[0].to_string().contains("registry 2"), "{damaged:?}");
}

#[test]
fn forgotten_and_quarantined_snapshots_are_gone_and_a_missing_one_is_an_alarm() {
    in_every_store(|store| {
        let (_, owner) = created(&store);
        let machine = add(&owner, Role::Backup, "machine", None);
        let domain = machine.domain.unwrap();
        let it = open(&store, &machine).unwrap();
        let source = Source::new("x ");
        let ids: Vec<ObjectId> = (0..5).map(|_| source.backup(&it).unwrap().0).collect();
        let host = open(&store, &add(&owner, Role::Maintain, "host", None)).unwrap();
        let seen = || {
            let (known, damaged) = host.snapshots().unwrap();
            (known.iter().map(|snapshot| snapshot.name.sequence).collect::<Vec<_>>(), damaged)
        };
        let (time, reason) = (COUNTS, "a test".to_owned());
        let forgotten = Forgotten::new(time, vec![ids[1]], reason.clone());
        host.publish_forgotten(&domain, &forgotten).unwrap();
        let third = host.snapshot_names(&domain, None).unwrap()[2].name.to_string();
        host.publish_quarantine(&domain, &Quarantine { time, objects: vec![third], reason }).unwrap();
        let (sequences, damaged) = seen();
        assert_eq!(sequences, [1, 4, 5]);
        assert!(damaged.is_empty(), "{damaged:?}");
        // The records stand for what is deleted too.
        delete(&store, |name| matches!(name, Parsed::Snapshot { sequence: 2 | 3, .. }));
        assert!(seen().1.is_empty(), "{:?}", seen().1);
        // Nobody forgot this one.
        delete(&store, |name| matches!(name, Parsed::Snapshot { sequence: 4, .. }));
        let (sequences, damaged) = seen();
        assert_eq!(sequences, [1, 5]);
        assert!(damaged.len() == 1 && damaged[0].to_string().contains(&ids[3].to_string()), "{damaged:?}");
    });
}

#[test]
fn records_by_those_who_may_not_write_them_change_nothing_and_are_reported() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let host = add(&owner, Role::Maintain, "host", None);
    let domain = machine.domain.unwrap();
    let it = open(&store, &machine).unwrap();
    let (id, _) = Source::new("x ").backup(&it).unwrap();
    let pack = names(&store).into_iter().find_map(|name| match name.parsed() {
        Parsed::Pack { id, .. } => Some(id),
        _ => None,
    });
    let forge = |signer: &SigningKey, tombstones_too: bool| {
        let forgotten = Forgotten::new(COUNTS, vec![id], "").encode();
        let objects = names(&store).iter().map(ToString::to_string).collect();
        let quarantine = Quarantine { time: COUNTS, objects, reason: String::new() }.encode();
        let tombstones = Tombstones { time: COUNTS, packs: vec![pack.unwrap()] }.encode();
        for (kind, folder, plain) in [
            (RecordKind::Forgotten, store::Folder::Forgotten, forgotten),
            (RecordKind::Quarantine, store::Folder::Quarantine, quarantine),
            (RecordKind::Tombstones, store::Folder::Tombstones, tombstones),
        ] {
            if kind == RecordKind::Tombstones && !tombstones_too {
                continue;
            }
            let header = EnvelopeHeader {
                kind,
                repository: root.repository_id(),
                domain,
                author: signer.identity(),
                sequence: 0,
                epoch: 0,
            };
            let key = it.index_key(&domain).unwrap();
            let sealed = envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), signer, &plain).unwrap();
            let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
            store.create(&Name::record(&domain, folder, &id), sealed.into()).unwrap();
        }
    };
    let all_is_there = |reported: (usize, usize)| {
        let again = owner_again(&store, &owner);
        let (known, damaged) = again.snapshots().unwrap();
        assert_eq!((known.len(), damaged.len()), (1, reported.0), "{damaged:?}");
        let view = again.view(&domain).unwrap();
        assert_eq!(view.damaged.len(), reported.1, "{:?}", view.damaged);
        assert!(view.index.packs().all(|pack| pack.standing == Standing::Live));
        assert!(view.index.packs().next().is_some());
    };
    forge(it.signer(), true);
    all_is_there((2, 2));
    // Tombstones of a key that nobody knows are another matter: they stop the view (tests/commit.rs).
    forge(&SigningKey::generate().unwrap(), false);
    all_is_there((4, 3));
    // A maintain key that was revoked, too, for what it writes afterwards.
    let stolen = open(&store, &host).unwrap();
    key::revoke(&owner, &RevokeOptions { who: "host".to_owned(), last_good: LastGood::Head }).unwrap();
    forge(stolen.signer(), true);
    all_is_there((6, 5));
    // The test can fail: with a good signature these records do count.
    let second = add(&owner, Role::Maintain, "second", None);
    forge(open(&store, &second).unwrap().signer(), true);
    assert!(owner_again(&store, &owner).snapshots().unwrap().0.is_empty());
}

#[test]
fn what_a_maintain_key_wrote_before_it_was_revoked_still_counts() {
    let store = memory();
    let (_, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let it = open(&store, &machine).unwrap();
    let ids: Vec<ObjectId> = (0..2).map(|_| Source::new("x ").backup(&it).unwrap().0).collect();
    let host = open(&store, &add(&owner, Role::Maintain, "host", None)).unwrap();
    let forgotten = Forgotten::new(COUNTS, vec![ids[0]], "");
    host.publish_forgotten(&machine.domain.unwrap(), &forgotten).unwrap();
    let revoked =
        key::revoke(&owner, &RevokeOptions { who: "host".to_owned(), last_good: LastGood::Head }).unwrap();
    assert_eq!(revoked.records, 1);
    let (known, damaged) = owner_again(&store, &owner).snapshots().unwrap();
    assert_eq!((known.len(), damaged.len()), (1, 0), "{damaged:?}");
}

#[test]
fn two_machines_with_one_key_are_an_alarm_unless_it_is_shared() {
    for shared in [false, true] {
        let store = memory();
        let (_, owner) = created(&store);
        let options = AddOptions {
            role: Role::Backup,
            label: "machine".to_owned(),
            domain: None,
            shared,
            unlock: By::AccessKey,
        };
        let machine = key::add(&owner, &options).unwrap();
        let it = open(&store, &machine).unwrap();
        let source = Source::new("x ");
        source.backup(&it).unwrap();
        let first: Vec<_> = names(&store)
            .into_iter()
            .filter(|name| matches!(name.parsed(), Parsed::Snapshot { .. }))
            .map(|name| (store.read(&name, 1 << 20).unwrap(), name))
            .collect();
        delete(&store, |name| matches!(name, Parsed::Snapshot { .. }));
        // The second machine saw no snapshot yet.
        source.backup(&open(&store, &machine).unwrap()).unwrap();
        for (bytes, name) in first {
            store.create(&name, bytes).unwrap();
        }
        let (known, damaged) = owner_again(&store, &owner).snapshots().unwrap();
        assert_eq!((known.len(), damaged.len()), (2, usize::from(!shared)), "{damaged:?}");
    }
}

fn recover(store: &Store, words: &str, lost: Lost) -> Result<key::Recovered> {
    let unlock = By::Passphrase(Zeroizing::new("recovered".to_owned()));
    key::recover(store, &RecoverOptions { words, unlock, lost }, &SystemClock)
}

fn recovered(store: &Store) -> Repository {
    open_with(store, &Credential::Passphrase("recovered".to_owned().into(), None), None).unwrap()
}

#[test]
fn config_and_key_slots_come_back_from_the_words() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        let init = InitOptions {
            commit_window_seconds: 300,
            minimum_grace_seconds: 86_400,
            ..InitOptions::default()
        };
        Repository::create(&store, &root, "owner", init, &SystemClock).unwrap();
        let before = store.read(&Name::config(), 1 << 20).unwrap();
        let owner = open_with(&store, &Credential::Words(root.words()), None).unwrap();
        let source = Source::new("x ");
        let (id, _) = source.backup(&owner).unwrap();
        assert_eq!(delete(&store, |name| matches!(name, Parsed::Config | Parsed::Slot(_))), 2);
        let error = recover(&store, &root.words(), Lost::Refuse).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.remedy().unwrap().contains("--rebuild-config"));
        let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
        assert_eq!((done.config, done.registry), (Part::Rebuilt, Part::Kept));
        assert!(done.lost.is_empty());
        assert_eq!(store.read(&Name::config(), 1 << 20).unwrap(), before);
        source.is_restored_by(&recovered(&store), &id);
        // Words of another repository write nothing.
        let count = names(&store).len();
        let foreign = RootSecret::generate().unwrap().words();
        let error = recover(&store, &foreign, Lost::Rebuild).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock);
        assert_eq!(names(&store).len(), count);
        // With everything there it is one more slot.
        let done = recover(&store, &root.words(), Lost::Refuse).unwrap();
        assert_eq!((done.config, done.registry), (Part::Kept, Part::Kept));
        assert_eq!(names(&store).len(), count + 1);
    });
}

#[test]
fn with_the_registry_gone_too_the_words_restore_every_machine() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        let init = InitOptions {
            commit_window_seconds: 300,
            minimum_grace_seconds: 86_400,
            ..InitOptions::default()
        };
        Repository::create(&store, &root, "owner", init, &SystemClock).unwrap();
        let owner = open_with(&store, &Credential::Words(root.words()), None).unwrap();
        let machine = add(&owner, Role::Backup, "machine", None);
        let sources = [Source::new("owner's "), Source::new("machine's ")];
        let (own, _) = sources[0].backup(&owner).unwrap();
        let it = open(&store, &machine).unwrap();
        let theirs: Vec<ObjectId> = (0..3).map(|_| sources[1].backup(&it).unwrap().0).collect();
        let host = open(&store, &add(&owner, Role::Maintain, "host", None)).unwrap();
        let forgotten = Forgotten::new(COUNTS, vec![theirs[0]], "");
        host.publish_forgotten(&machine.domain.unwrap(), &forgotten).unwrap();
        delete(&store, |name| matches!(name, Parsed::Config | Parsed::Slot(_) | Parsed::Registry { .. }));
        let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
        assert_eq!((done.config, done.registry), (Part::Rebuilt, Part::Rebuilt));
        assert!(!done.lost.is_empty());
        let owner = recovered(&store);
        assert_eq!(owner.config.commit_window_seconds, 300);
        assert_eq!(owner.snapshots().unwrap().0.len(), 3, "the forgotten one stays forgotten");
        sources[0].is_restored_by(&owner, &own);
        sources[1].is_restored_by(&owner, &theirs[2]);
        // What wrote more than snapshots counts for that and nothing else.
        let listed = key::list(&owner).unwrap();
        let host = listed.iter().find(|row| row.identity == host.identity()).unwrap();
        assert!(host.revoked.is_some());
        let next = add(&owner, Role::Backup, "next", Some("main"));
        sources[1].backup(&open(&store, &next).unwrap()).unwrap();
    });
}

fn said(by: &Repository, domain: &DomainId, snapshot: ObjectId, says: Says) -> ObjectId {
    let annotation = Annotation { time: COUNTS, snapshots: vec![snapshot], says };
    record(&by.publish_annotation(domain, &annotation).unwrap())
}

/// Vouches for nothing: from then on a rebuild takes it for more than a machine.
fn attest(by: &Repository, domain: &DomainId) {
    by.publish_attestation(domain, &Attestation { time: COUNTS, sections: Vec::new() }).unwrap();
}

#[test]
fn what_a_rebuild_cannot_read_counts_when_it_comes_back() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let domain = machine.domain.unwrap();
    let it = open(&store, &machine).unwrap();
    let source = Source::new("x ");
    let [ended, held] = [(); 2].map(|()| source.backup(&it).unwrap().0);
    let [second, third] =
        ["second", "third"].map(|label| open(&store, &add(&owner, Role::Owner, label, Some(label))).unwrap());
    let before = source.backup(&second).unwrap().0;
    let heads = [source.backup(&second).unwrap().0, source.backup(&third).unwrap().0];
    [&second, &third].into_iter().for_each(|by| attest(by, &domain));
    let host = open(&store, &add(&owner, Role::Maintain, "host", None)).unwrap();
    host.publish_forgotten(&domain, &Forgotten::new(COUNTS, Vec::new(), "")).unwrap();
    let hold = said(&owner, &domain, held, Says::Hold("another".to_owned()));
    let rotten = [
        heads[0],
        heads[1],
        said(&host, &domain, held, Says::Hold("case".to_owned())),
        // But no lift by the word of another owner, which a thief may have put there damaged.
        said(&second, &domain, held, Says::Lift(vec![hold], "closed".to_owned())),
        record(&second.publish_forgotten(&domain, &Forgotten::new(COUNTS, vec![ended], "")).unwrap()),
    ];
    let is_rotten = |name: &Parsed| match name {
        Parsed::Snapshot { id, .. } | Parsed::Record { id, .. } => rotten.contains(id),
        Parsed::Index { writer, .. } => *writer == second.identity(),
        _ => false,
    };
    let good: Vec<_> = names(&store)
        .into_iter()
        .filter(|name| is_rotten(&name.parsed()))
        .map(|name| (store.read(&name, 1 << 20).unwrap(), name))
        .collect();
    assert_eq!(good.len(), 6);
    delete(&store, is_rotten);
    good.iter().for_each(|(_, name)| store.create(name, b"rotten".to_vec().into()).unwrap());
    delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
    for (what, name) in [("2 snapshots", "/snapshots/"), ("2 annotations", "/annotations/")] {
        let is_told = |line: &String| line.starts_with(what) && line.contains(name);
        assert!(done.lost.iter().any(is_told), "{what}: {done:?}");
    }
    // Until then nothing goes.
    let pruned = prune::run(&recovered(&store), &PruneOptions::default()).unwrap();
    let refused: Vec<_> = pruned.domains.iter().filter(|done| done.refused.is_some()).collect();
    assert_eq!(refused.len(), 3, "{pruned:?}");
    for (bytes, name) in good {
        store.delete(&name).unwrap();
        store.create(&name, bytes).unwrap();
    }
    let owner = recovered(&store);
    let (known, damaged) = owner.snapshots().unwrap();
    assert!(damaged.len() == 1 && damaged[0].to_string().contains("/annotations/"), "{damaged:?}");
    let mut ids: Vec<ObjectId> = known.iter().map(|known| known.name.id).collect();
    let mut all = vec![held, before, heads[0], heads[1]];
    ids.sort_unstable();
    all.sort_unstable();
    assert_eq!(ids, all);
    let holds = |id| known.iter().find(|known| known.name.id == id).unwrap().holds.len();
    assert_eq!((holds(held), holds(before)), (2, 0));
    let view = owner.view(&second.own_domain().unwrap()).unwrap();
    assert!(view.damaged.is_empty() && view.unindexed.is_empty(), "{:?}", view.damaged);
}

fn record(name: &Name) -> ObjectId {
    let Parsed::Record { id, .. } = name.parsed() else { unreachable!("{name}") };
    id
}

/// Whatever stands in the bucket may have been put there by anybody who can write to it.
#[test]
fn a_rebuilt_registry_believes_nobody_without_the_keys_of_a_domain_and_lifts_no_hold() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let it = open(&store, &machine).unwrap();
    let source = Source::new("x ");
    let (held, _) = source.backup(&it).unwrap();
    let (domain, main) = (machine.domain.unwrap(), owner.own_domain().unwrap());
    // What another owner has lifted a thief could have lifted, who makes himself out for one.
    let second = open(&store, &add(&owner, Role::Owner, "second", None)).unwrap();
    let says = |by: &Repository, says: Says| {
        let annotation = Annotation { time: COUNTS, snapshots: vec![held], says };
        by.publish_annotation(&domain, &annotation).unwrap().parsed()
    };
    let Parsed::Record { id: hold, .. } = says(&owner, Says::Hold("case".to_owned())) else { unreachable!() };
    says(&second, Says::Lift(vec![hold], "closed".to_owned()));
    second.publish_attestation(&domain, &Attestation { time: COUNTS, sections: Vec::new() }).unwrap();
    second.publish_forgotten(&domain, &Forgotten::new(COUNTS, Vec::new(), "")).unwrap();
    assert_eq!(owner_again(&store, &owner).snapshots().unwrap().0[0].holds.len(), 0);
    // Objects that are well signed, and sealed with keys of somewhere else.
    let made_up = SigningKey::generate().unwrap();
    let own = it.index_key(&domain).unwrap();
    let seal = |kind, domain, signer: &SigningKey, key: &[u8; 32]| {
        let (author, repository) = (signer.identity(), root.repository_id());
        let header = EnvelopeHeader { kind, repository, domain, author, sequence: 0, epoch: 0 };
        let sealed = envelope::seal(&header, &Sealer::Symmetric(key), signer, b"x").unwrap();
        (ObjectId::new(*blake3::hash(&sealed).as_bytes()), sealed)
    };
    let (id, sealed) = seal(RecordKind::Index, main, it.signer(), own.as_bytes());
    store.create(&Name::index(&main, &machine.identity, &id), sealed.into()).unwrap();
    let (id, sealed) = seal(RecordKind::Attestation, domain, &made_up, &[7; 32]);
    store.create(&Name::record(&domain, store::Folder::Attestations, &id), sealed.into()).unwrap();
    delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
    assert!(done.lost.iter().any(|line| line.starts_with("1 ") && line.contains("hold list")), "{done:?}");
    let owner = recovered(&store);
    assert_eq!(owner.snapshots().unwrap().0[0].holds.len(), 1);
    let listed = key::list(&owner).unwrap();
    let role = |identity| {
        let row = listed.iter().find(|row| row.identity == identity)?;
        Some((row.role, row.revoked.is_some()))
    };
    assert_eq!(role(second.identity()), Some((Some(Role::Owner), true)));
    assert_eq!(role(machine.identity), Some((Some(Role::Backup), false)));
    assert_eq!(role(made_up.identity()), None);
    source.backup(&open(&store, &machine).unwrap()).unwrap();
}

#[test]
fn a_bit_that_flips_on_the_way_takes_nothing_from_a_rebuilt_registry() {
    let objects = Intercepted::watching(Arc::new(object_store::memory::InMemory::new()));
    let store = Store::from_object_store(Arc::<Intercepted>::clone(&objects), "p", options()).unwrap();
    let (root, owner) = created(&store);
    let second = open(&store, &add(&owner, Role::Owner, "second", None)).unwrap();
    let source = Source::new("x ");
    source.backup(&second).unwrap();
    let (head, sequence) = source.backup(&second).unwrap();
    attest(&second, &owner.own_domain().unwrap());
    delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    for part in ["/snapshots/", "/attestations/"] {
        objects
            .intercept(nth(0, Fault::Flips, move |call| call.kind == Kind::Get && call.name.contains(part)));
        let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
        objects.let_through();
        let owner = recovered(&store);
        let registry = owner.registry();
        let left = registry.revocation(&second.identity()).unwrap();
        assert_eq!((left.last_sequence, &left.last, sequence), (2, &vec![head], 2));
        assert!(done.lost.iter().all(|line| !line.contains("could not be read")), "{done:?}");
        delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    }
}

#[test]
fn what_an_owner_who_only_attested_and_tagged_has_said_outlives_a_rebuild() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let domain = machine.domain.unwrap();
    let (kept, _) = Source::new("x ").backup(&open(&store, &machine).unwrap()).unwrap();
    let technician = open(&store, &add(&owner, Role::Restore, "technician", None)).unwrap();
    attest(&technician, &domain);
    said(&technician, &domain, kept, Says::Hold("case".to_owned()));
    let second = open(&store, &add(&owner, Role::Owner, "second", None)).unwrap();
    attest(&second, &domain);
    said(
        &second,
        &domain,
        kept,
        Says::Tags(TagChange { add: vec!["keep".to_owned()], ..TagChange::default() }),
    );
    delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    recover(&store, &root.words(), Lost::Rebuild).unwrap();
    let owner = recovered(&store);
    let (known, damaged) = owner.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!((known[0].tags.as_slice(), known[0].holds.len()), (&["keep".to_owned()][..], 1));
    // Of whoever attested and placed a hold it is known that a restore key may.
    let role = |by: &Repository| owner.registry().certificate(&by.identity()).unwrap().role;
    assert_eq!((role(&technician), role(&second)), (Role::Restore, Role::Owner));
}

#[test]
fn a_machine_goes_on_with_its_key_and_its_memory_after_the_registry_was_rebuilt() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Backup, "machine", None);
    let cache = tempfile::tempdir().unwrap();
    let open = || open_with(&store, &credential(&machine), Some(cache.path()));
    let source = Source::new("x ");
    source.backup(&open().unwrap()).unwrap();
    // The machine sees registries that no snapshot tells of.
    add(&owner, Role::Audit, "later", None);
    open().unwrap();
    delete(&store, |name| matches!(name, Parsed::Registry { .. }));
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Damaged);
    recover(&store, &root.words(), Lost::Rebuild).unwrap();
    assert_eq!(source.backup(&open().unwrap()).unwrap().1, 2);
    let (known, damaged) = recovered(&store).snapshots().unwrap();
    assert_eq!((known.len(), damaged.len()), (2, 0), "{damaged:?}");
}

#[test]
fn a_damaged_newest_registry_stops_everybody_but_recover() {
    let store = memory();
    let (root, owner) = created(&store);
    add(&owner, Role::Audit, "later", None);
    let newest = names(&store)
        .into_iter()
        .find(|name| matches!(name.parsed(), Parsed::Registry { number: 2, .. }))
        .unwrap();
    let mut bytes = store.read(&newest, 1 << 20).unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    store.delete(&newest).unwrap();
    store.create(&newest, bytes.into()).unwrap();
    let words = Credential::Words(root.words());
    assert_eq!(open_with(&store, &words, None).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(recover(&store, &root.words(), Lost::Refuse).unwrap_err().kind(), ErrorKind::Damaged);
    let done = recover(&store, &root.words(), Lost::Rebuild).unwrap();
    assert_eq!((done.registry, done.lost.len()), (Part::Rebuilt, 1));
    assert!(recovered(&store).registry().number > 2);
}

#[test]
fn config_says_nothing_that_the_owner_did_not_sign() {
    let store = memory();
    let (root, owner) = created(&store);
    let mut config = owner.config.clone();
    config.commit_window_seconds = 5;
    store.delete(&Name::config()).unwrap();
    store.create(&Name::config(), config.encode().into()).unwrap();
    let error = open_with(&store, &Credential::Words(root.words()), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn an_exported_certificate_is_signed_by_the_root() {
    let store = memory();
    let (root, owner) = created(&store);
    let machine = add(&owner, Role::Restore, "technician", None);
    let exported = key::certificate(&owner, "technician").unwrap();
    let exported: serde_json::Value = serde_json::from_slice(&exported).unwrap();
    let text = |field: &str| exported[field].as_str().unwrap().to_owned();
    assert_eq!(text("identity"), machine.identity.to_string());
    let signature = lifeboat::id::from_hex(&text("root_signature")).unwrap();
    root.signing_key().verifying_key().verify(text("statement").as_bytes(), &signature).unwrap();
    for field in ["repository_id", "root_public_key", "identity", "verifying_key", "role", "label"] {
        assert!(text("statement").lines().any(|line| line == text(field)), "{field}");
    }
}

/// Whoever may write below `keys/` must not be able to lock the others out with work.
#[test]
fn very_many_slots_and_greedy_ones_are_refused_without_much_work() {
    let objects = Arc::new(object_store::memory::InMemory::new());
    let store =
        Store::from_object_store(Arc::<object_store::memory::InMemory>::clone(&objects), "", options())
            .unwrap();
    let (root, _) = created(&store);
    let config = Repository::read_config(&store).unwrap();
    let slot = names(&store).into_iter().find(|name| matches!(name.parsed(), Parsed::Slot(_))).unwrap();
    let bytes = store.read(&slot, 1 << 20).unwrap();
    // Names that come first, and slots that are not theirs: no passphrase is stretched for any.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        use object_store::ObjectStoreExt;
        for number in 0..100_000_u32 {
            let path = object_store::path::Path::from(format!("keys/{number:032x}-00000000"));
            objects.put(&path, bytes.clone().into()).await.unwrap();
        }
    });
    let wrong = Credential::Passphrase("wrong".to_owned().into(), None);
    let error = Repository::unlock(&store, &config, &wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CannotUnlock, "{error}");
    assert!(error.to_string().contains("1024") && error.remedy().unwrap().contains("--slot"), "{error}");
    // The own one still opens by its name, and the words need none.
    let Parsed::Slot(own) = slot.parsed() else { unreachable!() };
    let right = Credential::Passphrase("owner".to_owned().into(), Some(own));
    Repository::unlock(&store, &config, &right).unwrap();
    Repository::unlock(&store, &config, &Credential::Words(root.words())).unwrap();
}

/// A machine with a cache, on which passphrases are typed.
struct Machine {
    over: Arc<Intercepted>,
    store: Store,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let over = Intercepted::watching(Arc::new(object_store::memory::InMemory::new()));
        let store = Store::from_object_store(Arc::<Intercepted>::clone(&over), "", options()).unwrap();
        Self { over, store, folder: tempfile::tempdir().unwrap() }
    }

    /// With how many LIST of the key slots, and how many GET of them.
    fn open(&self, passphrase: &str) -> (Result<Repository>, usize, usize) {
        self.over.let_through();
        let config = Repository::read_config(&self.store).unwrap();
        let credential = Credential::Passphrase(passphrase.to_owned().into(), None);
        let (store, cache) = (self.store.clone(), Some(self.folder.path()));
        let opened = Repository::unlock_and_open(store, config, &credential, cache, Arc::new(SystemClock));
        let calls = self.over.calls();
        let slots =
            |kind| calls.iter().filter(|call| call.kind == kind && call.name.starts_with("keys")).count();
        (opened, slots(Kind::List), slots(Kind::Get))
    }

    fn opens(&self, passphrase: &str, asked: (usize, usize)) -> Repository {
        let (opened, lists, gets) = self.open(passphrase);
        assert_eq!((lists, gets), asked);
        opened.unwrap()
    }

    fn refuses(&self, passphrase: &str, says: &str) {
        let error = self.open(passphrase).0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock);
        assert!(error.to_string().contains(says), "{error}");
    }

    /// Where the name of the slot is remembered.
    fn note(&self, repository: &Repository) -> std::path::PathBuf {
        self.folder.path().join(repository.config.repository_id.to_string()).join("slot")
    }
}

/// The slot that a passphrase opened last on a machine is remembered there, and is nothing that anybody depends on.
#[test]
fn the_slot_that_a_passphrase_opened_last_is_tried_first_and_whatever_is_wrong_with_it_all_are_tried() {
    let machine = Machine::new();
    let (_, owner) = created(&machine.store);
    // A wrong one leaves nothing behind.
    machine.refuses("wrong", "the passphrase is wrong");
    assert_eq!(std::fs::read_dir(machine.folder.path()).unwrap().count(), 0);
    machine.opens("owner", (1, 1));
    machine.opens("owner", (0, 1));
    machine.refuses("wrong", "the passphrase is wrong");
    machine.opens("owner", (0, 1));
    let note = machine.note(&owner);
    let known = std::fs::read_to_string(&note).unwrap();
    let gone = format!("{}-00000000", owner.identity());
    let of_a_program = add(&owner, Role::Backup, "web1", None).access_key.as_ref().unwrap().slot.clone();
    let slots = store_slots(&machine.store);
    assert_eq!(slots, 2);
    for (other, more) in [(&gone, 1), (&of_a_program, 1)] {
        std::fs::write(&note, other).unwrap();
        // In the order of their names the other slot may come first.
        let (opened, lists, gets) = machine.open("owner");
        opened.unwrap();
        assert!(lists == 1 && (1 + more..=slots + more).contains(&gets), "{lists} {gets}");
        machine.opens("owner", (0, 1));
    }
    // What is no name of a slot is not asked for.
    for other in ["", "../config", "\u{0}\n", &known.repeat(9), &known.to_uppercase(), "secret"] {
        std::fs::write(&note, other).unwrap();
        machine.open("owner").0.unwrap();
        assert!(machine.over.calls().iter().all(|call| !call.name.contains("secret")));
        machine.opens("owner", (0, 1));
    }
    // Nor is a folder asked that others may write in.
    let cache = note.parent().unwrap();
    std::fs::set_permissions(cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(machine.open("owner").1, 1);
    std::fs::set_permissions(cache, std::fs::Permissions::from_mode(0o700)).unwrap();
    machine.opens("owner", (0, 1));
    // A storage that does not answer is told at once.
    machine.over.intercept(
        |call: &Call| {
            if call.name.starts_with("keys/") { Fate::Fails(broken()) } else { Fate::Works }
        },
    );
    let config = Repository::read_config(&machine.store).unwrap();
    let credential = Credential::Passphrase("owner".to_owned().into(), None);
    let (store, cache) = (machine.store.clone(), Some(machine.folder.path()));
    let opened = Repository::unlock_and_open(store, config, &credential, cache, Arc::new(SystemClock));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Temporary);
    assert!(
        machine.over.calls().iter().all(|call| call.kind != Kind::List || !call.name.starts_with("keys"))
    );
    // A damaged slot is told of as ever.
    machine.over.let_through();
    let name = Name::slot(&known);
    let mut bytes = machine.store.read(&name, 1 << 20).unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    machine.store.delete(&name).unwrap();
    machine.store.create(&name, bytes.into()).unwrap();
    machine.refuses("owner", "keys/");
    machine.store.delete(&name).unwrap();
    machine.refuses("owner", "no key slot that takes a passphrase");
}

fn store_slots(store: &Store) -> usize {
    names(store).iter().filter(|name| matches!(name.parsed(), Parsed::Slot(_))).count()
}

/// Whose slot could not be deleted, and who uses the passphrase again.
#[test]
fn the_remembered_slot_of_a_revoked_key_keeps_no_other_with_that_passphrase_from_opening() {
    let machine = Machine::new();
    let (_, owner) = created(&machine.store);
    let with = |label: &str| {
        let unlock = By::Passphrase("the same".to_owned().into());
        let options =
            AddOptions { role: Role::Restore, label: label.to_owned(), domain: None, shared: false, unlock };
        key::add(&owner, &options).unwrap();
    };
    with("old");
    let old = machine.open("the same").0.unwrap().identity();
    let slot = Name::slot(&std::fs::read_to_string(machine.note(&owner)).unwrap());
    let bytes = machine.store.read(&slot, 1 << 20).unwrap();
    let options = RevokeOptions { who: "old".to_owned(), last_good: LastGood::Head };
    key::revoke(&owner, &options).unwrap();
    machine.store.create(&slot, bytes).unwrap();
    let (opened, ..) = machine.open("the same");
    assert!(opened.unwrap_err().to_string().contains("revoked"));
    with("new");
    // Among all of them the first in the order of their names counts, as without a cache.
    let (opened, lists, _) = machine.open("the same");
    assert_eq!(lists, 1);
    assert!(opened.map_or_else(|error| error.to_string().contains("revoked"), |new| new.identity() != old));
    machine.store.delete(&slot).unwrap();
    machine.open("the same").0.unwrap();
    machine.opens("the same", (0, 1));
}

#[test]
fn a_remembered_slot_costs_no_other_one_its_try_and_a_new_passphrase_or_a_named_slot_is_remembered() {
    let machine = Machine::new();
    let (_, owner) = created(&machine.store);
    let mut slots = vec![(machine_slot(&machine, &owner), "owner".to_owned())];
    for number in 0..8 {
        let passphrase = format!("of {number}");
        let unlock = By::Passphrase(passphrase.clone().into());
        let label = format!("key {number}");
        let options = AddOptions { role: Role::Restore, label, domain: None, shared: false, unlock };
        slots.push((key::add(&owner, &options).unwrap().slot, passphrase));
    }
    slots.sort();
    // Eight are tried, and the last of these opens also where the ninth is remembered.
    let [.., (_, eighth), (ninth, of_ninth)] = &slots[..] else { unreachable!() };
    std::fs::write(machine.note(&owner), ninth).unwrap();
    assert_eq!(machine.opens(eighth, (1, 9)).secrets().identity(), machine.opens(eighth, (0, 1)).identity());
    // The ninth opens by its name, and is remembered then.
    let config = Repository::read_config(&machine.store).unwrap();
    let credential = Credential::Passphrase(of_ninth.clone().into(), Some(ninth.clone()));
    let (store, cache) = (machine.store.clone(), Some(machine.folder.path()));
    Repository::unlock_and_open(store, config, &credential, cache, Arc::new(SystemClock)).unwrap();
    let repository = machine.opens(of_ninth, (0, 1));
    key::passphrase(&repository, "another", None, KdfParameters::default()).unwrap();
    machine.opens("another", (0, 1));
}

/// The slot of the owner, which is remembered from then on.
fn machine_slot(machine: &Machine, owner: &Repository) -> String {
    machine.open("owner").0.unwrap();
    std::fs::read_to_string(machine.note(owner)).unwrap()
}
