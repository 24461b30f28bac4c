//! What a repository needs of a store, as cases that any store can be put to.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use lifeboat::{
    error::{Error, ErrorKind},
    format::pack::PackKind,
    id::{DomainId, IdentityId, ObjectId, PackId},
    limits,
    store::{Listed, Name, Prefix, Store},
};
use object_store::{
    Error as RawError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path,
};

/// A store that is put to the cases.
pub(crate) struct Place {
    /// The facade over a part of the store that has this name.
    pub(crate) open: Box<dyn Fn(&str) -> Store>,
    /// The store itself.
    pub(crate) raw: Arc<dyn ObjectStore>,
    /// Where the parts are in the store itself.
    pub(crate) root: String,
}

/// A case, with the part of the store that is its own.
type Case = fn(&Place, &Store);

const CASES: [(&str, Case); 13] = [
    ("written", what_is_written_comes_back),
    ("taken", a_name_is_taken_once),
    ("again", the_same_bytes_again_are_no_error),
    ("ranges", ranges_are_exact),
    ("missing", what_is_not_there_is_not_found),
    ("deleted", what_is_deleted_is_gone),
    ("listed", a_list_has_every_name_once_with_its_size),
    ("pages", a_list_has_more_than_one_page),
    ("neighbours", a_list_shows_nothing_of_a_neighbour),
    ("sizes", objects_are_empty_or_large),
    ("names", names_may_be_long),
    ("stamps", stamps_never_go_back),
    ("race", of_many_creators_one_wins),
];

/// The cases that this store does not pass.
pub(crate) fn failures(place: &Place) -> Vec<&'static str> {
    let passes = |(name, case): &(&'static str, Case)| {
        catch_unwind(AssertUnwindSafe(|| case(place, &(place.open)(name)))).is_ok()
    };
    CASES.iter().filter(|case| !passes(case)).map(|(name, _)| *name).collect()
}

fn domain() -> DomainId {
    DomainId::new([7; 8])
}

/// A name that holds its hash, though not of what is written here.
fn pack(number: u8) -> Name {
    Name::pack(&domain(), PackKind::Data, &PackId::new([number; 32]))
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[track_caller]
fn fails(result: Result<impl std::fmt::Debug, Error>, kind: ErrorKind) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

fn what_is_written_comes_back(_: &Place, store: &Store) {
    for name in [Name::config(), Name::slot("a-b"), pack(1)] {
        let bytes = noise(100_000);
        store.create(&name, bytes.clone().into()).unwrap();
        assert_eq!(store.read(&name, 100_000).unwrap(), bytes);
        fails(store.read(&name, 99_999), ErrorKind::Damaged);
        assert_eq!(store.head(&name).unwrap().unwrap().size, 100_000);
    }
}

/// Of a name that holds its hash nobody reads back what the store did, so the store itself must say it.
fn a_name_is_taken_once(_: &Place, store: &Store) {
    for name in [Name::config(), pack(1)] {
        store.create(&name, "one".into()).unwrap();
        for other in ["two", "on", "one more", ""] {
            fails(store.create(&name, other.into()), ErrorKind::Failed);
            assert_eq!(store.read(&name, 3).unwrap(), "one");
        }
    }
}

fn the_same_bytes_again_are_no_error(_: &Place, store: &Store) {
    for name in [Name::config(), pack(1)] {
        store.create(&name, "one".into()).unwrap();
        store.create(&name, "one".into()).unwrap();
        store.create_parts(&name, vec!["o".into(), Bytes::new(), "ne".into()]).unwrap();
        assert_eq!(store.read(&name, 3).unwrap(), "one");
    }
}

fn ranges_are_exact(_: &Place, store: &Store) {
    let bytes = noise(100_000);
    store.create(&pack(1), bytes.clone().into()).unwrap();
    for (start, end) in [(0_u32, 1_u32), (0, 100_000), (10, 90_000), (99_999, 100_000), (5, 5)] {
        let part = store.read_range(&pack(1), u64::from(start)..u64::from(end)).unwrap();
        assert_eq!(part, bytes[start as usize..end as usize]);
    }
    for range in [99_999..100_001, 100_000..100_001, 500_000..500_010] {
        fails(store.read_range(&pack(1), range), ErrorKind::Damaged);
    }
}

fn what_is_not_there_is_not_found(_: &Place, store: &Store) {
    fails(store.read(&pack(1), 9), ErrorKind::NotFound);
    fails(store.read_range(&pack(1), 0..9), ErrorKind::NotFound);
    assert_eq!(store.head(&pack(1)).unwrap(), None);
    assert_eq!(store.list(&Prefix::all()).unwrap(), []);
    store.delete(&pack(1)).unwrap();
}

fn what_is_deleted_is_gone(_: &Place, store: &Store) {
    for text in ["one", "two"] {
        store.create(&pack(1), text.into()).unwrap();
        assert_eq!(store.read(&pack(1), 9).unwrap(), text);
        store.delete(&pack(1)).unwrap();
        assert_eq!(store.head(&pack(1)).unwrap(), None);
        assert_eq!(store.list(&Prefix::all()).unwrap(), []);
        store.delete(&pack(1)).unwrap();
    }
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|listed| listed.name.as_str()).collect()
}

fn a_list_has_every_name_once_with_its_size(_: &Place, store: &Store) {
    let index = Name::index(&domain(), &IdentityId::new([2; 16]), &ObjectId::new([3; 32]));
    let mut written = vec![Name::config(), index.clone(), Name::slot("a-b")];
    written.extend((0..30).map(pack));
    for name in written.iter().rev() {
        store.create(name, name.to_string().into()).unwrap();
    }
    let expected = |which: &dyn Fn(&&Name) -> bool| {
        written.iter().filter(which).map(Name::as_str).collect::<BTreeSet<_>>()
    };
    for (prefix, which) in [
        (Prefix::all(), &(|_: &&Name| true) as &dyn Fn(&&Name) -> bool),
        (Prefix::packs(&domain()), &|name| name.as_str().contains("/packs/")),
        (Prefix::index(&domain()), &|name| **name == index),
        (Prefix::packs(&DomainId::new([8; 8])), &|_| false),
        (Prefix::registry(), &|_| false),
    ] {
        let listed = store.list(&prefix).unwrap();
        assert!(names(&listed).into_iter().eq(expected(which)), "{prefix:?}: {listed:?}");
        assert!(listed.iter().all(|one| one.size == one.name.len() as u64), "{listed:?}");
    }
}

fn a_list_has_more_than_one_page(_: &Place, store: &Store) {
    let uploads = store.uploads(1 << 20);
    for number in 0..1_050 {
        uploads.create(Name::registry(number, &ObjectId::new([1; 32])), vec!["x".into()]).unwrap();
    }
    uploads.wait().unwrap();
    let listed = store.list(&Prefix::registry()).unwrap();
    let expected = (0..1_050).map(|number| Name::registry(number, &ObjectId::new([1; 32])).to_string());
    assert!(names(&listed).into_iter().eq(expected), "{} are listed", listed.len());
}

fn a_list_shows_nothing_of_a_neighbour(place: &Place, store: &Store) {
    let neighbour = (place.open)("neighbours-too");
    neighbour.create(&pack(1), "theirs".into()).unwrap();
    assert_eq!(store.list(&Prefix::all()).unwrap(), []);
    store.create(&pack(2), "ours".into()).unwrap();
    assert_eq!(names(&store.list(&Prefix::all()).unwrap()), [pack(2).as_str()]);
}

fn objects_are_empty_or_large(_: &Place, store: &Store) {
    store.create(&pack(1), Bytes::new()).unwrap();
    assert_eq!(store.read(&pack(1), 0).unwrap(), "");
    fails(store.read_range(&pack(1), 0..1), ErrorKind::Damaged);
    let bytes = noise(limits::PACK_BYTES_TARGET_MAX);
    let (end, length) = (bytes.len(), bytes.len() as u64);
    store.create(&pack(2), bytes.clone().into()).unwrap();
    assert_eq!(store.head(&pack(2)).unwrap().unwrap().size, length);
    assert_eq!(store.read_range(&pack(2), length - 1000..length).unwrap(), bytes[end - 1000..]);
    assert!(store.read(&pack(2), end).unwrap() == bytes);
}

/// The longest name that a repository writes, below an address that is as long as the rest of 1024 bytes.
fn names_may_be_long(place: &Place, _: &Store) {
    let (domain, identity, id) = (domain(), IdentityId::new([0xfe; 16]), ObjectId::new([0xfe; 32]));
    let name = Name::snapshot(&domain, &identity, u64::MAX, &id);
    let left = 1024 - place.root.len() - name.as_str().len() - 2;
    let folder = format!("{}/", "n".repeat(199)).repeat(left / 200);
    let store = (place.open)(folder.trim_end_matches('/'));
    store.create(&name, "long".into()).unwrap();
    assert_eq!(store.read(&name, 9).unwrap(), "long");
    assert_eq!(names(&store.list(&Prefix::snapshots(&domain)).unwrap()), [name.as_str()]);
}

fn stamps_never_go_back(_: &Place, store: &Store) {
    (0..20).for_each(|number| store.create(&pack(number), "x".into()).unwrap());
    let listed = store.list(&Prefix::all()).unwrap();
    assert!(listed.is_sorted_by_key(|one| one.modified.seconds), "{listed:?}");
    for one in listed {
        let head = store.head(&Name::parse(&one.name).unwrap()).unwrap().unwrap();
        // S3 gives whole seconds there, and may round them.
        assert!((head.modified.seconds - one.modified.seconds).abs() <= 1, "{head:?}, {one:?}");
    }
}

/// Creators that [`of_many_creators_one_wins`] lets race.
pub(crate) const CREATORS: usize = 8;

fn of_many_creators_one_wins(place: &Place, store: &Store) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = Path::from(format!("{}/race/raw", place.root));
    let create = |bytes: String| {
        let (raw, path) = (Arc::clone(&place.raw), path.clone());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        runtime.spawn(async move {
            match raw.put_opts(&path, PutPayload::from(bytes.clone()), options).await {
                Ok(_) => Some(bytes),
                Err(RawError::AlreadyExists { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        })
    };
    let creators: Vec<_> = (0..CREATORS).map(|one| create(format!("creator {one}"))).collect();
    let won: Vec<Option<String>> = runtime.block_on(async {
        let mut won = Vec::new();
        for creator in creators {
            won.push(creator.await.unwrap());
        }
        won
    });
    let won: Vec<String> = won.into_iter().flatten().collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let there = runtime.block_on(async { place.raw.get(&path).await.unwrap().bytes().await.unwrap() });
    assert_eq!(there, won[0]);
    // The facade says the same, and does not mind who wrote the same bytes.
    let create = |name: Name, bytes: String| move || store.create(&name, bytes.into()).is_ok();
    let many = |name: &Name, bytes: &dyn Fn(usize) -> String| {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..CREATORS).map(|one| scope.spawn(create(name.clone(), bytes(one)))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
        })
    };
    assert_eq!(many(&Name::config(), &|one| format!("creator {one}")), 1);
    assert_eq!(many(&pack(1), &|_| "the same".to_owned()), CREATORS);
}
