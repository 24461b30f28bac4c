//! `repair`: what the index has lost is listed again, what nobody can read is set aside, nothing is deleted, and no
//! hostile pack becomes more than it was.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, slice, sync::Arc};

use bytes::Bytes;
use lifeboat::{
    clock::Timestamp,
    error::{ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        envelope::RecordKind,
        node::{Child, Node},
        pack::{Directory, IndexedPack, PackKind, TRAILER_LEN, Trailer},
        role::Role,
        tombstones::Tombstones,
        wire::Writer,
    },
    id::{DomainId, IdentityId, ObjectId, PackId},
    ops::{
        backup::{self, BackupOptions},
        key::{self, AddOptions, By, LastGood, RevokeOptions},
        prune::{self, PruneOptions},
        repair::{self, AsideOptions, Copy, Force, Hurt, IndexDone, Mode, SnapshotOptions, Verdict},
    },
    repository::{Repository, unlock::Credential, view::ListedPack},
    store::{Deletion, Name, Parsed},
};

mod support {
    pub(crate) mod faults;
    pub(crate) mod forger;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod ram;
    pub(crate) mod world;
}
use support::{
    faults::{Fault, at},
    forger::{self, Forged, Manifest},
    intercepted::{Call, Fate, Intercepted, Interceptor, Kind},
    lab::{self, Files, noise},
    ram::Ram,
    world::{World, objects, tree},
};

/// A repository with two snapshots.
struct Scene {
    ram: Ram,
    files: [Files; 2],
}

impl std::ops::Deref for Scene {
    type Target = Ram;

    fn deref(&self) -> &Ram {
        &self.ram
    }
}

impl Scene {
    fn new() -> Self {
        let files =
            [(1, 90_000), (2, 180_000)].map(|(n, size)| Files::from([(format!("srv/{n}"), noise(n, size))]));
        let scene = Self { ram: Ram::new(), files };
        scene.files.iter().for_each(|files| _ = lab::back_up(&scene.owner(), files).unwrap());
        scene
    }

    /// The same objects, in another store.
    fn fork(&self) -> Self {
        Self { ram: self.ram.fork(), files: self.files.clone() }
    }

    fn domain(&self) -> DomainId {
        self.owner().own_domain().unwrap()
    }

    /// Turns a bit in the middle of an object.
    fn flip(&self, name: &Name) {
        self.ram.flip(name, self.bytes(name).len() / 2);
    }

    /// All objects with their bytes.
    fn all(&self) -> Vec<(Name, Vec<u8>)> {
        self.names("").into_iter().map(|name| (name.clone(), self.bytes(&name))).collect()
    }

    fn repair(&self, mode: Mode) -> IndexDone {
        repair_by(&self.owner(), mode).unwrap()
    }

    /// Everything comes back, and nothing is damaged.
    #[track_caller]
    fn holds(&self) {
        let repository = self.owner();
        let (known, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty() && known.len() == self.files.len(), "{damaged:?}");
        for (snapshot, expected) in known.iter().zip(&self.files) {
            let (files, restored) = lab::restore(&repository, snapshot).unwrap();
            assert!(restored.failures == 0 && files == *expected, "{:?}", restored.failed);
        }
        assert_eq!(lab::check_all(&repository).unwrap().problems, []);
    }

    fn prune(&self) -> Result<()> {
        let [domain] =
            <[_; 1]>::try_from(prune::run(&self.owner(), &PruneOptions::default())?.domains).unwrap();
        domain.refused.map_or(Ok(()), Err)
    }

    fn aside(&self, names: &[&Name], force: Force) -> Result<Vec<Verdict>> {
        let names = names.iter().map(|name| name.as_str().to_owned()).collect();
        let options = AsideOptions { names, reason: None, force, mode: Mode::Write };
        repair::set_aside(&self.owner(), &options)
    }

    /// Refused, and nothing is written.
    #[track_caller]
    fn refuses(&self, name: &Name, force: Force, words: &str) {
        let before = self.names("");
        let error = self.aside(&[name], force).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        let said = format!("{error}. {}", error.remedy().unwrap());
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(self.names(""), before);
    }
}

fn repair_by(repository: &Repository, mode: Mode) -> Result<IndexDone> {
    let [domain] = <[_; 1]>::try_from(repair::index(repository, mode)?).unwrap();
    Ok(domain.done)
}

/// What a repair says that it does.
fn summary(done: &IndexDone) -> (u64, u64, Vec<String>, Vec<String>) {
    let names = |faults: &[repair::Fault]| faults.iter().map(|fault| fault.object.clone()).collect();
    (done.listed.packs, done.index_written, names(&done.set_aside), names(&done.unreadable))
}

#[test]
fn an_index_that_is_lost_whole_is_listed_again_from_the_packs() {
    let scene = Scene::new();
    let packs = scene.names("/packs/").len() as u64;
    for name in scene.names("/index/") {
        scene.store().delete(&name).unwrap();
    }
    let damaged = lab::check_all(&scene.owner()).unwrap();
    assert!(damaged.problems_found > 0);
    let before = scene.all();
    let planned = scene.repair(Mode::DryRun);
    assert_eq!(scene.all(), before, "a dry run writes nothing");
    assert_eq!(summary(&planned), (packs, 1, vec![], vec![]));
    let done = scene.repair(Mode::Write);
    assert_eq!(summary(&done), summary(&planned));
    assert!(done.listed.bytes > 0 && done.listed == planned.listed);
    scene.holds();
    // The next backup borrows from what was listed again.
    lab::back_up(&scene.owner(), &scene.files[1]).unwrap();
    assert_eq!(scene.names("/packs/").len() as u64, packs);
    assert!(
        before.iter().all(|(name, bytes)| scene.bytes(name) == *bytes),
        "nothing is deleted or overwritten"
    );
    scene.prune().unwrap();
}

#[test]
fn a_maintain_key_repairs_the_index_of_a_client_and_the_client_borrows_from_it() {
    let scene = Scene::new();
    let keeper = scene.add_key(Role::Maintain, "keeper");
    let client = scene.add_key(Role::Backup, "web");
    lab::back_up(&client, &scene.files[0]).unwrap();
    for name in scene.names("/index/") {
        scene.store().delete(&name).unwrap();
    }
    let packs = scene.names("/packs/");
    let done = repair_by(&keeper, Mode::Write).unwrap();
    assert_eq!(done.listed.packs, packs.len() as u64, "{done:?}");
    lab::back_up(&client, &scene.files[0]).unwrap();
    assert_eq!(scene.names("/packs/"), packs);
}

#[test]
fn a_damaged_index_object_is_set_aside_when_its_packs_are_listed_again_and_a_prune_goes_on() {
    let scene = Scene::new();
    let [first, second] = <[Name; 2]>::try_from(scene.names("/index/")).unwrap();
    scene.flip(&first);
    let error = scene.prune().unwrap_err();
    assert!(error.remedy().unwrap().contains("lifeboat repair index"), "{error:?}");
    let planned = scene.repair(Mode::DryRun);
    let done = scene.repair(Mode::Write);
    assert_eq!(summary(&done), summary(&planned));
    assert_eq!(summary(&done), (2, 1, vec![first.as_str().to_owned()], vec![]));
    assert!(done.set_aside[0].why.contains("its bytes are not those"), "{done:?}");
    assert!(scene.names("/index/").contains(&first) && scene.names("/index/").contains(&second));
    scene.holds();
    scene.prune().unwrap();
    // It is not done twice.
    let before = scene.names("");
    assert_eq!(summary(&scene.repair(Mode::Write)), (0, 0, vec![], vec![]));
    assert_eq!(scene.names(""), before);
}

#[test]
fn a_repair_of_what_is_whole_writes_nothing() {
    let scene = Scene::new();
    let over = Intercepted::watching(Arc::new(scene.objects.clone()));
    let repository = scene.over(&over).unwrap();
    let done = repair_by(&repository, Mode::Write).unwrap();
    assert_eq!(summary(&done), (0, 0, vec![], vec![]));
    assert_eq!((done.objects, done.packs), (2, scene.names("/packs/").len() as u64));
    let changes = |call: &&Call| call.kind.changes_something();
    assert_eq!(over.calls().iter().filter(changes).count(), 0);
    scene.holds();
}

#[test]
fn a_repair_that_is_stopped_at_any_call_is_finished_by_the_next_one() {
    let scene = Scene::new();
    let [first, second] = <[Name; 2]>::try_from(scene.names("/index/")).unwrap();
    scene.flip(&first);
    scene.store().delete(&second).unwrap();
    let run = |scene: &Scene, over: &Arc<Intercepted>| {
        let repository = scene.over(over)?;
        repair_by(&repository, Mode::Write)
    };
    let calls = {
        let scene = scene.fork();
        let over = Intercepted::watching(Arc::new(scene.objects.clone()));
        run(&scene, &over).unwrap();
        over.calls().len()
    };
    assert!(calls > 15, "{calls}");
    for number in 0..calls {
        for fault in [Fault::StopsBefore, Fault::StopsAfter] {
            let scene = scene.fork();
            let before = scene.all();
            let over = Intercepted::watching(Arc::new(scene.objects.clone()));
            over.intercept(at(number, fault));
            let outcome = run(&scene, &over);
            assert!(outcome.is_err() || number + 1 == calls, "{number} {fault:?}: {outcome:?}");
            scene.repair(Mode::Write);
            assert_eq!(summary(&scene.repair(Mode::Write)), (0, 0, vec![], vec![]));
            assert!(before.iter().all(|(name, bytes)| scene.bytes(name) == *bytes), "{number} {fault:?}");
            if number % 5 == 0 {
                scene.holds();
            }
        }
    }
}

#[test]
fn an_index_object_that_did_not_arrive_sets_nothing_aside() {
    for fault in [Fault::Forgets, Fault::Halves, Fault::Flips] {
        let scene = Scene::new();
        let first = scene.names("/index/").remove(0);
        scene.flip(&first);
        let over = Intercepted::watching(Arc::new(scene.objects.clone()));
        let repository = scene.over(&over).unwrap();
        over.intercept(move |call: &Call| {
            let is_index = call.kind.is_put() && call.name.contains("/index/");
            if is_index { fault.fate(call) } else { Fate::Works }
        });
        let error = repair_by(&repository, Mode::Write).unwrap_err();
        assert!(error.remedy().is_some(), "{fault:?}: {error:?}");
        assert_eq!(scene.names("/quarantine/"), [], "{fault:?}");
        scene.repair(Mode::Write);
        scene.holds();
    }
}

/// A pack of one chunk that no index lists; what its directory says may be a lie.
fn pack(repository: &Repository, lie: impl Fn(&mut Directory)) -> IndexedPack {
    let chunk = noise(9, 5_000);
    let id = Manifest::new(repository).chunk(&chunk).id;
    forger::pack(repository, PackKind::Data, &[Forged::raw(id, &chunk)], lie)
}

#[test]
fn a_client_cannot_have_a_section_listed_that_bears_another_ones_name() {
    let scene = Scene::new();
    let (owner, client) = (scene.owner(), scene.add_key(Role::Backup, "web"));
    let other = owner.identity();
    let lie = |directory: &mut Directory| directory.sections[0].author = other;
    let own = pack(&client, |_| {});
    let forged = pack(&client, lie);
    let done = scene.repair(Mode::Write);
    assert_eq!(done.listed.packs, 1, "{done:?}");
    let name = Name::pack(&scene.domain(), PackKind::Data, &forged.id);
    assert_eq!(summary(&done).3, [name.as_str()]);
    assert!(done.unreadable[0].why.contains("may not speak for sections of others"), "{done:?}");
    let view = scene.owner().view(&scene.domain()).unwrap();
    let listed: BTreeSet<PackId> = view.index.packs().map(|pack| pack.id).collect();
    assert!(listed.contains(&own.id) && !listed.contains(&forged.id));
    // A maintainer moves sections of others: that is what they sign for.
    pack(&scene.add_key(Role::Owner, "second"), |directory| directory.sections[0].author = client.identity());
    assert_eq!(scene.repair(Mode::Write).listed.packs, 1);
}

#[test]
fn what_a_revoked_key_signed_is_listed_only_as_far_as_it_is_its_own() {
    let scene = Scene::new();
    let second = scene.add_key(Role::Owner, "second");
    let other = scene.owner().identity();
    let own = pack(&second, |_| {});
    let moved = pack(&second, |directory: &mut Directory| directory.sections[0].author = other);
    scene.revoke("second");
    let done = scene.repair(Mode::Write);
    let view = scene.owner().view(&scene.domain()).unwrap();
    let listed: BTreeSet<PackId> = view.index.packs().map(|pack| pack.id).collect();
    assert!(listed.contains(&own.id) && !listed.contains(&moved.id));
    assert!(done.unreadable[0].why.contains("was revoked"), "{done:?}");
}

impl Scene {
    /// The same pack with a directory that this key has signed, as a repack makes it; the old one stays.
    fn signed_again(&self, name: &Name, by: &Repository) -> Name {
        let Parsed::Pack { domain, kind, .. } = name.parsed() else { unreachable!("{name}") };
        let mut bytes = self.bytes(name);
        let trailer = Trailer::decode(&bytes).unwrap();
        let mut plain = Writer::new();
        self.owner().own_directory(&domain, &bytes).unwrap().encode_into(&mut plain);
        let sealed = forger::seal(by, domain, RecordKind::Directory, &plain.finish());
        let (start, end) = (trailer.offset as usize, bytes.len() - TRAILER_LEN);
        bytes.splice(start..end, sealed);
        let id = PackId::new(*blake3::hash(&bytes).as_bytes());
        let name = Name::pack(&domain, kind, &id);
        self.store().create(&name, Bytes::from(bytes)).unwrap();
        name
    }

    /// All packs are what `keeper` has made of them, one of two index objects is gone and the other one damaged, and then
    /// the key of `keeper` is revoked.
    fn merged_and_lost(&self, keeper: &Repository, label: &str) -> Vec<String> {
        let packs: Vec<String> = self
            .names("/packs/")
            .iter()
            .map(|name| {
                let new = self.signed_again(name, keeper).as_str().to_owned();
                self.store().delete(name).unwrap();
                new
            })
            .collect();
        let [first, second] = <[Name; 2]>::try_from(self.names("/index/")).unwrap();
        self.store().delete(&first).unwrap();
        self.flip(&second);
        self.revoke(label);
        packs
    }

    fn revoke(&self, label: &str) {
        let options = RevokeOptions { who: label.to_owned(), last_good: LastGood::Head };
        key::revoke(&self.owner(), &options).unwrap();
    }
}

#[test]
fn what_a_revoked_key_has_merged_is_listed_again_by_who_finds_every_frame_true() {
    let scene = Scene::new();
    let (old, keeper) = (scene.add_key(Role::Maintain, "old"), scene.add_key(Role::Maintain, "keeper"));
    let packs = scene.merged_and_lost(&old, "old");
    let parsed = |name: &String| Name::parse(name).unwrap();
    assert!(packs.iter().any(|name| name.contains("/packs/m/")) && packs.len() == 4, "{packs:?}");
    // Whoever cannot read them says who can, gives nothing up, and keeps a prune from going on.
    let before = scene.names("");
    let done = repair_by(&keeper, Mode::Write).unwrap();
    assert_eq!(summary(&done), (0, 0, vec![], vec![]));
    let mut told: Vec<&str> = done.unvouched.iter().map(|fault| fault.object.as_str()).collect();
    told.sort_unstable();
    let mut sorted = packs.clone();
    sorted.sort_unstable();
    assert_eq!(told, sorted);
    assert!(done.unvouched.iter().all(|fault| fault.why.contains("was revoked")), "{done:?}");
    assert_eq!(scene.names(""), before);
    let refused = scene.prune().unwrap_err();
    assert!(refused.remedy().unwrap().contains("lifeboat repair index"), "{refused:?}");
    // Nothing is wrong with them, whoever asks.
    for name in &packs {
        scene.refuses(&parsed(name), Force::No, "lifeboat repair index --apply");
        let names = vec![name.clone()];
        let options = AsideOptions { names, reason: None, force: Force::No, mode: Mode::Write };
        assert_eq!(repair::set_aside(&keeper, &options).unwrap_err().kind(), ErrorKind::Usage);
    }

    let planned = scene.repair(Mode::DryRun);
    let done = scene.repair(Mode::Write);
    assert_eq!(summary(&done), summary(&planned));
    assert_eq!((done.listed.packs, done.set_aside.len(), done.unreadable.len()), (4, 1, 0), "{done:?}");
    scene.holds();
    scene.prune().unwrap();
    scene.files.iter().for_each(|files| _ = lab::back_up(&scene.owner(), files).unwrap());
    assert_eq!(scene.names("/packs/").len(), packs.len(), "what was listed again is used again");
    packs.iter().for_each(|name| scene.refuses(&parsed(name), Force::No, "nothing is wrong with"));
    // By the index of the owner it counts for all.
    assert_eq!(summary(&repair_by(&keeper, Mode::Write).unwrap()), (0, 0, vec![], vec![]));
}

#[test]
fn what_a_revoked_key_has_merged_is_not_listed_if_it_lies_about_one_frame() {
    let scene = Scene::new();
    let (owner, old) = (scene.owner(), scene.add_key(Role::Maintain, "old"));
    let chunk = noise(9, 5_000);
    let made = |frames: &[Forged], kind, lie: &dyn Fn(&mut Directory)| {
        let pack = forger::pack(&owner, kind, frames, lie);
        let name = Name::pack(&scene.domain(), kind, &pack.id);
        let again = scene.signed_again(&name, &old);
        scene.store().delete(&name).unwrap();
        again
    };
    let id = Manifest::new(&owner).chunk(&chunk).id;
    let true_one = Forged::raw(id, &chunk);
    let other_id = Forged::raw(Manifest::new(&owner).chunk(b"other").id, &chunk);
    let good = made(slice::from_ref(&true_one), PackKind::Data, &|_| {});
    let lies = [
        made(&[true_one.clone(), other_id], PackKind::Data, &|_| {}),
        made(slice::from_ref(&true_one), PackKind::Metadata, &|_| {}),
        made(slice::from_ref(&true_one), PackKind::Data, &|directory| directory.frames[0].hash[0] ^= 1),
        made(slice::from_ref(&true_one), PackKind::Data, &|directory| directory.frames[0].counter += 1),
        made(slice::from_ref(&true_one), PackKind::Data, &|directory| {
            directory.sections[0].author = IdentityId::new([9; 16])
        }),
    ];
    let damaged = scene.signed_again(&scene.names("/packs/d/").remove(0), &old);
    scene.flip(&damaged);
    scene.revoke("old");
    let done = scene.repair(Mode::Write);
    let listed = scene.owner().view(&scene.domain()).unwrap();
    let listed: BTreeSet<PackId> = listed.index.packs().map(|pack| pack.id).collect();
    assert!(listed.iter().any(|id| good.as_str().ends_with(&id.to_string())), "{done:?}");
    for lie in lies.iter().chain([&damaged]) {
        assert!(done.unreadable.iter().any(|fault| fault.object == lie.as_str()), "{lie}: {done:?}");
        assert!(!listed.iter().any(|id| lie.as_str().ends_with(&id.to_string())), "{lie}");
        // And this can be set aside.
        assert!(!scene.aside(&[lie], Force::No).unwrap()[0].already, "{lie}");
    }
    assert_eq!(done.listed.packs, 1, "{done:?}");
    scene.holds();
}

#[test]
fn a_role_that_writes_no_packs_has_none_listed() {
    let scene = Scene::new();
    let (domain, audit) = (scene.domain(), scene.add_key(Role::Audit, "auditor"));
    let good = pack(&scene.owner(), |_| {});
    let name = scene.signed_again(&Name::pack(&domain, PackKind::Data, &good.id), &audit);
    let done = scene.repair(Mode::Write);
    assert_eq!(summary(&done), (1, 1, vec![], vec![name.as_str().to_owned()]));
    assert!(done.unreadable[0].why.contains("role audit may not write it"), "{done:?}");
}

#[test]
fn a_pack_that_lies_about_itself_is_told_and_the_others_are_listed() {
    let scene = Scene::new();
    let owner = scene.owner();
    let domain = scene.domain();
    pack(&owner, |directory| directory.frames[0].offset = 1 << 20);
    pack(&owner, |directory| directory.frames[0].length = 1 << 20);
    pack(&owner, |directory| directory.frames.push(directory.frames[0].clone()));
    pack(&owner, |directory| directory.sections.clear());
    pack(&owner, |directory| directory.sections[0].kind = PackKind::Metadata);
    let good = pack(&owner, |_| {});
    let bytes = scene.bytes(&Name::pack(&domain, PackKind::Data, &good.id));
    let mut lies: Vec<Vec<u8>> =
        vec![Vec::new(), vec![0; 15], vec![0; 4096], bytes[..bytes.len() - 1].to_vec()];
    lies.push([&bytes[..], b"more"].concat());
    lies.push(bytes[100..].to_vec());
    let trailer = bytes.len() - 8;
    for (at, number) in [(trailer, u32::MAX), (trailer + 4, u32::MAX), (trailer, 0), (trailer + 4, 0)] {
        let mut lie = bytes.clone();
        lie[at..at + 4].copy_from_slice(&number.to_le_bytes());
        lies.push(lie);
    }
    // All of it is one directory.
    let mut lie = bytes.clone();
    lie[trailer..trailer + 4].copy_from_slice(&0_u32.to_le_bytes());
    let all = u32::try_from(bytes.len() - 16).unwrap();
    lie[trailer + 4..].copy_from_slice(&all.to_le_bytes());
    lies.push(lie);
    let hostile = lies.len() + 5;
    for lie in lies {
        let id = PackId::new(*blake3::hash(&lie).as_bytes());
        scene.store().create(&Name::pack(&domain, PackKind::Data, &id), Bytes::from(lie)).unwrap();
    }
    // A pack of the wrong kind, and one larger than any may be.
    let id = PackId::new(*blake3::hash(b"kind").as_bytes());
    scene.store().create(&Name::pack(&domain, PackKind::Metadata, &id), Bytes::from(bytes)).unwrap();
    let huge = ListedPack { kind: PackKind::Data, size: 1 << 40, stored: Timestamp::from_seconds(0) };
    assert_eq!(owner.listing_of(&domain, (&id, huge)).unwrap_err().kind(), ErrorKind::Damaged);

    let done = scene.repair(Mode::Write);
    assert_eq!((done.listed.packs, done.unreadable.len()), (1, hostile + 1), "{:#?}", done.unreadable);
    assert!(done.unreadable.iter().all(|fault| fault.why.contains(&fault.object)), "{:#?}", done.unreadable);
    let again = scene.repair(Mode::Write);
    assert_eq!((again.listed.packs, again.unreadable.len()), (0, hostile + 1));
    // They are set aside by their names, and then nobody is told of them any more.
    let domain = domain.to_string();
    let names: Vec<Name> = done.unreadable.iter().map(|fault| Name::parse(&fault.object).unwrap()).collect();
    assert!(names.iter().all(|name| name.as_str().contains(&domain)));
    scene.aside(&names.iter().collect::<Vec<_>>(), Force::No).unwrap();
    assert_eq!(scene.repair(Mode::Write).unreadable, []);
    scene.holds();
}

#[test]
fn a_damaged_pack_is_set_aside_and_the_next_backup_stores_what_it_held_anew() {
    let scene = Scene::new();
    let pack = scene.names("/packs/d/").remove(0);
    scene.flip(&pack);
    let verdicts = scene.aside(&[&pack, &pack], Force::No).unwrap();
    assert_eq!(verdicts.iter().map(|verdict| verdict.already).collect::<Vec<_>>(), [false, true]);
    assert!(verdicts[0].why.contains("its bytes are not those"), "{verdicts:?}");
    let before = scene.names("");
    assert!(scene.aside(&[&pack], Force::No).unwrap()[0].already);
    assert_eq!(scene.names(""), before, "nothing is written twice");
    scene.files.iter().for_each(|files| _ = lab::back_up(&scene.owner(), files).unwrap());
    assert_eq!(lab::check_all(&scene.owner()).unwrap().problems, []);
    assert!(scene.names("/packs/d/").contains(&pack), "nothing is deleted");
}

#[test]
fn a_prune_goes_on_when_a_pack_of_files_that_is_lost_for_good_was_set_aside() {
    let scene = Scene::new();
    let pack = scene.names("/packs/d/").remove(0);
    assert!(matches!(scene.owner().store.try_delete(&pack).unwrap(), Deletion::Gone));
    let refused = scene.prune().unwrap_err();
    assert!(refused.remedy().unwrap().contains("repair quarantine NAME --force"), "{refused:?}");
    let [verdict] = <[_; 1]>::try_from(scene.aside(&[&pack], Force::Yes).unwrap()).unwrap();
    assert_eq!(verdict.why, "it is not there");
    scene.prune().unwrap();
}

#[test]
fn nodes_that_share_a_frame_stop_a_prune_in_a_pack_that_is_set_aside_too() {
    // The second one would count as walked with the first, and what it needs would be deleted.
    let scene = Scene::new();
    let owner = scene.owner();
    let before: BTreeSet<Name> = scene.names("/packs/m/").into_iter().collect();
    let mut manifest = Manifest::new(&owner);
    let mut leaf = |path: &str| {
        let (path, metadata) = (path.as_bytes().to_vec(), Metadata::of(EntryKind::Directory));
        let content = Content::Inline(Vec::new());
        let entry = Entry { path: path.clone(), metadata, content, changed_while_read: false, error: None };
        Child { first: path, id: manifest.node(&Node::Leaf(vec![entry])), entries: 1, bytes: 0 }
    };
    let children = vec![leaf("a"), leaf("b")];
    manifest.in_one_frame();
    let root = manifest.node(&Node::Branch(1, children));
    manifest.snapshot(root, |record| record.levels = 1);
    let pack = scene.names("/packs/m/").into_iter().find(|name| !before.contains(name)).unwrap();
    for aside in [false, true] {
        if aside {
            scene.aside(&[&pack], Force::Yes).unwrap();
        }
        let error = scene.prune().unwrap_err();
        assert!(error.to_string().contains("a frame of an index has several nodes"), "{aside}: {error}");
    }
}

#[test]
fn what_is_fine_or_not_there_is_not_set_aside() {
    let scene = Scene::new();
    lab::check_all(&scene.owner()).unwrap();
    let domain = scene.domain();
    let time = Timestamp::from_seconds(1);
    let dying = Tombstones { time, packs: vec![PackId::new([7; 32])] };
    let tombstones = scene.owner().publish_tombstones(&domain, &dying).unwrap();
    let (pack, index) = (scene.names("/packs/d/").remove(0), scene.names("/index/").remove(0));
    let (snapshot, run) = (scene.names("/snapshots/").remove(0), scene.names("/runs/").remove(0));
    for name in [&pack, &index] {
        scene.refuses(name, Force::No, "--force");
    }
    for force in [Force::No, Force::Yes] {
        scene.refuses(&snapshot, force, "lifeboat forget");
        scene.refuses(&run, force, "nothing is wrong with");
        scene.refuses(&tombstones, force, "stays marked");
        scene.refuses(&Name::config(), force, "cannot be set aside");
        let gone = Name::pack(&domain, PackKind::Data, &PackId::new([7; 32]));
        if force == Force::No {
            scene.refuses(&gone, force, "--force");
        }
        let elsewhere = Name::pack(&DomainId::new([9; 8]), PackKind::Data, &PackId::new([7; 32]));
        scene.refuses(&elsewhere, force, "there is no domain");
    }
    // One that is refused keeps all from being set aside.
    scene.flip(&pack);
    assert!(scene.aside(&[&pack, &index], Force::No).is_err());
    assert_eq!(scene.names("/quarantine/"), []);
    let options = AsideOptions {
        names: vec!["d/../config".to_owned()],
        reason: None,
        force: Force::Yes,
        mode: Mode::Write,
    };
    assert_eq!(repair::set_aside(&scene.owner(), &options).unwrap_err().kind(), ErrorKind::Usage);
    // Who insists: the packs are there, and are listed again.
    let [verdict] = <[_; 1]>::try_from(scene.aside(&[&index], Force::Yes).unwrap()).unwrap();
    assert!(verdict.effect.contains("lifeboat repair index"), "{verdict:?}");
    assert_eq!(scene.repair(Mode::Write).listed.packs, 2);
}

#[test]
fn whatever_cannot_be_read_or_was_forged_can_be_set_aside_and_is_not_mentioned_any_more() {
    let scene = Scene::new();
    // Another one writes to the same domain: else nothing is attested.
    scene.add_key(Role::Backup, "beside");
    lab::check_all(&scene.owner()).unwrap();
    let domain = scene.domain();
    let dying = Tombstones { time: Timestamp::from_seconds(1), packs: vec![PackId::new([7; 32])] };
    scene.owner().publish_tombstones(&domain, &dying).unwrap();
    for folder in ["/index/", "/snapshots/", "/runs/", "/attestations/", "/tombstones/", "/packs/m/"] {
        let scene = scene.fork();
        let names = scene.names(folder);
        let name = names.last().unwrap();
        scene.flip(name);
        let verdicts = scene.aside(&[name], Force::No).unwrap();
        assert!(!verdicts[0].why.is_empty() && !verdicts[0].effect.is_empty(), "{verdicts:?}");
        assert_eq!(scene.names(folder).len(), names.len());
        if folder != "/packs/m/" && folder != "/index/" {
            assert_eq!(lab::check_all(&scene.owner()).unwrap().problems, [], "{folder}");
        }
        lab::back_up(&scene.owner(), &scene.files[0]).unwrap();
    }
    // Well signed by one who may not, or whom nobody knows.
    let client = scene.add_key(Role::Backup, "web");
    let sealed = forger::seal(&client, domain, RecordKind::Tombstones, &dying.encode());
    let tombstones = Name::tombstones(&domain, &ObjectId::new(*blake3::hash(&sealed).as_bytes()));
    scene.store().create(&tombstones, Bytes::from(sealed)).unwrap();
    assert!(scene.aside(&[&tombstones], Force::No).unwrap()[0].why.contains("role backup may not write it"));
    let mine = scene.names("/snapshots/").pop().unwrap();
    let Parsed::Snapshot { id, .. } = mine.parsed() else { unreachable!("it is one") };
    let forged = Name::snapshot(&domain, &IdentityId::new([5; 16]), 7, &id);
    scene.store().create(&forged, Bytes::from(scene.bytes(&mine))).unwrap();
    assert!(scene.aside(&[&forged], Force::No).unwrap()[0].why.contains("another place"));
}

#[test]
fn tombstones_that_nobody_can_read_stop_backups_until_they_are_set_aside() {
    let scene = Scene::new();
    let dying = Tombstones { time: Timestamp::from_seconds(1), packs: vec![PackId::new([7; 32])] };
    let name = scene.owner().publish_tombstones(&scene.domain(), &dying).unwrap();
    scene.flip(&name);
    let error = lab::back_up(&scene.owner(), &scene.files[0]).unwrap_err();
    let remedy = format!("lifeboat repair quarantine {name} --apply");
    assert!(error.remedy().unwrap().contains(&remedy), "{error:?}");
    let verdicts = scene.aside(&[&name], Force::No).unwrap();
    assert!(verdicts[0].effect.contains("while no prune runs"), "{verdicts:?}");
    lab::back_up(&scene.owner(), &scene.files[0]).unwrap();
}

#[test]
fn a_snapshot_that_is_lost_for_good_can_be_given_up_so_that_a_prune_goes_on() {
    let scene = Scene::new();
    let first = scene.names("/snapshots/").remove(0);
    scene.store().delete(&first).unwrap();
    let error = scene.prune().unwrap_err();
    assert!(error.remedy().unwrap().contains(&format!("quarantine {first} --force")), "{error:?}");
    scene.refuses(&first, Force::No, "--force");
    assert_eq!(scene.aside(&[&first], Force::Yes).unwrap()[0].why, "it is not there");
    scene.prune().unwrap();
    assert_eq!(lab::check_all(&scene.owner()).unwrap().problems, []);
}

#[test]
fn only_a_maintainer_or_an_owner_repairs() {
    let scene = Scene::new();
    for (role, may) in [
        (Role::Backup, false),
        (Role::Audit, false),
        (Role::Restore, false),
        (Role::Maintain, true),
        (Role::Owner, true),
    ] {
        let repository = scene.add_key(role, &format!("a {} key", role.name()));
        let before = scene.names("");
        let pack = scene.names("/packs/d/").remove(0).as_str().to_owned();
        let options = AsideOptions { names: vec![pack], reason: None, force: Force::Yes, mode: Mode::DryRun };
        let outcomes = [
            repair::index(&repository, Mode::DryRun).map(drop),
            repair::set_aside(&repository, &options).map(drop),
        ];
        for outcome in outcomes {
            assert_eq!(
                outcome.map_err(|error| error.kind()),
                if may { Ok(()) } else { Err(ErrorKind::Forbidden) }
            );
        }
        assert_eq!(scene.names(""), before);
    }
}

fn hurt(repository: &Arc<Repository>, mode: Mode) -> Result<Vec<Hurt>> {
    let options = SnapshotOptions { mode, program: "test".to_owned(), workers: 1 };
    repair::snapshots(repository, &options).map(|done| done.hurt)
}

fn paths(hurt: &Hurt) -> Vec<String> {
    hurt.named.iter().map(|lost| String::from_utf8(lost.path.clone()).unwrap()).collect()
}

/// A third snapshot that holds the files of the others and one more, and the pack of each.
fn of_three_packs(scene: &Scene, by: &Repository) -> (Files, Vec<Name>) {
    let before: BTreeSet<Name> = scene.names("/packs/d/").into_iter().collect();
    let (mut all, mut packs) = (Files::new(), Vec::new());
    for (number, size) in [(1, 90_000), (2, 180_000), (3, 270_000)] {
        all.insert(format!("srv/{number}"), noise(10 + number, size));
        lab::back_up(by, &all).unwrap();
        let new = scene
            .names("/packs/d/")
            .into_iter()
            .filter(|name| !before.contains(name) && !packs.contains(name));
        packs.extend(new.collect::<Vec<_>>());
    }
    (all, packs)
}

#[test]
fn a_snapshot_that_has_lost_files_is_copied_without_them_and_each_is_named() {
    let scene = Scene::new();
    let client = scene.add_key(Role::Backup, "web");
    let (all, packs) = of_three_packs(&scene, &client);
    assert_eq!(packs.len(), 3);
    assert_eq!(hurt(&scene.owner(), Mode::Write).unwrap().len(), 0);
    // One is gone, one is damaged, and nobody has noticed that.
    scene.store().delete(&packs[1]).unwrap();
    scene.flip(&packs[2]);
    let before = scene.all();
    let planned = hurt(&scene.owner(), Mode::DryRun).unwrap();
    assert_eq!(scene.all(), before, "a dry run writes nothing");
    let done = hurt(&scene.owner(), Mode::Write).unwrap();
    // The second and the third one of the client; the owner's own are in packs of their own.
    assert_eq!((planned.len(), done.len()), (2, 2), "{done:?}");
    for (planned, done) in planned.iter().zip(&done) {
        // What nobody has noticed is not planned, and told by whoever reads it.
        assert_eq!((planned.copy, paths(planned)), (Copy::Planned, vec!["srv/2".to_owned()]));
        assert!(planned.named.iter().all(|lost| done.named.contains(lost)), "{planned:?} {done:?}");
        assert!(done.named[0].why.contains("no pack that is there holds its chunk"), "{done:?}");
        let Copy::Made(id) = done.copy else { unreachable!("{done:?}") };
        let (known, _) = scene.owner().snapshots().unwrap();
        let copy = known.iter().find(|known| known.name.id == id).unwrap();
        let old = known.iter().find(|known| known.name.id == done.snapshot.name.id).unwrap();
        assert_eq!((copy.record.time, &copy.record.host), (old.record.time, &old.record.host));
        assert_eq!(copy.record.sources, old.record.sources);
        assert_eq!(copy.record.tags, [format!("repaired-{:.16}", old.name.id.to_string())]);
        let (files, restored) = lab::restore(&scene.owner(), copy).unwrap();
        assert_eq!(restored.failures, copy.record.unreadable);
        assert_eq!((done.lost, done.named.len() as u64), (restored.failures, restored.failures), "{done:?}");
        assert_eq!(files["srv/1"], all["srv/1"]);
        assert!(files.iter().all(|(path, bytes)| all.get(path) == Some(bytes)), "{:?}", files.keys());
    }
    let (known, _) = scene.owner().snapshots().unwrap();
    let unreadable: Vec<u64> = known
        .iter()
        .filter(|known| !known.record.tags.is_empty())
        .map(|known| known.record.unreadable)
        .collect();
    assert_eq!(unreadable.iter().sum::<u64>(), 3, "the last one lacks the damaged file too");
    assert!(
        before.iter().all(|(name, bytes)| scene.bytes(name) == *bytes),
        "nothing is deleted or overwritten"
    );
    // It is not done twice.
    let before = scene.names("");
    let again = hurt(&scene.owner(), Mode::Write).unwrap();
    assert!(again.len() == 2 && again.iter().all(|hurt| matches!(hurt.copy, Copy::Before(_))), "{again:?}");
    assert_eq!(scene.names(""), before);
}

#[test]
fn a_client_cannot_keep_a_copy_from_being_made_by_a_tag_of_its_own() {
    let scene = Scene::new();
    let client = scene.add_key(Role::Backup, "web");
    let first = scene.owner().snapshots().unwrap().0.remove(0).name.id;
    let packs = scene.names("/packs/d/");
    let tags = vec![format!("repaired-{:.16}", first.to_string())];
    let options = BackupOptions { tags, ..lab::backup_options() };
    let other = Files::from([("srv/other".to_owned(), noise(99, 5_000))]);
    backup::run(&client, &mut lab::Tree(&other), &options).unwrap();
    packs.iter().for_each(|pack| scene.store().delete(pack).unwrap());
    let hurt = hurt(&scene.owner(), Mode::DryRun).unwrap();
    let first = hurt.iter().find(|hurt| hurt.snapshot.name.id == first).unwrap();
    assert_eq!((first.copy, paths(first)), (Copy::Planned, vec!["srv/1".to_owned()]));
}

#[test]
fn of_a_manifest_that_is_lost_in_part_the_rest_is_copied() {
    let scene = Scene::new();
    let mut many: Files = (0..3_000).map(|n| (format!("srv/{n:05}"), n.to_string().into_bytes())).collect();
    let before: BTreeSet<Name> = scene.names("/packs/m/").into_iter().collect();
    lab::back_up(&scene.owner(), &many).unwrap();
    let nodes = scene.names("/packs/m/").into_iter().find(|name| !before.contains(name)).unwrap();
    many.insert("srv/99999".to_owned(), b"last".to_vec());
    lab::back_up(&scene.owner(), &many).unwrap();
    scene.store().delete(&nodes).unwrap();
    let done = hurt(&scene.owner(), Mode::Write).unwrap();
    let [whole, part] = <[Hurt; 2]>::try_from(done).unwrap();
    assert_eq!((whole.copy, whole.named[0].path.len()), (Copy::Nothing, 0));
    let Copy::Made(id) = part.copy else { unreachable!("{part:?}") };
    // How many nodes that is depends on a random key.
    assert!(part.lost > 0 && part.named[0].why.contains("a part of the manifest is lost"), "{part:?}");
    let (known, _) = scene.owner().snapshots().unwrap();
    let copy = known.iter().find(|known| known.name.id == id).unwrap();
    assert_eq!(copy.record.unreadable, part.lost);
    let (files, restored) = lab::restore(&scene.owner(), copy).unwrap();
    assert_eq!((restored.failures, &files["srv/99999"][..]), (part.lost, &b"last"[..]));
    assert!(files.iter().all(|(path, bytes)| many.get(path) == Some(bytes)));
}

#[test]
fn a_large_file_is_copied_by_its_lists_and_not_when_they_lie() {
    let scene = Scene::new();
    let owner = scene.owner();
    let mut manifest = Manifest::new(&owner);
    let parts = [noise(7, 9_000), noise(8, 9_000)];
    let chunks: Vec<_> = parts.iter().map(|part| manifest.chunk(part)).collect();
    let frames: Vec<Forged> =
        parts.iter().zip(&chunks).map(|(part, chunk)| Forged::raw(chunk.id, part)).collect();
    let listed = forger::pack(&owner, PackKind::Data, &frames, |_| {});
    owner.publish_index(&scene.domain(), &[listed]).unwrap();
    let list = manifest.node(&Node::Chunks(chunks.clone()));
    let file = |path: &str, size: u64, content: Content| {
        let metadata = Metadata { size, mode: 0o644, ..Metadata::of(EntryKind::File) };
        Entry { path: path.into(), metadata, content, changed_while_read: path == "c", error: None }
    };
    let lost = manifest.chunk(b"nowhere");
    let leaf = manifest.node(&Node::Leaf(vec![
        file("a", 18_000, Content::List { node: list, chunks: 2, level: 0 }),
        file("b", 7, Content::Inline(vec![lost])),
        file("c", 9_000, Content::Inline(vec![chunks[1]])),
        file("d", 10_000, Content::Inline(vec![chunks[1]])),
        file("e", 27_000, Content::List { node: list, chunks: 3, level: 0 }),
        file("f", 9_000, Content::List { node: list, chunks: 2, level: 0 }),
    ]));
    let old = manifest.snapshot(leaf, |record| record.levels = 0);
    let done = hurt(&scene.owner(), Mode::Write).unwrap();
    let [done] = <[Hurt; 1]>::try_from(done).unwrap();
    assert_eq!(
        (done.snapshot.name.id, paths(&done)),
        (old, ["b", "d", "e", "f"].map(str::to_owned).to_vec())
    );
    let Copy::Made(id) = done.copy else { unreachable!("{done:?}") };
    let (known, _) = scene.owner().snapshots().unwrap();
    let copy = known.iter().find(|known| known.name.id == id).unwrap();
    let named: Vec<&[u8]> = copy.record.unreadable_named.iter().map(|(path, _)| &path[..]).collect();
    assert_eq!(named, [b"b", b"d", b"e", b"f"]);
    let (files, _) = lab::restore(&scene.owner(), copy).unwrap();
    assert_eq!((&files["a"], &files["c"]), (&parts.concat(), &parts[1]));
    assert_eq!(files.len(), 2, "{:?}", files.keys());
}

#[test]
fn a_repair_of_snapshots_that_is_stopped_is_finished_by_the_next_one() {
    let scene = Scene::new();
    let pack = scene.names("/packs/d/").remove(0);
    scene.store().delete(&pack).unwrap();
    let run = |scene: &Scene, over: &Arc<Intercepted>| hurt(&scene.over(over)?, Mode::Write);
    let calls = {
        let scene = scene.fork();
        let over = Intercepted::watching(Arc::new(scene.objects.clone()));
        assert_eq!(run(&scene, &over).unwrap().len(), 1);
        over.calls().len()
    };
    for number in (0..calls).step_by(2) {
        for fault in [Fault::StopsBefore, Fault::StopsAfter] {
            let scene = scene.fork();
            let over = Intercepted::watching(Arc::new(scene.objects.clone()));
            over.intercept(at(number, fault));
            drop(run(&scene, &over));
            hurt(&scene.owner(), Mode::Write).unwrap();
            let again = hurt(&scene.owner(), Mode::DryRun).unwrap();
            assert!(
                again.len() == 1 && matches!(again[0].copy, Copy::Before(_)),
                "{number} {fault:?}: {again:?}"
            );
        }
    }
}

#[test]
fn snapshots_that_cannot_be_read_or_are_of_another_domain_are_told_and_left_alone() {
    let scene = Scene::new();
    let (label, unlock) = ("web".to_owned(), By::AccessKey);
    let options = AddOptions { role: Role::Backup, label, domain: None, shared: false, unlock };
    let access = key::add(&scene.owner(), &options).unwrap().access_key.unwrap();
    let client = lab::open_with(&scene.store(), &Credential::AccessKey(access.text()), None).unwrap();
    lab::back_up(&client, &scene.files[0]).unwrap();
    let elsewhere = client.own_domain().unwrap().to_string();
    scene
        .names("/packs/d/")
        .iter()
        .filter(|name| name.as_str().contains(&elsewhere))
        .for_each(|name| scene.store().delete(name).unwrap());
    let own = scene.names(&format!("{}/snapshots/", scene.domain())).remove(0);
    scene.flip(&own);
    let before = scene.names("");
    let options = SnapshotOptions { mode: Mode::Write, program: "test".to_owned(), workers: 1 };
    let done = repair::snapshots(&scene.owner(), &options).unwrap();
    assert_eq!((done.hurt.len(), done.snapshots), (1, 2));
    assert_eq!(
        (done.hurt[0].copy, done.hurt[0].domain.as_str(), done.hurt[0].lost),
        (Copy::Elsewhere, "web", 1)
    );
    assert!(done.damaged.iter().any(|error| error.to_string().contains(own.as_str())), "{done:?}");
    assert_eq!(scene.names(""), before);
}

#[test]
fn only_an_owner_repairs_snapshots() {
    let scene = Scene::new();
    for role in [Role::Backup, Role::Audit, Role::Restore, Role::Maintain] {
        let repository = scene.add_key(role, &format!("a {} key", role.name()));
        let error = hurt(&repository, Mode::DryRun).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Forbidden && error.to_string().contains("cannot repair"),
            "{error}"
        );
    }
}

#[test]
fn the_command_names_what_a_snapshot_has_lost_and_what_to_do() {
    let world = World::with_repository();
    world.does(&["backup", "src/one"]);
    let first = world.does(&["repair", "snapshots"]);
    assert!(
        first.starts_with("nothing to repair: no pack that snapshots need is missing (1 snapshot)"),
        "{first}"
    );
    let kept: Vec<_> = stored(&world, "/packs/d/");
    world.does(&["backup", "src"]);
    let pack = stored(&world, "/packs/d/").into_iter().find(|path| !kept.contains(path)).unwrap();
    fs::remove_file(&pack).unwrap();
    let (out, err) = world.ends(&mut world.command(&["repair", "snapshots"]), 3);
    assert!(out.starts_with("1 of 2 snapshots lacks something. 1 would be copied"), "{out}");
    assert!(out.contains("src/deep/two: no pack") && err.contains("Back up again"), "{out}{err}");
    let (out, _) = world.ends(&mut world.command(&["repair", "snapshots", "--apply", "--json"]), 3);
    let mut messages = objects(&out);
    // On a machine that is busy it takes long enough to say how far it is.
    messages.retain(|message| message["message_type"] != "status");
    let kinds: Vec<&str> = messages.iter().map(|message| message["message_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["lost", "repair", "summary", "exit_error"]);
    assert_eq!((&messages[2]["copied"], &messages[2]["lost"]), (&1.into(), &1.into()));
    let copy = messages[1]["copy"].as_str().unwrap();
    world.ends(&mut world.command(&["restore", copy, "--target", "back"]), 3);
    let target = world.path("back");
    assert_eq!(fs::read(target.join(world.text("src/one").trim_start_matches('/'))).unwrap(), b"first");
    let said = world.does(&["repair", "snapshots", "--apply"]);
    assert!(said.contains("was copied before"), "{said}");
}

/// The one pack of files of a repository.
fn only_pack(world: &World) -> (std::path::PathBuf, String) {
    let packs = stored(world, "/packs/d/");
    assert_eq!(packs.len(), 1, "{packs:?}");
    let name = packs[0].strip_prefix(world.path("repo")).unwrap().to_str().unwrap().to_owned();
    (packs[0].clone(), name)
}

#[test]
fn what_is_good_in_a_pack_that_is_set_aside_is_not_lost_and_is_stored_anew() {
    let world = World::with_repository();
    // A frame holds 1 MiB at most, so that one damaged frame hurts one of these.
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        fs::write(world.path(&format!("src/{name}")), noise(40 + number as u64, 1_500_000)).unwrap();
    }
    world.does(&["backup", "src"]);
    let (pack, name) = only_pack(&world);
    flip(&pack);
    world.ends(&mut world.command(&["check", "--read-data"]), 5);
    world.does(&["repair", "quarantine", &name, "--apply"]);
    let (out, err) = world.ends(&mut world.command(&["check"]), 5);
    assert!(out.contains("snapshots need what cannot be read in it"), "{out}");
    assert!(out.contains("what can still be read in it and nowhere else"), "{out}");
    let hurts = out.lines().filter(|line| line.starts_with("  hurts")).count();
    assert_eq!(hurts, 1, "only one file is hurt: {out}");
    assert!(err.contains("forget nothing before"), "{err}");
    let said = world.does(&["usage"]);
    assert!(said.contains("in packs that are set aside"), "{said}");
    let (out, _) = world.ends(&mut world.command(&["repair", "snapshots"]), 3);
    assert!(
        out.starts_with(
            "1 of 1 snapshot rests on packs that are set aside or of another size: what is needed"
        ),
        "{out}"
    );
    assert!(out.contains("1 of 1 snapshot lacks something. 1 would be copied without it"), "{out}");
    let (out, _) = world.ends(&mut world.command(&["repair", "snapshots", "--apply", "--json"]), 3);
    let messages = objects(&out);
    let repaired = messages.iter().find(|message| message["message_type"] == "repair").unwrap();
    assert_eq!(repaired["lost"], 1, "{out}");
    let copy = repaired["copy"].as_str().unwrap().to_owned();
    world.ends(&mut world.command(&["restore", &copy, "--target", "back"]), 3);
    let whole = |target: &str| {
        let is_whole = |name: &&str| {
            let source = world.text(&format!("src/{name}"));
            let back = world.path(target).join(source.trim_start_matches('/'));
            fs::read(back).ok() == fs::read(source).ok()
        };
        ["a", "b", "c"].iter().filter(|name| is_whole(name)).count()
    };
    assert_eq!(whole("back"), 2, "all that is good is in the copy");
    // The pack may be gone now: nothing that is good rests on it, not even the good part of the file that is hurt. The old
    // snapshot, which has that, comes first.
    fs::remove_file(&pack).unwrap();
    world.ends(&mut world.command(&["restore", &copy, "--target", "again"]), 3);
    assert_eq!(whole("again"), 2);
    world.ends(&mut world.command(&["restore", "latest", "--target", "old"]), 5);
    assert_eq!(whole("old"), 2);
    let damaged =
        tree(&world.path("old")).into_iter().find(|(path, _)| path.to_str().unwrap().ends_with(".damaged"));
    assert!(damaged.is_some_and(|(_, bytes)| bytes.len() == 1_500_000));
    let (out, _) = world.ends(&mut world.command(&["check"]), 5);
    assert!(!out.contains("set aside, and snapshots need what can still"), "{out}");
    // Done is done.
    let before = stored(&world, "");
    let said = world.does(&["repair", "snapshots", "--apply"]);
    assert!(said.contains("was copied before"), "{said}");
    assert_eq!(stored(&world, "").len(), before.len());
    world.does(&["prune"]);
}

/// Makes an object so many bytes longer, or shorter, at its end.
fn resize(path: &Path, by: i64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.checked_add_signed(by).unwrap()).unwrap();
}

#[test]
fn what_is_good_in_a_pack_of_another_size_is_not_lost_and_is_stored_anew() {
    let cases = [
        ("/packs/d/", false, -60),
        ("/packs/d/", false, 512),
        ("/packs/d/", true, -60),
        ("/packs/m/", false, -60),
        ("/packs/", true, 512),
    ];
    for (number, (part, is_set_aside, by)) in cases.into_iter().enumerate() {
        let case = format!("case {number}");
        let world = World::with_repository();
        fs::write(world.path("src/large"), noise(40, 1_500_000)).unwrap();
        world.does(&["backup", "src"]);
        let packs = stored(&world, part);
        for pack in &packs {
            resize(pack, by);
            let name = pack.strip_prefix(world.path("repo")).unwrap().to_str().unwrap();
            if is_set_aside {
                world.does(&["repair", "quarantine", name, "--apply"]);
            }
        }
        world.does(&["restore", "latest", "--target", "before"]);
        let (out, err) = world.ends(&mut world.command(&["check", "--read-data"]), 5);
        assert!(!out.contains("hurts") && err.contains("forget nothing before"), "{case}: {out}{err}");
        let told = "it has another size than the index says, and snapshots need what can still be read in it";
        assert_eq!(out.matches(told).count(), packs.len(), "{case}: {out}");
        let (out, _) = world.ends(&mut world.command(&["repair", "snapshots"]), 3);
        assert!(out.starts_with("1 of 1 snapshot rests on packs"), "{case}: {out}");
        let said = world.does(&["repair", "snapshots", "--apply"]);
        assert!(said.contains("it is whole again") && world.snapshots() == 1, "{case}: {said}");
        packs.iter().for_each(|pack| fs::remove_file(pack).unwrap());
        world.does(&["check", "--read-data"]);
        world.does(&["restore", "latest", "--target", "after"]);
        let [before, after] = ["before", "after"].map(|target| {
            let source = world.text("src");
            tree(&world.path(target).join(source.trim_start_matches('/')))
                .into_iter()
                .map(|(_, bytes)| bytes)
                .collect::<Vec<_>>()
        });
        assert!(before.len() == 3 && before == after, "{case}");
    }
}

#[test]
fn of_a_pack_that_was_cut_short_what_is_left_is_kept() {
    let world = World::with_repository();
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        fs::write(world.path(&format!("src/{name}")), noise(40 + number as u64, 1_500_000)).unwrap();
    }
    world.does(&["backup", "src"]);
    let (pack, _) = only_pack(&world);
    resize(&pack, -i64::try_from(fs::metadata(&pack).unwrap().len() / 2).unwrap());
    let whole = |target: &str, code| {
        world.ends(&mut world.command(&["restore", "latest", "--target", target]), code);
        ["a", "b", "c"].map(|name| {
            let source = world.text(&format!("src/{name}"));
            let back = world.path(target).join(source.trim_start_matches('/'));
            fs::read(back).ok() == fs::read(source).ok()
        })
    };
    let left = whole("before", 5);
    assert!(left.contains(&true) && left.contains(&false), "{left:?}");
    let (out, _) = world.ends(&mut world.command(&["check", "--read-data"]), 5);
    let is_unhurt = |name: &str| {
        !out.lines().any(|line| line.starts_with("  hurts") && line.ends_with(&format!("src/{name}")))
    };
    assert_eq!(["a", "b", "c"].map(is_unhurt), left, "{out}");
    let (out, _) = world.ends(&mut world.command(&["repair", "snapshots", "--apply"]), 3);
    assert!(out.contains("was stored anew in 1 pack"), "{out}");
    fs::remove_file(&pack).unwrap();
    assert_eq!(whole("after", 5), left, "all that is good was moved");
}

#[test]
fn a_pack_that_is_gone_is_asked_for_once_however_many_frames_it_had() {
    let ram = Ram::new();
    lab::back_up(&ram.owner(), &Files::from([("srv/large".to_owned(), noise(1, 5_000_000))])).unwrap();
    let pack = ram.names("/packs/d/").remove(0);
    ram.store().delete(&pack).unwrap();
    let over = Intercepted::watching(Arc::new(ram.objects.clone()));
    assert_eq!(hurt(&ram.over(&over).unwrap(), Mode::DryRun).unwrap()[0].lost, 1);
    let gets = over.calls().into_iter().filter(|call| call.kind == Kind::Get && call.name == pack.as_str());
    assert_eq!(gets.count(), 1);
}

#[test]
fn snapshots_that_rest_on_packs_that_are_set_aside_are_made_whole_in_every_domain() {
    let world = World::with_repository();
    world.adds_client("web", Some("web"), "web.key");
    world.does(&["backup", "src"]);
    world.does(&["backup", "src/one"]);
    world.does(&["--access-key-file", "web.key", "backup", "src/deep"]);
    let packs: Vec<_> = stored(&world, "/packs/");
    for pack in &packs {
        let name = pack.strip_prefix(world.path("repo")).unwrap().to_str().unwrap();
        world.does(&["repair", "quarantine", name, "--force", "--apply"]);
    }
    let (out, err) = world.ends(&mut world.command(&["check"]), 5);
    assert!(!out.contains("hurts") && !out.contains("cannot be read"), "nothing is lost: {out}");
    assert_eq!(out.matches("still be read").count(), packs.len(), "{out}");
    assert!(err.contains("repair snapshots --apply"), "{err}");
    // A prune reads there what is needed, and gives no advice that would lose it.
    let (out, err) = world.ends(&mut world.command(&["prune"]), 0);
    assert!(
        out.contains("only in packs that are set aside")
            && format!("{out}{err}").contains("repair snapshots --apply"),
        "{out}{err}"
    );
    let before = stored(&world, "");
    let (out, err) = world.ends(&mut world.command(&["repair", "snapshots"]), 3);
    assert!(
        out.starts_with(
            "3 of 3 snapshots rest on packs that are set aside or of another size: what is needed"
        ),
        "{out}"
    );
    assert!(err.contains("--apply") && err.contains("forget nothing"), "{err}");
    assert_eq!(stored(&world, "").len(), before.len());
    let said = world.does(&["repair", "snapshots", "--apply"]);
    assert!(said.contains("was stored anew in 4 packs") && said.contains("whole again"), "{said}");
    assert_eq!(world.snapshots(), 3, "no copy is needed");
    world.does(&["check", "--read-data"]);
    let said = world.does(&["repair", "snapshots"]);
    assert!(said.starts_with("nothing to repair"), "{said}");
    world.does(&["prune"]);
    packs.iter().for_each(|pack| fs::remove_file(pack).unwrap());
    world.does(&["check", "--read-data"]);
    // The client finds what it wrote, and stores nothing again.
    let data = stored(&world, "/packs/d/").len();
    world.does(&["--access-key-file", "web.key", "backup", "src/deep"]);
    assert_eq!(stored(&world, "/packs/d/").len(), data);
    world.does(&["restore", "latest", "--target", "back"]);
}

#[test]
fn what_another_domain_has_lost_is_copied_by_an_owner_of_that_domain() {
    let world = World::with_repository();
    world.adds_client("web", Some("web"), "web.key");
    world.does(&["--access-key-file", "web.key", "backup", "src/one"]);
    world.does(&["--access-key-file", "web.key", "backup", "src"]);
    let packs = stored(&world, "/packs/d/");
    fs::remove_file(&packs[0]).unwrap();
    let (out, err) = world.ends(&mut world.command(&["repair", "snapshots", "--apply"]), 3);
    assert!(
        out.contains("This key makes no copies in other domains") && out.contains("the domain `web`"),
        "{out}"
    );
    assert!(err.contains("key add --role owner --label NAME --domain DOMAIN"), "{err}");
    let add =
        ["key", "add", "--role", "owner", "--label", "ow", "--domain", "web", "--access-key-out", "ow.key"];
    world.does(&add);
    let repair = ["--access-key-file", "ow.key", "repair", "snapshots", "--apply"];
    let (out, _) = world.ends(&mut world.command(&repair), 3);
    assert!(out.contains("copied without what is lost"), "{out}");
    // Whoever looks then sees that it was done.
    for arguments in [&repair[..], &repair[2..]] {
        let said = world.does(arguments);
        assert!(said.contains("was copied before"), "{said}");
    }
}

#[test]
fn where_index_objects_are_lost_everything_says_first_that_the_packs_are_to_be_listed_again() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::remove_file(stored(&world, "/index/").remove(0)).unwrap();
    let says = |arguments: &[&str], code| {
        let mut command = world.command(arguments);
        let (out, err) = world.ends(command.arg("--no-cache"), code);
        let said = format!("{out}{err}");
        let at = |words: &str| said.find(words).unwrap_or(usize::MAX);
        let first = at("first of all run `lifeboat repair index --apply`");
        assert!(first < usize::MAX, "{arguments:?}: {said}");
        for worse in ["`lifeboat forget`", "quarantine", "repair snapshots`", "an older snapshot may"] {
            assert!(first < at(worse), "{arguments:?} says {worse} first: {said}");
        }
    };
    says(&["check"], 5);
    says(&["prune"], 5);
    says(&["repair", "snapshots"], 3);
    says(&["restore", "latest", "--target", "back"], 5);
    says(&["restore", "latest", "--target", "back2", "--dry-run"], 5);
    world.does(&["repair", "index", "--apply"]);
    world.does(&["check", "--read-data"]);
    // What is damaged and not only unlisted gets another advice, and never that nothing can be done.
    flip(&stored(&world, "/packs/m/").remove(0));
    let (out, err) = world.ends(world.command(&["check", "--read-data"]).arg("--no-cache"), 5);
    assert!(!err.contains("first of all") && err.contains("repair snapshots"), "{out}{err}");
    assert!(out.contains("/packs/m/"), "the pack is named: {out}");
}

#[test]
fn the_last_line_of_a_check_says_nothing_twice_and_each_problem_keeps_its_advice() {
    let world = World::with_repository();
    world.does(&["backup", "src/one"]);
    let (hurt, _) = only_pack(&world);
    world.does(&["backup", "src"]);
    let other = stored(&world, "/packs/d/").into_iter().find(|path| *path != hurt).unwrap();
    for pack in [&hurt, &other] {
        // In the first frame: most of a small pack is padding.
        let mut bytes = fs::read(pack).unwrap();
        bytes[1210] ^= 1;
        fs::set_permissions(pack, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(pack, bytes).unwrap();
    }
    let name = other.strip_prefix(world.path("repo")).unwrap().to_str().unwrap();
    world.does(&["repair", "quarantine", name, "--apply"]);
    let (out, err) = world.ends(&mut world.command(&["check", "--read-data"]), 5);
    assert!(out.contains("it is set aside, and snapshots need what cannot be read in it"), "{out}");
    let last = err.lines().last().unwrap().to_lowercase();
    assert_eq!(last.matches("back up again").count(), 1, "{err}");
    assert_eq!(last.matches("`lifeboat repair snapshots` copies").count(), 1, "{err}");
    let messages = objects(&world.ends(&mut world.command(&["check", "--read-data", "--json"]), 5).0);
    let problems: Vec<_> = messages.iter().filter(|message| message["message_type"] == "error").collect();
    assert_eq!(problems.len(), 2, "{messages:?}");
    for problem in problems {
        let remedy = problem["remedy"].as_str().unwrap().to_lowercase();
        assert!(
            remedy.contains("back up again") && remedy.contains("`lifeboat repair snapshots`"),
            "{remedy}"
        );
    }
}

#[test]
fn a_damaged_pack_that_no_index_lists_is_told_first_and_its_advice_comes_to_an_end() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::remove_file(stored(&world, "/index/").remove(0)).unwrap();
    let (path, pack) = only_pack(&world);
    // At the end of a pack is what says what it holds.
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    let run = |arguments: &[&str], code| {
        let (out, err) = world.ends(&mut world.command(arguments), code);
        (out.lines().next().unwrap_or_default().to_owned(), format!("{out}{err}"))
    };
    // What can be listed again is, and the other pack is told in the first line all the same.
    for (apply, next) in [(&[][..], "--apply does it"), (&["--apply"], "Now run `lifeboat check`")] {
        let (first, said) = run(&[&["repair", "index"], apply].concat(), 3);
        assert!(first.starts_with("1 pack cannot be listed"), "{said}");
        assert!(
            first.contains("1 pack (") && first.contains("listed again") && first.contains(next),
            "{said}"
        );
    }
    let (first, said) = run(&["repair", "index"], 3);
    assert!(first.starts_with("1 pack cannot be listed"), "{said}");
    assert!(first.contains("to be set aside") && first.contains("1 index object lists 1 pack"), "{said}");
    // Whoever does what is said first does all of it, and is not told so for ever.
    let everywhere =
        [(&["check", "--no-cache"][..], 5), (&["prune", "--no-cache"], 5), (&["repair", "snapshots"], 3)];
    for (arguments, code) in everywhere {
        let (_, said) = run(arguments, code);
        assert!(said.contains("repair index --apply"), "{arguments:?}: {said}");
        assert!(said.contains("set aside what it cannot list, as it says"), "{arguments:?}: {said}");
    }
    assert!(run(&["repair", "quarantine", &pack, "--apply"], 0).0.contains("1 object set aside"));
    assert!(run(&["repair", "index"], 0).0.starts_with("nothing to repair: 1 index object lists 1 pack"));
    for (arguments, code) in everywhere {
        let (_, said) = run(arguments, code);
        assert!(!said.contains("repair index"), "{arguments:?}: {said}");
    }
    world.does(&["backup", "src"]);
    world.does(&["check", "--read-data"]);
    world.does(&["prune"]);
}

#[test]
fn where_nothing_of_a_snapshot_can_be_read_no_part_of_a_file_is_promised() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let kept = stored(&world, "/packs/");
    fs::remove_file(stored(&world, "/packs/m/").remove(0)).unwrap();
    let says = || {
        let (out, err) = world.ends(&mut world.command(&["repair", "snapshots", "--apply"]), 3);
        assert!(out.contains("nothing of it can be read"), "{out}");
        err
    };
    let said = says();
    assert!(!said.contains(".damaged"), "{said}");
    assert!(said.contains("older versions") && said.contains("else end it with `lifeboat forget`"), "{said}");
    // Beside another one, of which something can.
    fs::write(world.path("src/three"), "third").unwrap();
    world.does(&["backup", "src/three"]);
    let pack = stored(&world, "/packs/d/").into_iter().find(|path| !kept.contains(path)).unwrap();
    fs::remove_file(pack).unwrap();
    let said = says();
    assert!(said.contains("NAME.damaged") && said.contains("older versions"), "{said}");
}

fn stored(world: &World, part: &str) -> Vec<std::path::PathBuf> {
    let all = tree(&world.path("repo")).into_iter().map(|(path, _)| path);
    all.filter(|path| path.to_str().unwrap().contains(part)).collect()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_command_says_first_what_happened_and_what_to_do_next() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let first = |text: &str| text.lines().next().unwrap().to_owned();
    let said = world.does(&["repair", "index"]);
    assert!(first(&said).starts_with("nothing to repair: 1 index object lists 2 packs"), "{said}");
    let index = stored(&world, "/index/").remove(0);
    flip(&index);
    let before = tree(&world.path("repo"));
    let said = world.does(&["repair", "index", "-n"]);
    assert!(first(&said).contains("would be listed again") && first(&said).contains("--apply"), "{said}");
    assert!(said.contains(index.file_name().unwrap().to_str().unwrap()), "{said}");
    assert_eq!(tree(&world.path("repo")), before);
    let messages = world.messages(&["repair", "index", "--apply"]);
    let kinds: Vec<&str> = messages.iter().map(|message| message["message_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["repair", "summary"]);
    assert_eq!((&messages[0]["action"], &messages[1]["packs_listed"]), (&"set_aside".into(), &2.into()));
    assert_eq!((&messages[1]["set_aside"], &messages[1]["dry_run"]), (&1.into(), &false.into()));
    world.does(&["restore", "latest", "--target", "back", "--verify"]);
    world.does(&["check", "--read-data"]);

    // A pack that no index lists and nobody can read: 3, and how to go on.
    let pack = stored(&world, "/packs/d/").remove(0);
    let junk = pack.with_file_name(format!(
        "{}{}",
        pack.parent().unwrap().file_name().unwrap().to_str().unwrap(),
        "ab".repeat(31)
    ));
    fs::write(&junk, "junk").unwrap();
    let (out, err) = world.ends(&mut world.command(&["repair", "index"]), 3);
    assert!(
        out.contains("cannot be listed: ") && err.contains("lifeboat repair quarantine NAME --apply"),
        "{out}{err}"
    );
    let root = world.path("repo");
    let name = junk.strip_prefix(&root).unwrap().to_str().unwrap();
    let said = world.does(&["repair", "quarantine", name]);
    assert!(
        first(&said).contains("1 object would be set aside. Nothing was written: --apply does it"),
        "{said}"
    );
    assert_eq!(stored(&world, "/quarantine/").len(), 1);
    let said = world.does(&["repair", "quarantine", name, "--reason", "junk", "--apply"]);
    assert!(first(&said).contains("1 object set aside. Nothing was deleted"), "{said}");
    assert!(first(&world.does(&["repair", "quarantine", name, "--apply"])).contains("already"));
    world.does(&["repair", "index"]);
    let (out, _) = world.ends(&mut world.command(&["repair", "quarantine", "nonsense", "--json"]), 2);
    assert_eq!(objects(&out).last().unwrap()["message_type"], "exit_error");
    world.fails(&["repair", "index", "-n", "--apply"], 2);
}

#[test]
fn a_key_that_cannot_read_what_a_revoked_one_has_merged_says_that_the_owners_can() {
    let scene = Scene::new();
    let keeper = scene.add_key(Role::Maintain, "old");
    let merged = scene.merged_and_lost(&keeper, "old").len();
    let world = World::new();
    for (name, bytes) in scene.all() {
        let path = world.path("repo").join(name.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fs::write(world.path("words"), scene.root.words()).unwrap();
    let run = |arguments: &[&str], unlock: [&str; 2], code| {
        let mut command = world.bare(&[arguments, &unlock].concat());
        let (out, err) = world.ends(command.env("LIFEBOAT_REPOSITORY", world.path("repo")), code);
        format!("{out}{err}")
    };
    let owner = ["--recovery-words-file", &world.text("words")];
    let key = world.text("key");
    run(&["key", "add", "--role", "maintain", "--label", "new", "--access-key-out", &key], owner, 0);
    let said = run(&["repair", "index", "--apply"], ["--access-key-file", &key], 3);
    assert!(said.starts_with("nothing that this key can repair: 0 index objects list 0 packs"), "{said}");
    assert_eq!(said.matches("needs an owner's key: ").count(), merged, "{said}");
    assert!(said.contains("`lifeboat repair index --apply` with the owner's passphrase"), "{said}");
    assert!(!said.contains("quarantine"), "{said}");
    run(&["repair", "index", "--apply"], owner, 0);
    run(&["check", "--read-data"], owner, 0);
}

#[test]
fn every_remedy_that_names_repair_names_a_form_of_it_that_exists() {
    let (mut found, mut folders) = (0, vec![Path::new("src").to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A text may go on in the next line.
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ");
            for rest in text.split("lifeboat repair").skip(1) {
                let word: String = rest.trim_start().chars().take_while(|c| c.is_alphabetic()).collect();
                assert!(
                    ["index", "snapshots", "quarantine"].contains(&word.as_str()),
                    "{}: lifeboat repair {rest:.40}",
                    path.display()
                );
                found += 1;
            }
        }
    }
    assert!(found > 8, "{found}");
}
