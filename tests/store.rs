//! What the facade makes of a store that is not well. What every store must do stands in `conformance`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs::File,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use lifeboat::{
    clock::{Clock, SystemClock},
    error::{Error, ErrorKind},
    format::pack::PackKind,
    id::{DomainId, ObjectId, PackId},
    progress::Progress,
    store::{Location, Name, Prefix, S3Settings, Sent, Store, StoreOptions, Swept, on_each},
};
use object_store::{ObjectStore, memory::InMemory};
use rustix::io::Errno;

mod support {
    pub(crate) mod clock;
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod service;
    pub(crate) mod wire;
}
use support::{
    clock::FakeClock,
    faults::{Fault as Broken, no_links},
    intercepted::{Call, Fate, Intercepted, Kind, broken},
    wire::{Fault, Wire},
};

/// A store whose pauses cost no time, and what to reach into it with.
struct Bench {
    store: Store,
    clock: Arc<FakeClock>,
    progress: Arc<Progress>,
}

const RETRY_FOR: Duration = Duration::from_secs(60);

fn options(clock: &Arc<FakeClock>) -> StoreOptions {
    let clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(clock);
    StoreOptions {
        connections: 4,
        upload_limit: None,
        download_limit: None,
        retry_for: RETRY_FOR,
        s3: S3Settings::default(),
        clock,
        progress: Arc::default(),
    }
}

fn bench(objects: Arc<dyn ObjectStore>) -> Bench {
    let clock = Arc::<FakeClock>::default();
    let options = options(&clock);
    let progress = Arc::clone(&options.progress);
    Bench { store: Store::from_object_store(objects, "some/prefix", options).unwrap(), clock, progress }
}

fn on_the_wire() -> (Bench, Wire) {
    let wire = Wire::new();
    (bench(Arc::new(wire.owner())), wire)
}

fn folder_store(folder: &std::path::Path) -> Store {
    let location = Location::parse(folder.to_str().unwrap()).unwrap();
    Store::open(&location, options(&Arc::default())).unwrap()
}

fn domain() -> DomainId {
    DomainId::new([7; 8])
}

/// A content-addressed name.
fn pack(number: u8) -> Name {
    Name::pack(&domain(), PackKind::Data, &PackId::new([number; 32]))
}

fn fails(result: Result<impl std::fmt::Debug, Error>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    format!("{error}. {}", error.remedy().unwrap_or_default())
}

#[test]
fn a_list_on_s3_has_more_than_one_page() {
    let (bench, wire) = on_the_wire();
    let uploads = bench.store.uploads(1 << 20);
    for number in 0..1_050 {
        uploads.create(Name::registry(number, &ObjectId::new([1; 32])), vec!["x".into()]).unwrap();
    }
    uploads.wait().unwrap();
    wire.inject([]);
    let listed = bench.store.list(&Prefix::registry()).unwrap();
    assert_eq!(listed.len(), 1_050);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(wire.calls(), 2);
    // A list whose second page fails begins again and has nothing twice.
    wire.inject([Fault::None, Fault::Answer(503, "SlowDown")]);
    assert_eq!(bench.store.list(&Prefix::registry()).unwrap(), listed);
    assert_eq!(wire.calls(), 4);
}

#[test]
fn a_lost_reply_is_cleared_up_by_reading_back() {
    for fault in [Fault::BreakAfter, Fault::AnswerAfter(500), Fault::AnswerAfter(503)] {
        for name in [Name::config(), pack(1)] {
            let (bench, wire) = on_the_wire();
            wire.inject([fault]);
            bench.store.create(&name, "mine".into()).unwrap();
            assert_eq!(bench.store.read(&name, 9).unwrap(), "mine");
            // Also when it may not be tried again.
            let name = Name::slot("other");
            let once = StoreOptions { retry_for: Duration::ZERO, ..options(&bench.clock) };
            let store = Store::from_object_store(Arc::new(wire.owner()), "", once).unwrap();
            wire.inject([fault]);
            store.create(&name, "mine".into()).unwrap();
            assert_eq!(wire.calls(), 2, "one PUT and one GET");
        }
    }
}

#[test]
fn a_lost_reply_does_not_turn_anothers_object_into_ours() {
    let (bench, wire) = on_the_wire();
    bench.store.create(&Name::config(), "theirs".into()).unwrap();
    wire.inject([Fault::BreakAfter]);
    fails(bench.store.create(&Name::config(), "mine".into()), ErrorKind::Failed);
    assert_eq!(bench.store.read(&Name::config(), 9).unwrap(), "theirs");
}

#[test]
fn a_server_that_is_not_well_is_asked_again() {
    let ill = [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::Break,
        Fault::Answer(429, "TooManyRequests"),
        Fault::Answer(400, "RequestTimeout"),
    ];
    let (bench, wire) = on_the_wire();
    let store = &bench.store;
    wire.inject(ill);
    store.create(&pack(1), "x".into()).unwrap();
    assert_eq!(wire.calls(), 6);
    wire.inject(ill);
    assert_eq!(store.read(&pack(1), 9).unwrap(), "x");
    wire.inject(ill);
    assert_eq!(store.read_range(&pack(1), 0..1).unwrap(), "x");
    wire.inject(ill);
    assert_eq!(store.list(&Prefix::all()).unwrap().len(), 1);
    wire.inject(ill);
    assert!(store.head(&pack(1)).unwrap().is_some());
    wire.inject(ill);
    store.delete(&pack(1)).unwrap();
    assert_eq!(wire.calls(), 6);
}

#[test]
fn a_server_that_stays_ill_is_a_temporary_error_with_its_cause() {
    let (bench, wire) = on_the_wire();
    wire.inject(std::iter::repeat_n(Fault::Break, 1_000));
    let text = fails(bench.store.create(&pack(1), "x".into()), ErrorKind::Temporary);
    assert!(text.contains("the innermost cause") && text.contains(pack(1).as_str()), "{text}");
    assert_eq!(ErrorKind::Temporary.exit_code(), 75);
    let tried = bench.clock.elapsed();
    assert!(tried > RETRY_FOR / 2 && tried <= RETRY_FOR, "{tried:?}");
    assert!(wire.calls() > 4);
    wire.inject(std::iter::repeat_n(Fault::Answer(503, "SlowDown"), 1_000));
    let text = fails(bench.store.read(&pack(1), 9), ErrorKind::Temporary);
    assert!(text.contains("503") && text.contains("SlowDown") && !text.contains("<Code>"), "{text}");
}

#[test]
fn a_refusal_is_final_and_names_the_remedy() {
    let (bench, wire) = on_the_wire();
    for (code, word) in [
        ("AccessDenied", "policy"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("RequestTimeTooSkewed", "Set the clock"),
        ("ExpiredToken", "AWS_SESSION_TOKEN"),
    ] {
        wire.inject([Fault::Answer(403, code)]);
        let text = fails(bench.store.create(&pack(1), "x".into()), ErrorKind::Failed);
        assert!(text.contains(code) && text.contains(word), "{text}");
        assert_eq!(wire.calls(), 1);
    }
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
    let wire = Wire::new();
    let wrong = bench(Arc::new(wire.client(support::service::BUCKET, "wrong"))).store;
    let text = fails(wrong.list(&Prefix::all()), ErrorKind::Failed);
    assert!(text.contains("credentials"), "{text}");
    let missing = bench(Arc::new(wire.client("nowhere", support::service::SECRET))).store;
    for text in [
        fails(missing.list(&Prefix::all()), ErrorKind::NoRepository),
        fails(missing.read(&Name::config(), 9), ErrorKind::NoRepository),
        fails(missing.create(&Name::config(), "x".into()), ErrorKind::NoRepository),
    ] {
        assert!(text.contains("bucket") && text.contains("Create it"), "{text}");
    }
}

#[test]
fn a_body_that_breaks_off_never_gives_wrong_bytes() {
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for cut in [0, 1, 69_999] {
        for fault in [Fault::CutBody(cut), Fault::EndBody(cut)] {
            let (bench, wire) = on_the_wire();
            bench.store.create(&pack(1), bytes.clone().into()).unwrap();
            wire.inject([fault, fault]);
            assert_eq!(bench.store.read(&pack(1), 70_000).unwrap(), bytes, "{fault:?}");
            assert_eq!(wire.calls(), 3);
            wire.inject([fault]);
            assert_eq!(bench.store.read_range(&pack(1), 0..70_000).unwrap(), bytes, "{fault:?}");
            wire.inject(std::iter::repeat_n(fault, 1_000));
            fails(bench.store.read(&pack(1), 70_000), ErrorKind::Temporary);
        }
    }
}

#[test]
fn a_store_that_lies_is_found_out() {
    let kept = || {
        let faulty = Intercepted::watching(Arc::new(InMemory::new()));
        let objects: Arc<dyn ObjectStore> = Arc::<Intercepted>::clone(&faulty);
        (faulty, bench(objects).store)
    };
    // "Taken", by other bytes, by nothing, and by ours.
    let (faulty, store) = kept();
    store.create(&pack(1), "theirs".into()).unwrap();
    faulty.intercept(Broken::AlwaysTaken);
    let text = fails(store.create(&pack(1), "mine".into()), ErrorKind::Failed);
    assert!(text.contains("other content"), "{text}");
    fails(store.create(&pack(2), "mine".into()), ErrorKind::Failed);
    faulty.intercept(Broken::AlwaysTaken);
    store.create(&pack(1), "theirs".into()).unwrap();
    assert_eq!(faulty.count(Kind::Get), 1, "it was not read back");
    // "Done": a name without a hash is always read back.
    let (faulty, store) = kept();
    faulty.intercept(Broken::Forgets);
    let text = fails(store.create(&Name::config(), "mine".into()), ErrorKind::Failed);
    assert!(text.contains("is not there"), "{text}");
    let (faulty, store) = kept();
    faulty.intercept(Broken::IgnoresConditions);
    store.create(&Name::config(), "mine".into()).unwrap();
    assert_eq!(faulty.count(Kind::Get), 1, "it was not read back");
}

#[test]
fn a_409_under_which_nothing_landed_is_tried_again() {
    let (bench, wire) = on_the_wire();
    wire.inject([Fault::Answer(409, "ConditionalRequestConflict")]);
    bench.store.create(&pack(1), "mine".into()).unwrap();
    assert_eq!(bench.store.read(&pack(1), 9).unwrap(), "mine");
}

#[test]
fn a_412_under_which_the_same_bytes_are_there_is_a_success() {
    let (bench, wire) = on_the_wire();
    bench.store.create(&pack(1), "mine".into()).unwrap();
    wire.inject([Fault::Answer(412, "PreconditionFailed")]);
    bench.store.create(&pack(1), "mine".into()).unwrap();
    wire.inject([Fault::Answer(412, "PreconditionFailed")]);
    fails(bench.store.create(&pack(1), "other".into()), ErrorKind::Failed);
}

/// Some servers find out that they cannot go on when they have said 200 already.
#[test]
fn an_error_under_a_200_is_never_taken_for_an_object() {
    let (bench, wire) = on_the_wire();
    let store = &bench.store;
    store.create(&pack(1), "x".into()).unwrap();
    let ill = || std::iter::repeat_n(Fault::Answer(200, "InternalError"), 1_000);
    wire.inject(ill());
    store.read(&pack(1), 1_000).unwrap_err();
    wire.inject(ill());
    store.read_range(&pack(1), 0..1).unwrap_err();
    // A LIST is the exception: the client library takes it for an empty one. Whatever is not listed does not
    // count, so a backup uploads more than it must: `a_list_that_is_not_true_harms_nothing` in `crash`.
    wire.inject([Fault::Answer(200, "InternalError")]);
    assert_eq!(store.list(&Prefix::all()).unwrap(), []);
    // It has no ETag, so a write is not done and is sent again.
    for name in [Name::config(), pack(2)] {
        wire.inject([Fault::Answer(200, "InternalError")]);
        store.create(&name, "mine".into()).unwrap();
        assert_eq!(store.read(&name, 9).unwrap(), "mine");
    }
}

#[test]
fn a_part_that_was_not_asked_for_is_never_taken_for_the_one_that_was() {
    let (bench, wire) = on_the_wire();
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    bench.store.create(&pack(1), bytes.clone().into()).unwrap();
    for fault in
        [Fault::NoRange, Fault::OtherRange("bytes 11-20/1000"), Fault::OtherRange("bytes 10-18/1000")]
    {
        wire.inject(std::iter::repeat_n(fault, 1_000));
        bench.store.read_range(&pack(1), 10..20).unwrap_err();
        wire.inject([]);
        assert_eq!(bench.store.read_range(&pack(1), 10..20).unwrap(), bytes[10..20]);
    }
}

/// A minute in which every call fails as one that was answered with 503.
#[test]
fn a_server_that_asks_to_slow_down_is_asked_less_and_less_often() {
    let clock = Arc::<FakeClock>::default();
    let (until, seen) = (Arc::clone(&clock), Duration::from_mins(1));
    let slow = Intercepted::new(Arc::new(InMemory::new()), move |_: &Call| {
        if until.elapsed() < seen { Fate::Fails(broken()) } else { Fate::Works }
    });
    let patient = StoreOptions { connections: 1, retry_for: Duration::from_mins(15), ..options(&clock) };
    let store = Store::from_object_store(Arc::<Intercepted>::clone(&slow), "", patient).unwrap();
    store.create(&pack(1), "x".into()).unwrap();
    // Pauses double from a tenth of a second to 15 s, and each is shortened by half at most: 12 calls without that, 16 with
    // all of it.
    assert!((12..=16).contains(&slow.calls().len()), "{} calls", slow.calls().len());
    assert!(clock.elapsed() < seen + Duration::from_secs(15), "{:?}", clock.elapsed());
}

#[test]
fn what_must_be_sent_soon_is_not_sent_late() {
    let soon = Duration::from_secs(5);
    // The rounds of one create share its time.
    let (bench, wire) = on_the_wire();
    let ill = std::iter::repeat_n(Fault::Break, 5);
    let round = ill.chain([Fault::Answer(409, "ConditionalRequestConflict"), Fault::None]);
    let rounds: Vec<Fault> =
        round.cycle().take(3 * 7).chain(std::iter::repeat_n(Fault::Break, 1_000)).collect();
    wire.inject(rounds);
    bench.store.create_soon(&pack(1), "x".into(), soon).unwrap_err();
    assert!(bench.clock.elapsed() <= soon, "{:?}", bench.clock.elapsed());
    // What waits for its turn under a limit is not sent once its time is over.
    let clock = Arc::<FakeClock>::default();
    let limited = StoreOptions { upload_limit: Some(10), ..options(&clock) };
    let store = Store::from_object_store(Arc::new(wire.owner()), "", limited).unwrap();
    wire.inject([]);
    store.create(&pack(2), vec![0; 100].into()).unwrap();
    let calls = wire.calls();
    assert!(matches!(store.create_soon(&pack(3), "x".into(), soon).unwrap(), Sent::TooLate(_)));
    assert_eq!((wire.calls(), clock.elapsed()), (calls, Duration::ZERO), "it does not wait in vain");
    clock.sleep(Duration::from_secs(10));
    assert!(matches!(store.create_soon(&pack(3), "x".into(), soon).unwrap(), Sent::InTime));
}

#[test]
fn what_must_be_sent_soon_is_not_sent_after_a_pause_that_took_longer_than_planned() {
    let soon = Duration::from_secs(5);
    let (bench, wire) = on_the_wire();
    wire.inject([Fault::Break, Fault::None, Fault::None]);
    bench.clock.jump_at(1, Duration::from_hours(100));
    assert!(matches!(bench.store.create_soon(&pack(1), "x".into(), soon).unwrap(), Sent::TooLate(_)));
    assert_eq!(bench.store.head(&pack(1)).unwrap(), None, "it was sent days too late");
    // Without a deadline the same pause does no harm.
    wire.inject([Fault::Break]);
    bench.clock.jump_at(1, Duration::from_hours(100));
    bench.store.create(&pack(1), "x".into()).unwrap();
    // A storage that does not answer for as long as calls are tried is an error, and no deadline.
    wire.inject(std::iter::repeat_n(Fault::Answer(503, "SlowDown"), 1_000));
    let text = fails(bench.store.create_soon(&pack(2), "x".into(), RETRY_FOR * 2), ErrorKind::Temporary);
    assert!(text.contains("503"), "{text}");
}

#[test]
fn a_server_without_conditional_writes_takes_names_that_hold_their_hash_and_no_others() {
    let (bench, wire) = on_the_wire();
    wire.inject([Fault::Answer(501, "NotImplemented")]);
    bench.store.create(&pack(1), "one".into()).unwrap();
    assert_eq!(wire.calls(), 3, "a refusal, a look, an upload");
    assert_eq!(bench.store.read(&pack(1), 9).unwrap(), "one");
    // It is not asked again.
    wire.inject([]);
    bench.store.create(&pack(2), "two".into()).unwrap();
    assert_eq!(wire.calls(), 2, "a look, an upload");
    bench.store.create(&pack(2), "two".into()).unwrap();
    fails(bench.store.create(&pack(2), "other".into()), ErrorKind::Failed);
    assert_eq!(bench.store.read(&pack(2), 9).unwrap(), "two");
    wire.inject([Fault::Answer(501, "NotImplemented")]);
    let text = fails(bench.store.create(&Name::config(), "one".into()), ErrorKind::Failed);
    assert!(text.contains("If-None-Match"), "{text}");
    assert_eq!(bench.store.head(&Name::config()).unwrap(), None);
}

#[test]
fn a_file_system_without_hard_links_still_creates_once() {
    let store = bench(Intercepted::new(Arc::new(InMemory::new()), no_links)).store;
    store.create(&pack(1), "one".into()).unwrap();
    store.create(&pack(1), "one".into()).unwrap();
    fails(store.create(&pack(1), "two".into()), ErrorKind::Failed);
    assert_eq!(store.read(&pack(1), 9).unwrap(), "one");
    // Without a folder below there is no safe way for a name that does not hold its hash.
    fails(store.create(&Name::config(), "one".into()), ErrorKind::Failed);
    assert_eq!(store.head(&Name::config()).unwrap(), None);
}

#[test]
fn a_full_or_read_only_disk_is_told_at_once() {
    let faulty = Intercepted::watching(Arc::new(InMemory::new()));
    let bench = bench(Arc::<Intercepted>::clone(&faulty));
    for (errno, word) in [(Errno::NOSPC, "Free space"), (Errno::ROFS, "writable"), (Errno::ACCESS, "owns")] {
        faulty.intercept(Broken::Disk(errno));
        let text = fails(bench.store.create(&pack(1), "x".into()), ErrorKind::Failed);
        assert!(text.contains(word), "{text}");
        assert_eq!(bench.clock.elapsed(), Duration::ZERO);
    }
}

#[test]
fn a_request_to_stop_ends_a_pause() {
    let (bench, wire) = on_the_wire();
    wire.inject(std::iter::repeat_n(Fault::Break, 1_000));
    bench.clock.stop_at(3, &bench.progress);
    fails(bench.store.read(&pack(1), 9), ErrorKind::Interrupted);
    assert!(bench.clock.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_request_to_stop_ends_a_call_in_flight_and_those_who_wait_for_it() {
    let wire = Wire::new();
    // Nothing is tried twice: a call that stalls until its time is over is no interruption.
    let once = StoreOptions { retry_for: Duration::ZERO, ..options(&Arc::default()) };
    let progress = Arc::clone(&once.progress);
    let store = Store::from_object_store(Arc::new(wire.owner()), "", once).unwrap();
    wire.inject(std::iter::repeat_n(Fault::Hang, 1_000));
    let uploads = store.uploads(1 << 20);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // The fifth waits for one of the first four.
            (0..5).try_for_each(|number| uploads.create(pack(number), vec!["x".into()]))
        });
        let reading = scope.spawn(|| store.read(&pack(9), 9));
        while wire.calls() < 5 {
            thread::yield_now();
        }
        progress.stop();
        fails(waiting.join().unwrap(), ErrorKind::Interrupted);
        fails(reading.join().unwrap(), ErrorKind::Interrupted);
    });
    // What failed was told already, or is told now; nothing is in flight any more.
    drop(uploads.wait());
    fails(store.list(&Prefix::all()), ErrorKind::Interrupted);
}

#[test]
fn uploads_beside_the_work_all_arrive_or_the_first_failure_is_told() {
    let (bench, wire) = on_the_wire();
    let uploads = bench.store.uploads(10);
    for number in 0..30 {
        uploads.create(pack(number), vec![vec![number; usize::from(number)].into()]).unwrap();
    }
    uploads.wait().unwrap();
    for number in 0..30 {
        assert_eq!(bench.store.read(&pack(number), 99).unwrap(), vec![number; usize::from(number)]);
    }
    wire.inject([Fault::Answer(403, "AccessDenied")]);
    uploads.create(pack(40), vec!["x".into()]).unwrap();
    let text = fails(uploads.wait(), ErrorKind::Failed);
    assert!(text.contains("policy"), "{text}");
    // Whoever asks later is told too: the object is still not there.
    fails(uploads.wait(), ErrorKind::Failed);
    fails(uploads.create(pack(41), vec!["x".into()]), ErrorKind::Failed);
    assert_eq!(bench.store.head(&pack(41)).unwrap(), None);
}

#[test]
fn one_connection_does_not_forget_a_failed_upload_either() {
    let wire = Wire::new();
    let single = StoreOptions { connections: 1, ..options(&Arc::default()) };
    let store = Store::from_object_store(Arc::new(wire.owner()), "", single).unwrap();
    let uploads = store.uploads(10);
    wire.inject([Fault::Answer(403, "AccessDenied")]);
    fails(uploads.create(pack(1), vec!["x".into()]), ErrorKind::Failed);
    fails(uploads.wait(), ErrorKind::Failed);
}

#[test]
fn limits_of_bytes_per_second_are_kept() {
    let clock = Arc::<FakeClock>::default();
    let limited = StoreOptions { upload_limit: Some(1_000), download_limit: Some(100), ..options(&clock) };
    let progress = Arc::clone(&limited.progress);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", limited).unwrap();
    for number in 0..11 {
        store.create(&pack(number), vec![0; 500].into()).unwrap();
    }
    assert_eq!(clock.elapsed(), Duration::from_secs(5));
    for _ in 0..3 {
        store.read_range(&pack(1), 0..200).unwrap();
    }
    assert_eq!(clock.elapsed(), Duration::from_secs(9));
    progress.stop();
    fails(store.read(&pack(1), 500), ErrorKind::Interrupted);
    let clock = Arc::<FakeClock>::default();
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", options(&clock)).unwrap();
    store.create(&pack(1), vec![0; 5_000_000].into()).unwrap();
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[test]
fn an_upload_limit_ends_when_it_is_asked_to() {
    let clock = Arc::<FakeClock>::default();
    let limited = StoreOptions { upload_limit: Some(1), ..options(&clock) };
    clock.stop_at(2, &limited.progress);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", limited).unwrap();
    store.create(&pack(1), vec![0; 500].into()).unwrap();
    fails(store.create(&pack(2), vec![0; 500].into()), ErrorKind::Interrupted);
    assert!(clock.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_refused_connection_is_temporary_and_tells_the_cause() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let given = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let environment = given.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let s3 = S3Settings { environment, ..S3Settings::default() };
    let location = Location::parse(&format!("s3:http://{address}/lab")).unwrap();
    let store = Store::open(&location, StoreOptions { s3, ..options(&Arc::default()) }).unwrap();
    let text = fails(store.read(&Name::config(), 9), ErrorKind::Temporary);
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn a_place_that_is_no_folder_is_told_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| {
        let location = Location::parse(path.to_str().unwrap()).unwrap();
        fails(Store::open(&location, options(&Arc::default())), ErrorKind::NoRepository)
    };
    let text = open(&folder.path().join("missing"));
    assert!(text.contains("does not exist") && text.contains("lifeboat init"), "{text}");
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    assert!(open(&file).contains("a file, not a folder"));
    let location = Location::parse(file.join("below").to_str().unwrap()).unwrap();
    let text = fails(Store::create_folder(&location), ErrorKind::Failed);
    assert!(text.contains("A file has that name"), "{text}");
}

fn aged(path: &std::path::Path, age: Duration) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "part").unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let now = Duration::from_secs(u64::try_from(SystemClock.now().seconds).unwrap());
    file.set_modified(SystemTime::UNIX_EPOCH + now - age).unwrap();
}

#[test]
fn temporary_files_of_dead_uploads_are_hidden_and_swept() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
    let real = StoreOptions { clock: Arc::new(SystemClock), ..options(&Arc::default()) };
    let store = Store::open(&location, real).unwrap();
    store.create(&pack(1), "whole".into()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let (hours, minutes) = (Duration::from_mins(61), Duration::from_mins(59));
    let dead = [format!("{}#1", pack(1)), format!("{}#12", pack(2)), "config#1".to_owned()];
    let live = [format!("{}#2", pack(1)), format!("{}#1", pack(3))];
    let foreign = ["notes#1", "sub/config#1"];
    dead.iter().for_each(|name| aged(&path(name), hours));
    live.iter().for_each(|name| aged(&path(name), minutes));
    foreign.iter().for_each(|name| aged(&path(name), hours));
    let listed = || store.list(&Prefix::all()).unwrap().into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(listed(), [pack(1).to_string()]);
    assert_eq!(store.sweep_temporaries().unwrap(), Swept { files: 3, bytes: 12 });
    assert!(dead.iter().all(|name| !path(name).try_exists().unwrap()));
    assert!(live.iter().all(|name| path(name).try_exists().unwrap()));
    assert!(foreign.iter().all(|name| path(name).try_exists().unwrap()));
    assert_eq!(listed(), [pack(1).to_string()]);
    assert_eq!(store.sweep_temporaries().unwrap(), Swept::default());
    assert_eq!(on_the_wire().0.store.sweep_temporaries().unwrap(), Swept::default());
}

#[test]
fn a_fence_lets_in_those_who_share_it_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder_store(folder.path()), folder_store(folder.path()));
    let shared = one.fence_shared().unwrap().unwrap();
    drop(two.fence_shared().unwrap().unwrap());
    let text = fails(two.fence_exclusive(), ErrorKind::Temporary);
    assert!(text.contains("another program"), "{text}");
    drop(shared);
    let alone = two.fence_exclusive().unwrap().unwrap();
    fails(one.fence_shared(), ErrorKind::Temporary);
    one.progress().stop();
    fails(one.fence_shared(), ErrorKind::Interrupted);
    drop(alone);
    // The lock file is no object.
    assert_eq!(two.list(&Prefix::all()).unwrap(), []);
    assert!(on_the_wire().0.store.fence_exclusive().unwrap().is_none());
}

#[test]
fn several_things_are_asked_at_once_and_answered_in_order() {
    let clock = Arc::default();
    let store = |connections| {
        let options = StoreOptions { connections, ..options(&clock) };
        Store::from_object_store(Arc::new(InMemory::new()), "p", options).unwrap()
    };
    let here = thread::current().id();
    let (several, single) = (store(4), store(1));
    // Each waits for the other: one after the other they would wait for ever.
    let meet = Barrier::new(2);
    let ask = || meet.wait().is_leader();
    let (first, second) = several.both(ask, ask);
    assert_ne!(first, second);
    let meet = Barrier::new(4);
    let answers = several.each(&[4, 3, 2, 1], |number| {
        meet.wait();
        Ok(number * 10)
    });
    assert_eq!(answers.unwrap(), [40, 30, 20, 10]);

    let asked = Mutex::new(Vec::new());
    let ask = |number: &i32| {
        asked.lock().unwrap().push(*number);
        (thread::current().id() == here).then_some(*number)
    };
    assert_eq!(single.both(|| ask(&1), || ask(&2)), (Some(1), Some(2)));
    assert_eq!(single.each(&[3, 4], |number| Ok(ask(number))).unwrap(), [Some(3), Some(4)]);
    assert_eq!(on_each(&[5, 6], 1, |number| Ok(ask(number))).unwrap(), [Some(5), Some(6)]);
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}
