"""Whether this script measures what it says: tiny corpora, one round, lifeboat alone."""
import json, os, random, shutil, socket, sys, threading, time, traceback
from types import SimpleNamespace

import corpora
from measure import difference, measure
from report import medians, missed, ratio, slower, table
from run import STEPS, Bench, another, comparable, kept_of, order_of, write
from stores import far_away, open_store
from tools import Lifeboat

MB = 1 << 20
WORDS = "the tools all do a step before any of them does next what it did in first round".split()


class Careless(Lifeboat):
    """Restores one byte too much."""

    name = "careless"

    def restore(self, source, snapshot):
        restore = super().restore(source, snapshot)
        return ["sh", "-c", '"$@" && printf x >> "$0"/sub/b', self.target, *restore]


class Failing(Lifeboat):
    name = "failing"

    def check(self):
        return ["sh", "-c", "echo no such luck >&2; exit 3"]


def a_step_costs_what_its_whole_process_tree_costs(test):
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    hold = f"data = bytearray(b'x') * {200 * MB}\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn + hold!r}])\n"
    took = measure([sys.executable, "-c", child], None, test.folder, test.folder / "log")
    assert took.code == 0 and took.wall >= 0.3 and took.cpu >= 0.3, took
    assert 200 * MB <= took.peak < 300 * MB, took
    # What this process holds is not theirs.
    held = bytearray(b"x") * (200 * MB)
    nothing = measure(["true"], None, test.folder, test.folder / "log")
    assert nothing.cpu < 0.1 and nothing.peak < 50 * MB and nothing.synced >= nothing.wall, nothing
    del held
    failed = measure(["sh", "-c", "echo why; exit 7"], None, test.folder, test.folder / "log")
    assert (failed.code, failed.said) == (7, "why"), failed


def a_difference_of_any_kind_is_seen(test):
    one, other = test.folder / "one", test.folder / "other"
    plant(one, "a")
    changes = {
        "was not restored": lambda: (other / "a").unlink(),
        "is not in the source": lambda: (other / "sub/more").write_text("x"),
        "other bytes": lambda: rewrite(other / "sub/b"),
        "mode": lambda: (other / "a").chmod(0o600),
        "another target": lambda: ((other / "link").unlink(), (other / "link").symlink_to("sub")),
        "the time": lambda: (other / "a").touch(),
    }
    if os.geteuid() == 0:
        changes["the owner"] = lambda: os.chown(other / "a", 1, 1)
    for says, change in changes.items():
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(one, other, symlinks=True)
        assert difference(one, other) is None, difference(one, other)
        change()
        assert says in str(difference(one, other)), (says, difference(one, other))


def plant(folder, text):
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("always the same\n" * 100)
    (folder / "sub/b").write_text(text * 1000)
    (folder / "link").symlink_to("a")


def rewrite(path):
    """Other bytes, as many as before, at the same time."""
    then = path.stat()
    path.write_bytes(b"!" * then.st_size)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))


def a_reply_from_far_away_takes_a_round_trip_and_is_whole(test):
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    proxy, port = far_away(listener.getsockname()[1], 200)
    try:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            sent = bytes(range(256)) * 8192
            threading.Thread(target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))).start()
            received = b""
            while data := connection.recv(MB):
                received += data
        assert received == sent, len(received)
        # One for the connection and one for the bytes.
        assert time.monotonic() - begun >= 2 * 0.2
    finally:
        proxy.kill()
        proxy.wait()


def echo(listener):
    connection = listener.accept()[0]
    while data := connection.recv(MB):
        connection.sendall(data)
    connection.close()


def corpora_are_the_same_each_time_and_come_back(test):
    source = texts(test)
    builds = [lambda folder: corpora.build_tiny(folder, source, 400), lambda folder: corpora.build_random(folder, 400)]
    for number, build in enumerate(builds):
        one, again = test.folder / f"corpus{number}", test.folder / f"again{number}"
        build(one), build(again)
        corpus, fresh = corpora.corpus_at(one), corpora.corpus_at(again)
        names = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
        assert names and all((one / name).read_bytes() == (again / name).read_bytes() for name in names)
        corpus.show(2)
        changed = [name for name in names if (one / name).read_bytes() != (again / name).read_bytes()]
        assert len(changed) == -(-len(names) // 100), changed
        corpus.show(1)
        fresh.show(1)
        assert all((one / name).read_bytes() == (again / name).read_bytes() for name in names)


def texts(test):
    """Text to cut tiny files from. Always the same: of text that changes, one day a file reads the same in both directions."""
    chance, folder = random.Random(corpora.SEED), test.folder / "texts"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}").write_text(" ".join(chance.choices(WORDS, k=40_000)))
    return SimpleNamespace(source=folder)


def releases(test, name="releases"):
    for version, text in enumerate(["first", "second"], 1):
        plant(test.folder / name / str(version), text)
    return corpora.corpus_at(test.folder / name)


def all_steps_of_all_kinds_of_corpora_work(test):
    corpora.build_tiny(test.folder / "tiny", texts(test), 300)
    corpora.build_random(test.folder / "random", 2 * MB)
    trees = releases(test, "for-image")
    corpora.build_image(test.folder / "image", trees, "8M")
    bench = test.bench("folder", [Lifeboat])
    for name in ["tiny", "random", "image"]:
        bench.round(name, corpora.corpus_at(test.folder / name), 0)
    bench.round("linux", releases(test), 0)
    assert not bench.failures(), bench.failures()
    assert [result["step"] for result in bench.results] == STEPS * 4
    for result in bench.results:
        assert result["wall"] > 0 and result["cpu"] > 0 and result["peak"] > MB and result["stored"] > 1000, result
    grown = {result["step"]: result["grown"] for result in bench.results if result["corpus"] == "random"}
    # One of its files is new.
    assert grown["first"] > 2 * MB and grown["unchanged"] < MB // 16 < grown["changed"] < MB, grown
    shown = table(bench.results)
    assert "**linux**, 1 round\n" in shown and shown.count("| first |") == 4, shown


def a_step_that_fails_is_told_and_ends_the_round_of_its_tool(test):
    bench = test.bench("folder", [Lifeboat, Careless, Failing])
    bench.round("linux", releases(test), 1)
    failed = {result["tool"]: (result["step"], result["failed"]) for result in bench.failures()}
    assert failed.keys() == {"careless", "failing"}, failed
    assert failed["careless"][0] == "restore" and "other bytes" in failed["careless"][1], failed
    assert failed["failing"][0] == "check" and "3: no such luck" in failed["failing"][1], failed
    assert ("failing", "restore") not in [(result["tool"], result["step"]) for result in bench.results]
    order = [result["tool"] for result in bench.results if result["step"] == "first"]
    assert order == ["careless", "lifeboat", "failing"], order


def each_tool_begins_in_turn_and_follows_others(test):
    tools = ["a", "b", "c", "d"]
    orders = [order_of(tools, number) for number in range(8)]
    assert [order[0] for order in orders] == tools * 2 and all(sorted(order) == tools for order in orders), orders
    for tool in tools:
        before = {order[order.index(tool) - 1] for order in orders if order.index(tool) > 0}
        assert len(before) == 2, (tool, orders)


def what_a_file_has_of_other_corpora_is_kept(test):
    target = test.folder / "results.json"
    described = dict(machine=dict(processor="one"), tools={}, store="folder")
    known = dict(linux=dict(files=1, bytes=2, tree="old"), usr=dict(files=3, bytes=4, tree="old"))
    assert kept_of(target, described, ["linux"]) == ({}, [])
    results = [result(1.0, "lifeboat", None), dict(result(2.0, "lifeboat", None), corpus="usr")]
    write(target, {**described, "corpora": known}, results)
    assert kept_of(target, described, ["linux"]) == (dict(usr=known["usr"]), results[1:])
    before = json.loads(target.read_text())
    measured = dict(linux=dict(files=1, bytes=9, tree="new"), usr=dict(files=3, bytes=4, tree="new"))
    assert comparable(before, measured) == results[1:], before
    said = list(another(before, measured))
    assert said == ["nothing to compare: linux is another corpus than then, which had 1 files of 2 bytes"], said
    refuses = "another `store`", lambda: kept_of(target, {**described, "store": "s3"}, ["linux"])
    target.with_name("empty.json").write_text("{}")
    for why, add in [refuses, ("added to", lambda: kept_of(target.with_name("empty.json"), described, ["linux"]))]:
        try:
            add()
        except SystemExit as refused:
            assert why in str(refused), refused
        else:
            raise AssertionError("figures of two stores in one file, or of none")


def a_server_near_and_far_stores_as_much_as_a_folder(test):
    if not (test.options.seaweedfs / "venv/bin/weed").exists():
        return f"there is no SeaweedFS in {test.options.seaweedfs}"
    stored = {}
    for name in ["folder", "s3", "s3-slow"]:
        bench = test.bench(name, [Lifeboat])
        try:
            bench.round("linux", releases(test, name), 0)
        finally:
            bench.store.close()
        assert not bench.failures(), bench.failures()
        stored[name] = bench.results[0]["stored"]
    assert max(stored.values()) < 1.2 * min(stored.values()), stored


def figures_are_medians_and_ratios_of_what_worked(test):
    figures = [(9.0, "lifeboat", None), (1.0, "lifeboat", None), (2.0, "lifeboat", None), (99.0, "lifeboat", "broke")]
    results = [result(wall, tool, failed) for wall, tool, failed in [*figures, (4.0, "restic", None), (1.5, "borg", None)]]
    found = medians(results)
    assert found["linux", "first", "lifeboat"]["wall"] == 2.0
    assert ratio(found, "linux", "first", "restic", "wall") == 0.5
    said = "\n".join(missed(results))
    assert "goal: linux first: wall is 0.500 of restic's, 0.33 is allowed" in said, said
    assert "goals: 1 of 21 reached, 17 without figures here" in said, said
    assert "behind: linux first: wall is 1.333 of borg's" in said and "of restic's\n" not in said, said


def what_is_worse_than_it_was_is_told(test):
    before = [result(2.0, "lifeboat", None), result(4.0, "restic", None)]
    # The machine may be slower as a whole.
    same = [result(4.3, "lifeboat", None), result(8.0, "restic", None)]
    assert not list(slower(same, before)), list(slower(same, before))
    worse = [result(2.3, "lifeboat", None), result(4.0, "restic", None)]
    said = list(slower(worse, before))
    assert said == [f"worse: linux first: {measure} is 0.575 of restic's, and was 0.500" for measure in ["wall", "cpu"]], said
    # One round was as bad then, and the machine may be what differs.
    once = [dict(one, round=1) for one in [result(2.4, "lifeboat", None), result(4.0, "restic", None)]]
    twice = [dict(one, round=2) for one in before]
    assert not list(slower(worse, before + once + twice)), list(slower(worse, before + once + twice))
    said = list(slower(worse, []))
    assert said == ["nothing to compare: the earlier run has none of these corpora"], said
    said = list(slower(worse + [dict(one, corpus="usr") for one in worse], before))
    assert len(said) == 2 and not any("usr" in line for line in said), said
    apart = [*before[:1], dict(before[1], round=1)]
    said = list(slower(worse, apart))
    assert said == ["nothing to compare: linux first: no round in which both worked"], said
    said = list(slower(worse, before[:1]))
    assert said == ["nothing to compare: linux first: no figure of restic then"], said
    said = list(slower([result(2.0, "lifeboat", None), result(4.0, "restic", "broke")], before))
    assert said == ["nothing to compare: linux first: no figure of restic now"], said


def result(wall, tool, failed):
    named = dict(corpus="linux", round=0, step="first", tool=tool, failed=failed)
    return dict(named, wall=wall, synced=wall + 1, cpu=wall, peak=1, stored=1, grown=1)


CHECKS = [
    a_step_costs_what_its_whole_process_tree_costs,
    a_difference_of_any_kind_is_seen,
    a_reply_from_far_away_takes_a_round_trip_and_is_whole,
    corpora_are_the_same_each_time_and_come_back,
    all_steps_of_all_kinds_of_corpora_work,
    a_step_that_fails_is_told_and_ends_the_round_of_its_tool,
    each_tool_begins_in_turn_and_follows_others,
    what_a_file_has_of_other_corpora_is_kept,
    a_server_near_and_far_stores_as_much_as_a_folder,
    figures_are_medians_and_ratios_of_what_worked,
    what_is_worse_than_it_was_is_told,
]


class Test:
    """A folder of its own for one check."""

    def __init__(self, options):
        self.options, self.folder = options, options.folder.resolve() / "self-test"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "work").mkdir(parents=True)

    def bench(self, store, kinds):
        work = self.folder / "work"
        tools = [kind(str(self.options.lifeboat.absolute()), work) for kind in kinds]
        return Bench(work, open_store(store, work, self.options.seaweedfs), tools, STEPS)


def self_test(options):
    """The exit code: 1 when a check failed."""
    failed = 0
    for check in CHECKS:
        test = Test(options)
        try:
            skipped = check(test)
            print(f"SKIP {check.__name__}: {skipped}" if skipped else f"ok {check.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {check.__name__}\n{traceback.format_exc()}", flush=True)
        shutil.rmtree(test.folder, ignore_errors=True)
    return 1 if failed else 0
