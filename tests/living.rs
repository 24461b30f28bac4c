//! Sources that somebody works with while they are backed up: what changes is read again, what stays torn is
//! marked, what goes is counted, and nothing is mixed up in silence.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    cell::RefCell,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use lifeboat::{
    error::{ErrorKind, Result},
    filesystem::walk::{FilterOptions, Why},
    format::entry::{Content, Entry, Hole, Metadata},
    ops::{
        backup::{
            self, Again, BackupOptions, Done, Item, ReadContent, Reuse, Source,
            tree::{Accounted, Count, Tree},
        },
        list,
        verify::{self, Besides, VerifyOptions},
    },
};

use self::{
    place::{Place, noise},
    skip::skip,
};

#[path = "support/place.rs"]
mod place;
#[path = "support/skip.rs"]
mod skip;

/// What is done to a file, given its path and how often that was done before.
type Meddle = Arc<dyn Fn(&Path, u32) + Send + Sync>;

/// When it is done.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Between the look at it and the opening.
    BeforeItIsOpened,
    /// After the first bytes of each reading.
    WhileItIsRead,
}

/// A source in which somebody works on the file that is called `file`.
struct Meddled {
    tree: Tree,
    meddle: Meddle,
    when: When,
    times: Arc<AtomicU32>,
}

struct MeddledContent {
    inner: Box<dyn ReadContent>,
    path: PathBuf,
    meddle: Meddle,
    times: Arc<AtomicU32>,
    begun: bool,
}

impl Read for MeddledContent {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // A part at a time, so that it has read something and not all.
        let most = buffer.len().min(70_000);
        let read = self.inner.read(&mut buffer[..most])?;
        if !self.begun {
            self.begun = true;
            (self.meddle)(&self.path, self.times.fetch_add(1, Ordering::Relaxed));
        }
        Ok(read)
    }
}

impl ReadContent for MeddledContent {
    fn describe(&self, metadata: &mut Metadata) {
        self.inner.describe(metadata);
    }

    fn holes(&self) -> &[Hole] {
        self.inner.holes()
    }

    fn has_changed(&self) -> Result<bool> {
        self.inner.has_changed()
    }

    fn again(&mut self) -> Result<Again> {
        self.begun = false;
        self.inner.again()
    }
}

impl Source for Meddled {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let Self { tree, meddle, when, times } = self;
        Ok(Box::new(tree.open()?.map(move |item| {
            let (entry, open) = match item? {
                Item::File(entry, open) if entry.path.ends_with(b"/file") => (entry, open),
                other => return Ok(other),
            };
            let path = PathBuf::from(format!("/{}", std::str::from_utf8(&entry.path).unwrap()));
            let (meddle, times, when) = (Arc::clone(meddle), Arc::clone(times), *when);
            let open = move || -> Result<Box<dyn ReadContent>> {
                if when == When::BeforeItIsOpened {
                    meddle(&path, times.fetch_add(1, Ordering::Relaxed));
                    return open();
                }
                Ok(Box::new(MeddledContent { inner: open()?, path, meddle, times, begun: false }))
            };
            Ok(Item::File(entry, Box::new(open)))
        })))
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

fn entry(place: &Place, name: &str) -> Option<Entry> {
    entries(place).into_iter().find(|entry| entry.path.ends_with(format!("/{name}").as_bytes()))
}

/// Backs up while somebody meddles: what was done, the entry of the file, and how often it was meddled with.
fn back_up(
    place: &Place,
    when: When,
    meddle: impl Fn(&Path, u32) + Send + Sync + 'static,
) -> (Done, Option<Entry>, u32) {
    let tree = Tree { sources: vec![place.source()], filter: FilterOptions::default() };
    let mut source = Meddled { tree, meddle: Arc::new(meddle), when, times: Arc::default() };
    let done = backup::run(&place.open(), &mut source, &place.options()).unwrap();
    (done, entry(place, "file"), source.times.load(Ordering::Relaxed))
}

/// What comes back of the file, after a look that its entry tells its true length.
fn content(place: &Place, entry: &Entry) -> Vec<u8> {
    static TARGETS: AtomicU32 = AtomicU32::new(0);
    if let Content::Inline(chunks) = &entry.content {
        let stored: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        assert_eq!(stored, entry.metadata.size);
    }
    let target = format!("restored-{}", TARGETS.fetch_add(1, Ordering::Relaxed));
    assert_eq!(place.restore(&target, place.source().to_str().unwrap(), &[]).failures, 0);
    fs::read(place.at(&target).join("file")).unwrap()
}

fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_until_it_is_whole() {
    // Small ones share a batch with others; a large one fills frames that are passed on.
    for (workers, length) in [(1, 10), (3, 10), (1, 3_000_000), (3, 3_000_000)] {
        let place = Place::new(workers);
        for name in ["a", "file", "z"] {
            place.put(name, &noise(1, length));
        }
        let (done, entry, times) = back_up(&place, When::WhileItIsRead, |path, times| {
            if times < 2 {
                let mut bytes = fs::read(path).unwrap();
                bytes.reverse();
                bytes.push(7);
                fs::write(path, bytes).unwrap();
            }
        });
        let entry = entry.unwrap();
        assert_eq!(times, 3, "twice in vain");
        assert!(!entry.changed_while_read);
        assert_eq!((done.observed.changed, done.record.unreadable, done.trouble()), (0, 0, None));
        assert_eq!(entry.metadata.size, length as u64 + 2);
        let now = fs::metadata(place.source().join("file")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(entry.metadata.mtime.seconds, now.mtime(), "the times are those of the content");
        assert_eq!(i64::from(entry.metadata.ctime.nanoseconds), now.ctime_nsec());
        assert_eq!(content(&place, &entry), fs::read(place.source().join("file")).unwrap());
    }
}

#[test]
fn a_file_that_never_keeps_still_is_read_four_times_and_marked() {
    for length in [10, 2_500_000] {
        let place = Place::new(2);
        place.put("file", &noise(1, length));
        let (done, entry, times) = back_up(&place, When::WhileItIsRead, |path, _| append(path, b"more"));
        let entry = entry.unwrap();
        assert_eq!(times, 4, "once, and again three times");
        assert!(entry.changed_while_read);
        assert_eq!((done.observed.changed, done.record.unreadable), (1, 0));
        assert!(done.observed.changed_named[0].ends_with(b"/file"));
        let content = content(&place, &entry);
        assert!(content.starts_with(&noise(1, length)), "what was only added to is whole as far as it goes");
        // It is not taken for unchanged, although nobody touches it any more.
        let again = place.back_up(&place.options());
        assert_eq!(again.record.statistics.files_unchanged, 0);
        assert_eq!(
            (again.observed.changed, self::entry(&place, "file").unwrap().changed_while_read),
            (0, false)
        );
    }
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_stored_as_it_is_then() {
    let place = Place::new(2);
    place.put("file", &noise(1, 3_000_000));
    let (done, entry, _) = back_up(&place, When::WhileItIsRead, |path, times| {
        if times == 0 {
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
        }
    });
    let entry = entry.unwrap();
    assert_eq!(
        (entry.metadata.size, entry.changed_while_read, done.record.statistics.bytes),
        (100, false, 100)
    );
    assert_eq!(content(&place, &entry), noise(1, 100));
}

#[test]
fn a_file_that_another_one_replaces_is_stored_as_one_of_them() {
    for when in [When::BeforeItIsOpened, When::WhileItIsRead] {
        let place = Place::new(1);
        place.put("file", &noise(1, 300_000));
        let (done, entry, _) = back_up(&place, when, |path, times| {
            if times == 0 {
                // As editors and databases do it. The new one has the size of the old.
                let new = path.with_file_name(".new");
                fs::write(&new, noise(2, 300_000)).unwrap();
                fs::rename(new, path).unwrap();
            }
        });
        let entry = entry.unwrap();
        assert!(!entry.changed_while_read && done.trouble().is_none());
        assert_eq!(content(&place, &entry), noise(2, 300_000));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(entry.metadata.inode, fs::metadata(place.source().join("file")).unwrap().ino());
    }
}

/// What a file can become: a name for it, and how.
type Swap = (&'static str, fn(&Path));

fn swaps() -> [Swap; 3] {
    [
        ("a pipe", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a link", |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
    ]
}

#[test]
fn a_file_that_becomes_something_else_is_told_and_its_neighbours_are_stored() {
    for when in [When::BeforeItIsOpened, When::WhileItIsRead] {
        let place = Place::new(2);
        for (what, make) in swaps() {
            for name in ["a", "z"] {
                place.put(name, name.as_bytes());
            }
            let path = place.source().join("file");
            drop(fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)));
            place.put("file", b"file");
            let (done, entry, _) = back_up(&place, when, move |path, _| {
                fs::remove_file(path).unwrap();
                make(path);
            });
            let entry = entry.unwrap();
            assert!(entry.error.is_some(), "{what}: {entry:?}");
            assert_eq!(entry.content, Content::Inline(Vec::new()), "{what}");
            assert_eq!((done.record.unreadable, done.trouble()), (1, Some(ErrorKind::Incomplete)), "{what}");
            for name in ["a", "z"] {
                assert!(self::entry(&place, name).unwrap().error.is_none(), "{what}");
            }
        }
    }
}

#[test]
fn what_vanishes_before_it_is_opened_is_counted_and_nothing_is_incomplete() {
    for workers in [1, 3] {
        let place = Place::new(workers);
        for name in ["a", "file", "z"] {
            place.put(name, name.as_bytes());
        }
        let remove = |path: &Path, _: u32| fs::remove_file(path).unwrap();
        let (done, entry, _) = back_up(&place, When::BeforeItIsOpened, remove);
        assert_eq!(entry, None);
        assert_eq!((done.observed.vanished, done.record.unreadable, done.trouble()), (1, 0, None));
        assert_eq!(done.record.statistics.files, 2);
        // What was being read is whole, and may have been in the middle of something.
        place.put("file", b"content");
        let (done, entry, _) = back_up(&place, When::WhileItIsRead, remove);
        let entry = entry.unwrap();
        assert!(entry.changed_while_read);
        assert_eq!((content(&place, &entry), done.observed.changed), (b"content".to_vec(), 1));
    }
}

#[test]
fn names_of_a_file_that_changes_between_the_looks_at_them_come_back_as_one_file() {
    let place = Place::new(1);
    for name in ["a", "file"] {
        place.put(name, &noise(1, 100_000));
    }
    let source = place.source();
    for name in ["y", "z"] {
        fs::hard_link(source.join("a"), source.join(name)).unwrap();
    }
    // Between the first name and the others.
    let (done, _, _) = back_up(&place, When::BeforeItIsOpened, move |_, _| {
        fs::write(source.join("a"), noise(2, 200_000)).unwrap();
    });
    let of = |name: &str| entry(&place, name).unwrap();
    if of("a").metadata.btime.is_none() {
        skip("names of one file: this file system does not tell when files are born");
        return;
    }
    assert_eq!((of("a").changed_while_read, of("y").changed_while_read), (false, true));
    assert_eq!((done.observed.names_changed, done.observed.changed), (2, 0));
    assert!(done.observed.names_changed_named.iter().all(|name| !name.ends_with(b"a")));
    use std::os::unix::fs::MetadataExt;
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let root = place.source();
    let subpath = root.to_str().unwrap();
    for _ in 0..2 {
        let restored = place.restore("all", subpath, &[]);
        assert_eq!((restored.failures, restored.files), (0, 4), "each name counts");
        let all = ["a", "y", "z"].map(|name| place.at("all").join(name));
        assert_eq!(fs::read(&all[2]).unwrap(), noise(1, 100_000), "it has what the first name had");
        assert!(all.clone().map(inode) == [inode(all[0].clone()); 3]);
        assert_eq!(verify_restored(&place, "all"), (0, 4));
    }
    // One of them that is a file of its own by now is told.
    let z = place.at("all").join("z");
    fs::remove_file(&z).unwrap();
    fs::write(&z, noise(2, 200_000)).unwrap();
    assert_eq!(verify_restored(&place, "all"), (1, 3));
    // Without the first one it has what it had itself.
    let only = |name: &str| format!("{subpath}/{name}");
    place.restore("two", subpath, &[&only("y"), &only("z")]);
    assert_eq!(fs::read(place.at("two").join("z")).unwrap(), noise(2, 200_000));
    assert_eq!(inode(place.at("two").join("y")), inode(place.at("two").join("z")));
    // They are read again when nobody works on them, and are one file as before.
    let again = place.back_up(&place.options());
    assert_eq!((again.observed.names_changed, of("y").changed_while_read), (0, false));
    place.restore("again", subpath, &[]);
    assert_eq!(inode(place.at("again").join("a")), inode(place.at("again").join("z")));
}

/// How many entries differ in what was restored of the source, and how many files are as they were.
fn verify_restored(place: &Place, target: &str) -> (u64, u64) {
    let repository = place.open();
    let subpath = place.source().to_str().unwrap().trim_start_matches('/').into();
    let options = VerifyOptions { subpath, besides: Besides::Ignore, ..VerifyOptions::default() };
    let snapshot = place.newest(&repository);
    let done = verify::run(&repository, &snapshot, Some(&place.at(target)), &options).unwrap();
    let not_the_source = |path: &[u8]| !path.ends_with(b"source");
    let differing: std::collections::BTreeSet<_> =
        done.differences.into_iter().map(|(path, _)| path).filter(|path| not_the_source(path)).collect();
    (differing.len() as u64, done.files)
}

#[test]
fn a_source_that_vanishes_before_it_is_opened_is_missing() {
    let place = Place::new(1);
    place.put("file", b"x");
    let tree = Tree { sources: vec![place.source().join("file")], filter: FilterOptions::default() };
    let meddle: Meddle = Arc::new(|path, _| fs::remove_file(path).unwrap());
    let mut source = Meddled { tree, meddle, when: When::BeforeItIsOpened, times: Arc::default() };
    let done = backup::run(&place.open(), &mut source, &place.options()).unwrap();
    assert_eq!((done.observed.vanished, done.record.unreadable), (0, 1));
}

/// A file that breaks off in its middle.
struct Broken(Tree);

struct BrokenContent(Box<dyn ReadContent>, usize);

impl Read for BrokenContent {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1 == 0 {
            return Err(rustix::io::Errno::IO.into());
        }
        let most = self.1.min(buffer.len());
        let read = self.0.read(&mut buffer[..most])?;
        self.1 -= read;
        Ok(read)
    }
}

impl ReadContent for BrokenContent {
    fn describe(&self, metadata: &mut Metadata) {
        self.0.describe(metadata);
    }

    fn holes(&self) -> &[Hole] {
        self.0.holes()
    }

    fn again(&mut self) -> Result<Again> {
        self.0.again()
    }

    fn has_changed(&self) -> Result<bool> {
        self.0.has_changed()
    }
}

impl Source for Broken {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.open()?.map(|item| {
            Ok(match item? {
                Item::File(entry, open) if entry.path.ends_with(b"/file") => {
                    Item::File(entry, Box::new(|| Ok(Box::new(BrokenContent(open()?, 2_000_000)))))
                }
                other => other,
            })
        })))
    }
}

#[test]
fn a_read_error_in_the_middle_of_a_file_is_told_and_nothing_of_it_passes_for_the_file() {
    for workers in [1, 3] {
        let place = Place::new(workers);
        place.put("file", &noise(1, 3_000_000));
        place.put("z", b"z");
        let tree = Tree { sources: vec![place.source()], filter: FilterOptions::default() };
        let done = backup::run(&place.open(), &mut Broken(tree), &place.options()).unwrap();
        assert_eq!(done.record.unreadable, 1);
        let (path, reason) = &done.record.unreadable_named[0];
        assert!(path.ends_with(b"/file") && reason.contains("Input/output error"), "{reason}");
        assert_eq!(entry(&place, "file").unwrap().content, Content::Inline(Vec::new()));
        assert!(entry(&place, "z").unwrap().error.is_none());
        // Once the disk reads again, so does the next backup.
        let done = place.back_up(&place.options());
        assert_eq!((done.record.unreadable, done.record.statistics.files_unchanged), (0, 1));
        assert_eq!(content(&place, &entry(&place, "file").unwrap()), noise(1, 3_000_000));
    }
}

/// Writes other bytes of the same length and gives the file the time that it had: `touch -r`.
fn replace_in_silence(path: &Path, bytes: &[u8]) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn content_that_changes_under_the_same_time_is_noticed_by_the_change_time() {
    let place = Place::new(1);
    place.put("file", b"before");
    place.back_up(&place.options());
    replace_in_silence(&place.source().join("file"), b"behind");
    let lax = BackupOptions { reuse: Reuse { compare_ctime: false, ..Reuse::default() }, ..place.options() };
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.files_unchanged, 0);
    assert_eq!(content(&place, &entry(&place, "file").unwrap()), b"behind");
    // That is what tells: without it nothing else would.
    replace_in_silence(&place.source().join("file"), b"beside");
    assert_eq!(place.back_up(&lax).record.statistics.files_unchanged, 1);
}

#[test]
fn what_changed_within_the_tick_of_a_backup_is_read_again_by_the_next_one() {
    let place = Place::new(1);
    let path = place.source().join("file");
    place.put("file", b"before");
    let at = |seconds| {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let begun = |done: &Done| u64::try_from(done.record.begun.seconds).unwrap();
    // The change time of a file cannot be set: it is left out, and the time of modification plays its part.
    let lax = BackupOptions { reuse: Reuse { compare_ctime: false, ..Reuse::default() }, ..place.options() };
    let now = begun(&place.back_up(&lax));
    // A clock that is a day ahead of the backup, and one that is old enough to be believed.
    for (seconds, unchanged) in [(now + 86_400, 0), (now - 86_400, 1)] {
        at(seconds);
        place.back_up(&lax);
        replace_in_silence(&path, if unchanged == 0 { b"during" } else { b"behind" });
        let done = place.back_up(&lax);
        assert_eq!(done.record.statistics.files_unchanged, unchanged, "{seconds}");
        if unchanged == 0 {
            assert_eq!(content(&place, &entry(&place, "file").unwrap()), b"during");
        }
    }
}

#[test]
fn a_file_with_the_inode_of_one_that_is_gone_is_another_file() {
    let place = Place::new(1);
    let path = place.source().join("file");
    place.put("file", b"first");
    place.back_up(&place.options());
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    // Most file systems give the number again at once; where they do not, the number tells.
    fs::remove_file(&path).unwrap();
    place.put("file", b"other");
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let done = place.back_up(&place.options());
    assert_eq!(done.record.statistics.files_unchanged, 0);
    assert_eq!(content(&place, &entry(&place, "file").unwrap()), b"other");
}

#[test]
fn a_source_that_shrank_to_nothing_is_told_once_and_its_snapshot_kept() {
    for cached in [true, false] {
        let place = Place::new(2);
        for number in 0..500 {
            place.put(&format!("{}/{number}", number % 5), b"x");
        }
        let done = place.back_up(&place.options());
        assert_eq!(done.trouble(), None, "there was nothing before it");
        // Folders may stay, and the empty file that marks a mount point.
        for number in 0..5 {
            fs::remove_dir_all(place.source().join(number.to_string())).unwrap();
        }
        place.put("1/.not-mounted", b"");
        if !cached {
            fs::remove_dir_all(place.at("cache")).unwrap();
        }
        let done = place.back_up(&place.options());
        assert_eq!(done.trouble(), Some(ErrorKind::EmptySource));
        assert!(done.snapshot.is_some());
        assert_eq!(done.observed.emptied.count, 1);
        assert_eq!(done.observed.emptied.named, [place.source().to_str().unwrap().as_bytes()]);
        assert_eq!(place.back_up(&place.options()).trouble(), None, "that is how it is now");
    }
}

#[test]
fn the_account_of_a_tree_counts_by_rule_and_begins_anew_with_each_pass() {
    let place = Place::new(1);
    for name in ["a.tmp", "b.tmp", "large", "keep"] {
        place.put(name, &vec![0; if name == "large" { 5000 } else { 5 }]);
    }
    let filter = FilterOptions {
        excludes: vec!["none".into(), "*.tmp".into()],
        exclude_larger_than: Some(4096),
        ..FilterOptions::default()
    };
    let told = RefCell::new(Vec::new());
    let each = |found: &lifeboat::filesystem::walk::LeftOut| told.borrow_mut().push(found.path.clone());
    let mut tree = Accounted::new(Tree { sources: vec![place.source()], filter }, &each);
    for pass in 1..=2 {
        let names = tree.open().unwrap().filter(|item| matches!(item, Ok(Item::File(..)))).count();
        assert_eq!((names, told.borrow().len()), (1, 3 * pass));
        let count = |entries, bytes| Count { entries, bytes };
        let expected = [(Why::Pattern(1), count(2, 10)), (Why::LargerThan, count(1, 5000))];
        assert!(tree.left_out().iter().map(|(why, count)| (*why, *count)).eq(expected));
    }
}
