//! Backups on a bad day: interrupted, short of handles, over damage, over files that change.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    clock::{Clock, SystemClock, Timestamp},
    error::{ErrorKind, Result},
    filesystem::walk::FilterOptions,
    format::entry::{Content, Entry},
    ops::{
        backup::{self, BackupOptions, Item, ReadContent, Reuse, Source, Unchanged, tree::Tree},
        list,
    },
    progress::Progress,
    store::Prefix,
};

use self::place::{Place, noise, same};

#[path = "support/place.rs"]
mod place;

/// The same place for a program that is started anew.
fn afresh(place: Place) -> Place {
    Place { progress: Arc::default(), ..place }
}

fn tree(place: &Place) -> Tree {
    Tree { sources: vec![place.source()], filter: FilterOptions::default() }
}

/// The names in the cache that begin like this.
fn cached(place: &Place, prefix: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![place.at("cache")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if name.starts_with(prefix) {
                found.push(name);
            }
        }
    }
    found
}

fn data_packs(place: &Place) -> Vec<(String, u64)> {
    let all = place.store().list(&Prefix::all()).unwrap();
    all.into_iter().filter(|o| o.name.contains("/packs/d/")).map(|o| (o.name, o.size)).collect()
}

/// A source whose reader asks the program to stop when it has given everything.
struct StopsAtTheEnd(Tree, Arc<Progress>);

impl Source for StopsAtTheEnd {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let progress = Arc::clone(&self.1);
        let last = std::iter::from_fn(move || {
            progress.stop();
            None
        });
        Ok(Box::new(self.0.open()?.chain(last)))
    }
}

#[test]
fn packs_of_an_interrupted_backup_are_used_by_the_next_one() {
    let place = Place::new(1);
    place.put("noise", &noise(1, 40 << 20));
    let mut stopped = StopsAtTheEnd(tree(&place), Arc::clone(&place.progress));
    let error = backup::run(&place.open(), &mut stopped, &place.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    drop(stopped);
    let place = afresh(place);
    let before = data_packs(&place);
    assert_eq!(before.len(), 2, "two packs of 16 MiB were full: {before:?}");
    assert_eq!(cached(&place, "journal").len(), 1);
    let done = place.back_up(&place.options());
    assert!(done.record.statistics.bytes_new < 10 << 20, "{:?}", done.record.statistics);
    assert!(cached(&place, "journal").is_empty());
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    same(&place.source(), &place.at("all").join(place.source().strip_prefix("/").unwrap()));
}

/// So many bytes of words, from a seed.
fn words(seed: u8, length: usize) -> Vec<u8> {
    let words = ["backup ", "restore ", "chunk ", "frame ", "pack ", "index ", "node ", "lease "];
    let chosen = noise(seed, length).into_iter().flat_map(|byte| words[usize::from(byte % 8)].bytes());
    chosen.take(length).collect()
}

#[test]
fn what_is_new_in_a_large_file_that_is_known_is_compressed_harder() {
    let place = Place::new(1);
    let first = words(1, 16 << 20);
    place.put("disk", &first);
    // Of the new bytes, so much is stored.
    let part = |place: &Place| {
        let statistics = place.back_up(&place.options()).record.statistics;
        assert!(statistics.bytes_new >= 3 << 20, "{statistics:?}");
        statistics.bytes_stored * 1000 / statistics.bytes_new
    };
    let usual = part(&place);
    let mut second = first;
    second[9 << 20..12 << 20].copy_from_slice(&words(2, 3 << 20));
    place.put("disk", &second);
    let changes = part(&place);
    assert!(changes * 50 < usual * 49, "{changes} of {usual}");
    // What is new at the beginning is not known to be a change.
    let mut third = second;
    third[..3 << 20].copy_from_slice(&words(3, 3 << 20));
    place.put("disk", &third);
    assert!(part(&place) * 50 > usual * 49);
}

/// A clock, and a source that makes it an hour later before it gives `name`.
struct Late(Arc<AtomicU64>);

impl Clock for Late {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed() + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

struct LateAt(Tree, &'static str, Arc<AtomicU64>);

impl Source for LateAt {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let Self(tree, name, late) = self;
        Ok(Box::new(tree.open()?.inspect(|item| {
            if let Ok(Item::File(entry, _)) = item
                && entry.path.ends_with(name.as_bytes())
            {
                late.store(3600, Ordering::Relaxed);
            }
        })))
    }
}

#[test]
fn what_a_first_backup_has_stored_and_listed_itself_is_not_known() {
    // Of a copy with something new, that begins when an index lists what it is a copy of, or before.
    let model = Place::new(1);
    let stored = ["b", "nothing"].map(|late| {
        let place = Place::new(1);
        // With the same secrets both cut at the same places: else that makes more of a difference than what is looked at.
        fs::remove_dir_all(place.at("repository")).unwrap();
        let mut copy = Command::new("cp");
        assert!(
            copy.arg("-a")
                .arg(model.at("repository"))
                .arg(place.at("repository"))
                .status()
                .unwrap()
                .success()
        );
        let first = noise(1, 40 << 20);
        place.put("a", &first);
        place.put("b", &noise(2, 20 << 20));
        place.put("c", &[first, words(1, 32 << 20)].concat());
        let clock: Arc<AtomicU64> = Arc::default();
        let mut source = LateAt(tree(&place), late, Arc::clone(&clock));
        let repository = place.open_at(Arc::new(Late(clock)));
        let done = backup::run(&repository, &mut source, &place.options()).unwrap();
        let listed = place.store().list(&Prefix::all()).unwrap();
        let indexes = listed.iter().filter(|object| object.name.contains("/index/")).count();
        assert_eq!(indexes, if late == "b" { 2 } else { 1 });
        // All that is new and not words is noise, the end of the copy that is in a chunk with words among it.
        let statistics = done.record.statistics;
        statistics.bytes_stored - (statistics.bytes_new - (32 << 20))
    });
    assert!(stored[0] * 50 > stored[1] * 49, "{stored:?}");
}

#[test]
fn a_journal_that_was_tampered_with_is_not_believed() {
    let place = Place::new(1);
    place.put("noise", &noise(1, 40 << 20));
    let mut stopped = StopsAtTheEnd(tree(&place), Arc::clone(&place.progress));
    drop(backup::run(&place.open(), &mut stopped, &place.options()).unwrap_err());
    drop(stopped);
    let place = afresh(place);
    let folder = fs::read_dir(place.at("cache")).unwrap().next().unwrap().unwrap().path();
    let journal = folder.join(&cached(&place, "journal")[0]);
    let mut bytes = fs::read(&journal).unwrap();
    bytes[100] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.bytes_new, 40 << 20);
    assert_eq!(place.restore("all", "", &[]).failures, 0);
}

#[test]
fn the_cache_holds_one_manifest_however_often_nothing_changes() {
    let place = Place::new(2);
    place.put("one", b"1");
    let skip = BackupOptions { unchanged: Unchanged::Skip, ..place.options() };
    for _ in 0..3 {
        place.back_up(&skip);
        place.back_up(&place.options());
    }
    assert_eq!(cached(&place, "parent-").len(), 2, "a record and the nodes: {:?}", cached(&place, "parent-"));
    // What a run that was killed has left.
    let record = cached(&place, "parent-").into_iter().find(|name| name.ends_with("record")).unwrap();
    let folder = fs::read_dir(place.at("cache")).unwrap().next().unwrap().unwrap().path();
    fs::write(folder.join(record.replace("record", "77")), b"half a manifest").unwrap();
    place.back_up(&place.options());
    assert_eq!(cached(&place, "parent-").len(), 2);
}

#[test]
fn a_damaged_manifest_in_the_repository_is_stored_again_and_told() {
    let place = Place::new(2);
    for number in 0..2000 {
        place.put(&format!("{}/{number}", number % 9), number.to_string().as_bytes());
    }
    place.back_up(&place.options());
    let all = place.store().list(&Prefix::all()).unwrap();
    let pack = all.into_iter().find(|object| object.name.contains("/packs/m/")).unwrap();
    let path = place.at("repository").join(&pack.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[2000] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(place.at("cache")).unwrap();
    let done = place.back_up(&place.options());
    assert!(done.warnings.len() == 1 && done.warnings[0].contains("cannot be read"), "{:?}", done.warnings);
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    same(&place.source(), &place.at("all").join(place.source().strip_prefix("/").unwrap()));
}

/// One file that is being written to.
struct Torn(Entry);

struct TornContent(Cursor<Vec<u8>>);

impl Read for TornContent {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl ReadContent for TornContent {
    fn has_changed(&self) -> Result<bool> {
        // It has to be asked after the last byte.
        Ok(self.0.position() == self.0.get_ref().len() as u64)
    }
}

impl Source for Torn {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let content = TornContent(Cursor::new(vec![7; usize::try_from(self.0.metadata.size).unwrap()]));
        let item = Item::File(self.0.clone(), Box::new(move || Ok(Box::new(content))));
        Ok(Box::new(std::iter::once(Ok(item))))
    }
}

fn entries(place: &Place) -> Vec<Entry> {
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let mut found = Vec::new();
    list::run(&repository, snapshots.last().unwrap(), b"", &mut |entry| {
        found.push(entry.clone());
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn a_file_that_changes_while_it_is_read_is_marked_and_read_again_next_time() {
    let place = Place::new(1);
    place.put("file", b"seven77");
    place.back_up(&place.options());
    let entry = entries(&place).pop().unwrap();
    assert!(!entry.changed_while_read);
    let forced = BackupOptions { reuse: Reuse { unchanged: false, ..Reuse::default() }, ..place.options() };
    backup::run(&place.open(), &mut Torn(entry), &forced).unwrap();
    assert!(entries(&place).pop().unwrap().changed_while_read);
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.files_unchanged, 0);
    assert!(!entries(&place).pop().unwrap().changed_while_read);
}

/// Gives so many bytes at a time.
struct Drip(Cursor<Vec<u8>>, usize);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

impl ReadContent for Drip {
    fn has_changed(&self) -> Result<bool> {
        Ok(false)
    }
}

struct Dripping(Entry, Vec<u8>, usize);

impl Source for Dripping {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let content = Drip(Cursor::new(self.1.clone()), self.2);
        let item = Item::File(self.0.clone(), Box::new(move || Ok(Box::new(content))));
        Ok(Box::new(std::iter::once(Ok(item))))
    }
}

#[test]
fn where_a_file_is_cut_does_not_depend_on_how_it_is_read() {
    let place = Place::new(1);
    let content = [noise(1, 1_200_001), vec![0; 1_300_000]].concat();
    place.put("file", &content);
    place.back_up(&place.options());
    let entry = entries(&place).pop().unwrap();
    let Content::Inline(chunks) = &entry.content else { panic!("it is a small file") };
    let domain = place.open().own_domain().unwrap();
    let gear = place.open().chunk_keys(&domain).unwrap().gear.table();
    let (chunker, mut at) = (Chunker::new(gear, ChunkSizes::DEFAULT), 0);
    for chunk in chunks {
        let rest = &content[at..];
        assert_eq!(chunker.cut(&rest[..rest.len().min(chunker.max())]), chunk.length as usize);
        at += chunk.length as usize;
    }
    assert_eq!(at, content.len());
    let forced = BackupOptions { reuse: Reuse { unchanged: false, ..Reuse::default() }, ..place.options() };
    for step in [1, 7, 4096, 65_537, usize::MAX] {
        let mut source = Dripping(entry.clone(), content.clone(), step);
        backup::run(&place.open(), &mut source, &forced).unwrap();
        assert_eq!(entries(&place).pop().unwrap().content, entry.content, "{step} bytes at a time");
    }
}

#[test]
fn a_name_too_far_down_is_told_at_its_folder_and_hurts_nobody_else() {
    let place = Place::new(2);
    place.put("a", b"first");
    place.put("z", b"last");
    // 300 folders of 250 bytes: no path of the system is as long, so each is made from the one above.
    let folder = fs::File::open(place.source()).unwrap();
    let mut folder = std::os::fd::OwnedFd::from(folder);
    let name = "d".repeat(250);
    for _ in 0..300 {
        rustix::fs::mkdirat(&folder, &name, 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        folder = rustix::fs::openat(&folder, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    let done = place.back_up(&place.options());
    assert_eq!(done.record.unreadable, 1, "{:?}", done.record.unreadable_named);
    assert!(done.record.unreadable_named[0].1.contains("too long"));
    let names: Vec<Entry> = entries(&place);
    assert_eq!(names.last().unwrap().path.last(), Some(&b'z'));
    let target = place.restore("some", "", &["/**/a", "/**/z"]);
    assert_eq!(target.files, 2);
}

#[test]
fn a_system_short_of_handles_fails_the_backup_instead_of_leaving_files_out() {
    let place = Place::new(2);
    let deep: String = (0..60).map(|number| format!("{number}/")).collect();
    place.put(&format!("{deep}file"), b"x");
    let run = |limit: &str| {
        let mut command = Command::new("sh");
        let line = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let arguments =
            ["-r", place.at("repository").to_str().unwrap(), "backup", "source"].map(str::to_owned);
        let program = Path::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("-c").arg(line).arg(program).args(arguments).current_dir(place.at(""));
        command.env("LIFEBOAT_PASSWORD", "right").env("LIFEBOAT_CACHE_DIR", place.at("cache"));
        command.output().unwrap()
    };
    let short = run("50");
    let said = String::from_utf8_lossy(&short.stderr).into_owned();
    assert_eq!(short.status.code(), Some(1), "{said}");
    assert!(said.contains("Too many open files") && said.contains("ulimit"), "{said}");
    assert!(run("500").status.success());
}

/// A source that ends only when the others do.
struct Together<'a>(Tree, &'a Barrier);

impl Source for Together<'_> {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        self.0.open()
    }

    fn finish(&mut self) -> Result<()> {
        self.1.wait();
        Ok(())
    }
}

#[test]
fn backups_that_end_at_once_with_one_key_do_not_fork_its_chain() {
    let place = Place::new(1);
    place.put("one", b"1");
    let together = Barrier::new(3);
    for _ in 0..4 {
        std::thread::scope(|scope| {
            for host in ["a", "b", "c"] {
                let (repository, options) = (place.open(), place.options());
                let mut source = Together(tree(&place), &together);
                scope.spawn(move || {
                    let options = BackupOptions { host: host.to_owned(), ..options };
                    backup::run(&repository, &mut source, &options).unwrap();
                });
            }
        });
    }
    let (snapshots, damaged) = place.open().snapshots().unwrap();
    let mut numbers: Vec<u64> = snapshots.iter().map(|known| known.name.sequence).collect();
    numbers.sort_unstable();
    assert!(numbers == (1..=12).collect::<Vec<_>>() && damaged.is_empty(), "{numbers:?} {damaged:?}");
}

#[test]
fn what_a_check_found_damaged_is_stored_again_by_the_next_backup() {
    use lifeboat::ops::check::{self, CheckOptions, Depth, Subset};
    let place = Place::new(2);
    for number in 0..300 {
        place.put(&format!("{number}"), number.to_string().as_bytes());
    }
    place.back_up(&place.options());
    for kind in ["/packs/d/", "/packs/m/"] {
        let all = place.store().list(&Prefix::all()).unwrap();
        let pack = all.into_iter().find(|object| object.name.contains(kind)).unwrap();
        let path = place.at("repository").join(&pack.name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[2000] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let data = CheckOptions { depth: Depth::Data(Subset::All), workers: 2 };
    assert!(check::run(&place.open(), data).unwrap().problems_found >= 2);
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.files_unchanged, 0);
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    same(&place.source(), &place.at("all").join(place.source().strip_prefix("/").unwrap()));
    // Once they are gone nothing is distrusted for ever.
    assert_eq!(cached(&place, "distrusted-").len(), 1);
    for (name, _) in data_packs(&place).into_iter().take(1) {
        fs::remove_file(place.at("repository").join(name)).unwrap();
    }
    place.back_up(&place.options());
}

#[test]
fn who_has_seen_a_newer_snapshot_says_so_when_reading_too() {
    let place = Place::new(1);
    place.put("one", b"1");
    for _ in 0..2 {
        place.back_up(&place.options());
    }
    let all = place.store().list(&Prefix::all()).unwrap();
    let last =
        all.into_iter().filter(|object| object.name.contains("/snapshots/")).max_by_key(|o| o.name.clone());
    fs::remove_file(place.at("repository").join(last.unwrap().name)).unwrap();
    let (snapshots, damaged) = place.open().snapshots().unwrap();
    assert_eq!(snapshots.len(), 1);
    assert!(damaged.iter().any(|error| error.to_string().contains("older state")), "{damaged:?}");
}

#[test]
fn one_name_that_no_repository_has_hides_no_other_domain() {
    let place = Place::new(1);
    place.put("one", b"1");
    place.back_up(&place.options());
    fs::write(place.at("repository/d").join("x\ny"), b"").unwrap();
    let error = place.store().list(&Prefix::all()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.remedy().unwrap().contains("Remove that object"), "{error}");
    let (snapshots, damaged) = place.open().snapshots().unwrap();
    assert!(snapshots.len() == 1 && damaged.is_empty(), "{damaged:?}");
    // In the folder of its snapshots it is damage of that domain, and no end.
    fs::write(
        place.at("repository").join(name_of(&place, "/snapshots/").unwrap()).with_file_name("x\ny"),
        b"",
    )
    .unwrap();
    let (snapshots, damaged) = place.open().snapshots().unwrap();
    assert!(snapshots.is_empty() && damaged.len() == 1, "{damaged:?}");
    assert_eq!(damaged[0].kind(), ErrorKind::Damaged);
}

/// The first object with this in its name, by way of the disk.
fn name_of(place: &Place, part: &str) -> Option<String> {
    let mut folders = vec![place.at("repository")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(place.at("repository")).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(part) {
                return Some(name);
            }
        }
    }
    None
}

#[test]
fn an_index_object_that_a_check_found_damaged_is_not_remembered_from_the_cache() {
    use lifeboat::ops::check::{self, CheckOptions, Depth};
    let place = Place::new(1);
    place.put("one", &noise(1, 100_000));
    place.back_up(&place.options());
    let index = place.at("repository").join(name_of(&place, "/index/").unwrap());
    let length = fs::metadata(&index).unwrap().len();
    fs::File::options().write(true).open(&index).unwrap().set_len(length / 2).unwrap();
    let structure = CheckOptions { depth: Depth::Structure, workers: 1 };
    let checked = check::run(&place.open(), structure).unwrap();
    assert!(
        checked.problems.iter().any(|problem| problem.object.contains("/index/")),
        "{:?}",
        checked.problems
    );
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.bytes_new, 100_000, "nobody else can find what is there");
    fs::remove_dir_all(place.at("cache")).unwrap();
    assert_eq!(place.restore("all", "", &[]).failures, 0);
}
