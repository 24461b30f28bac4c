#!/usr/bin/env python3
"""Backups of three hosts beside forget and prune, all of them killed at random, in a repository whose grace is 20 s.

    life_cycle.py [BINARY [SECONDS [SEED]]]
    life_cycle.py --self-test [BINARY [SEED]]

CI runs it in a folder, longer where that deletes too little; `.ci/end-to-end` does the same with SeaweedFS. What each
backup promised that said it succeeded is remembered here, not in the repository: its snapshot, and a copy of its tree. Only a
`forget` that says so ends a promise. Every promised snapshot must be listed, and every one, promised or not, must restore to the
tree that it was made of, all the time and at the end; then a backup, a prune and `check --read-data` must be clean. It
fails too when too little was promised, restored or really deleted, or no backup, `forget` or prune was killed.

The self-test wraps the program in scripts that lie, and fails when that is not found.
"""
import json, os, random, shlex, shutil, signal, subprocess, sys, tempfile, threading, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOSTS = ["anna", "bert", "carl"]
# What files can hold: content that was forgotten comes back, and hosts share it.
CONTENTS = 300
FILES = 30
# Of the snapshots that were restored and compared, promised ones count, each once.
LEAST = {
    "packs deleted": 100, "snapshots promised": 100, "promised ones restored": 50,
    "backups killed": 1, "forgets killed": 1, "prunes killed": 1, "packs repacked": 1, "restores compared": 1,
}


class LifeCycle:
    """`start(credential, *arguments)` begins a command and gives its process; what it says is on its standard output."""

    def __init__(self, start, work, seed):
        self.start, self.work, self.seed = start, work, seed
        self.words = work / "life-words"
        self.counts, self.problems = Counter(), []
        # Everything ends with the first problem that says this.
        self.sought = ""
        self.over, self.guard = threading.Event(), threading.Lock()
        # How often each host has begun a backup.
        self.attempts = Counter()
        # Each promise is a snapshot and the attempt whose tree it must hold. Only the thread that forgets takes any out.
        self.promised, self.restored = set(), set()
        # What a killed `forget` may have forgotten without a word: the next one that is not killed tells.
        self.unclear = set()
        # How long the last `forget` took.
        self.forget_seconds = 1.0
        # Held while a `forget` runs that has not yet said what it forgot.
        self.forgetting = threading.Lock()

    def owner(self, *arguments):
        return self.start(["--recovery-words-file", self.words], *arguments)

    def host(self, host, *arguments):
        return self.start(["--access-key-file", self.work / f"{host}.key", "--cache-dir", self.work / f"{host}-cache"], *arguments)

    def done(self, process, codes=(0,)):
        text = process.communicate(timeout=240)[0]
        if process.returncode not in codes:
            self.problem(f"exit {process.returncode} of {process.args[1:]}: {text[-2000:]}")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def problem(self, text):
        with self.guard:
            self.problems.append(text)
        if self.sought in text:
            self.over.set()

    def count(self, what, more=1):
        with self.guard:
            self.counts[what] += more

    def begin(self):
        text = self.start([], "init", "--commit-window", "5s", "--min-grace", "20s", "--recovery-file", self.words).communicate(timeout=240)[0]
        assert self.words.exists(), text
        for host in HOSTS:
            key = self.work / f"{host}.key"
            self.done(self.owner("key", "add", "--label", host, "--role", "backup", "--domain", "shared", "--access-key-out", key))

    def maybe_killed(self, process, chance, seconds):
        """Kills it now and then, at any time until a little after its usual end. Says whether it was."""
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, seconds * 1.1))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate(timeout=60)
                return True
        return False

    def backups(self, host):
        chance, tree, seconds = random.Random(f"{self.seed} {host}"), self.work / host, 1.0
        tree.mkdir()
        while not self.over.is_set():
            change(tree, chance)
            with self.guard:
                self.attempts[host] += 1
                attempt = f"{host}-{self.attempts[host]}"
            # Before it begins: it may be killed behind its commit.
            shutil.copytree(tree, self.work / "attempts" / attempt)
            begun = time.monotonic()
            process = self.host(host, "backup", tree, "--host", host, "--tag", attempt)
            if self.maybe_killed(process, chance, seconds):
                self.count("backups killed")
                continue
            # 75: what it counted on died five times.
            self.promise(self.done(process, codes=(0, 75)), attempt, process.returncode)
            seconds = time.monotonic() - begun

    def promise(self, messages, attempt, code):
        if code != 0:
            return self.count("backups given up")
        snapshots = [message["snapshot"] for message in messages if message["message_type"] == "summary"]
        if len(snapshots) != 1 or not snapshots[0]:
            return self.problem(f"{attempt} succeeded and names no snapshot: {messages}")
        with self.guard:
            self.promised.add((snapshots[0], attempt))
        self.count("snapshots promised")

    def deletions(self):
        chance, seconds = random.Random(f"{self.seed} prune"), 1.0
        # Without a snapshot `forget` is a mistake.
        while not self.promised and not self.over.is_set():
            time.sleep(0.1)
        while not self.over.is_set():
            with self.forgetting:
                self.forget(chance.randint(1, 3), chance)
            if self.over.is_set():
                break
            options = chance.choice([[], [], ["--max-unused", "0"], ["--max-unused", "unlimited"]])
            begun = time.monotonic()
            process = self.owner("prune", *options)
            if self.maybe_killed(process, chance, seconds):
                self.count("prunes killed")
                continue
            self.pruned(self.done(process))
            seconds = time.monotonic() - begun
            time.sleep(chance.uniform(0, 1))

    def forget(self, keep, chance=None):
        begun = time.monotonic()
        process = self.owner("forget", "--keep-last", str(keep), "--group-by", "host", "--allow-mass-removal")
        if chance and self.maybe_killed(process, chance, self.forget_seconds):
            self.count("forgets killed")
            with self.guard:
                self.unclear |= {one for one in self.promised if self.newer(one[1]) >= keep}
            return
        kept = {tell(message): message["kept"] for message in self.done(process) if message["message_type"] == "forget"}
        self.forget_seconds = time.monotonic() - begun
        with self.guard:
            ended = {one for one in self.promised if not kept.get(one, True)}
            by_killed = self.unclear - set(kept)
            self.promised -= ended | by_killed
            self.unclear.clear()
        self.count("promises ended", len(ended | by_killed))
        self.all_listed()

    def newer(self, attempt):
        """How often its host has begun another backup since. Some of them were killed behind their commit."""
        host, number = attempt.split("-")
        return self.attempts[host] - int(number)

    def all_listed(self):
        """Everything that is promised is listed. Only for the thread that forgets: what it has ended it knows."""
        with self.guard:
            promised = set(self.promised)
        for snapshot, attempt in promised - self.snapshots():
            self.problem(f"{snapshot} was promised by {attempt} and is not listed")

    def pruned(self, messages):
        for message in messages:
            if message["message_type"] == "summary":
                self.count("packs deleted", message["deleted"]["packs"])
                self.count("packs repacked", message["repacked"]["packs"])
                self.count("packs rescued", message["rescued"]["packs"])
                self.count("prunes done")

    def snapshots(self):
        return {tell(one) for one in self.done(self.owner("snapshots")) if one["message_type"] == "snapshot"}

    def restores(self, snapshot, attempt, name):
        """Whether a snapshot comes back as the tree that it was made of. It may have been forgotten meanwhile."""
        promised, target = (snapshot, attempt) in self.promised, self.work / f"restored-{name}"
        shutil.rmtree(target, ignore_errors=True)
        process = self.owner("restore", snapshot, "--target", target)
        text = process.communicate(timeout=240)[0]
        if process.returncode != 0:
            with self.forgetting:
                if (snapshot, attempt) in (self.promised - self.unclear) | self.snapshots():
                    self.problem(f"{snapshot} of {attempt} does not restore, exit {process.returncode}: {text[-2000:]}")
            return
        trees = [target / (self.work / host).relative_to("/") for host in HOSTS]
        restored, = [tree for tree in trees if tree.exists()]
        if subprocess.run(["diff", "-rq", self.work / "attempts" / attempt, restored], capture_output=True).returncode != 0:
            self.problem(f"{snapshot} of {attempt} comes back with another content")
        elif promised and (snapshot, attempt) not in self.restored:
            self.restored.add((snapshot, attempt))
            self.count("promised ones restored")
        self.count("restores compared")

    def drills(self):
        chance = random.Random(f"{self.seed} drill")
        while not self.over.is_set():
            with self.guard:
                there = self.promised - self.unclear
                # What was restored before tells less.
                there = there - self.restored or there
            # One in four is any that there is, promised or not.
            if chance.random() < 0.25:
                there = self.snapshots()
            if there:
                self.restores(*chance.choice(sorted(there)), "drill")
            else:
                time.sleep(0.1)

    def has_done_enough(self):
        return all(self.counts[what] >= least for what, least in LEAST.items())

    def guarded(self, work, *arguments):
        try:
            work(*arguments)
        except Exception as error:
            self.problem(f"{work.__name__}: {error!r}")

    def run(self, seconds):
        """Whether all is as it must be."""
        self.rounds(seconds)
        self.look_at_the_end()
        return not self.problems

    def rounds(self, seconds):
        """Everything at once for so long, or until something is wrong."""
        works = [(self.backups, host) for host in HOSTS] + [(self.deletions,), (self.drills,)]
        threads = [threading.Thread(target=self.guarded, args=work) for work in works]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        # A slow machine needs longer for as much.
        last = time.monotonic() + 8 * seconds
        while not self.has_done_enough() and time.monotonic() < last and not self.over.is_set():
            self.over.wait(1)
        self.over.set()
        for thread in threads:
            thread.join()

    def look_at_the_end(self):
        """All that is left; and whether enough was done."""
        # Nothing is forgotten by it; what a killed one has forgotten is clear then.
        self.forget(1_000_000)
        before = self.promised | self.snapshots()
        for snapshot, attempt in before:
            self.restores(snapshot, attempt, "end")
        for host in HOSTS:
            attempt = f"{host}-{self.attempts[host] + 1}"
            shutil.copytree(self.work / host, self.work / "attempts" / attempt)
            process = self.host(host, "backup", self.work / host, "--host", host, "--tag", attempt)
            self.promise(self.done(process), attempt, process.returncode)
        self.pruned(self.done(self.owner("prune")))
        self.done(self.owner("check", "--read-data"))
        self.all_listed()
        for snapshot, attempt in self.promised - before:
            self.restores(snapshot, attempt, "end")
        print("; ".join(f"{count} {what}" for what, count in sorted(self.counts.items())), f"(seed {self.seed})", flush=True)
        for what, least in LEAST.items():
            if self.counts[what] < least:
                self.problem(f"only {self.counts[what]} {what}")


def change(tree, chance):
    """Some files get another content, some go."""
    for _ in range(chance.randint(1, FILES // 2)):
        path = tree / f"file {chance.randint(0, FILES)}"
        if path.exists() and chance.random() < 0.3:
            path.unlink()
        else:
            content = random.Random(chance.randint(0, CONTENTS))
            path.write_bytes(content.randbytes(content.randint(1, 60_000)))
            # Another time each time: what a program remembers of an older one must not count.
            os.utime(path, ns=(time.time_ns(), time.time_ns()))


def tell(message):
    """Which snapshot, and of which attempt."""
    return message["id"], message["tags"][0]


def life_cycle(binary, work, seed):
    (work / "attempts").mkdir()

    def start(credential, *arguments):
        environment = {"PATH": os.environ["PATH"], "HOME": str(work), "LIFEBOAT_REPOSITORY": str(work / "repository")}
        if not credential:
            environment["LIFEBOAT_PASSWORD"] = "correct horse"
        command = [binary, "--json", *map(str, credential), *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    life = LifeCycle(start, work, seed)
    life.begin()
    return life


def main(binary, seconds, seed):
    with tempfile.TemporaryDirectory() as folder:
        life = life_cycle(binary, Path(folder).resolve(), seed)
        if life.run(seconds):
            return 0
    for problem in life.problems:
        print(f"FAILED with seed {seed}: {problem}")
    return 1


# What the program becomes that is tried: at every so many-th command of a kind it does something else before or instead. The
# program takes the place of the script, so that it is the one which is killed.
WRAPPED = """#!/bin/bash
case " $* " in *" {command} "*) ;; *) exec {binary} "$@" ;; esac
cd {work}
touch begun.$$
if (($(ls begun.* | wc -l) % {every} == 0)); then
    {deed}
fi
exec {binary} "$@" > >(exec tee said.$$)
"""

# The command, how often it does something else, what, and what is said of it then.
DEEDS = {
    "a backup that says what an earlier one said, and stores nothing": (
        "backup", 12,
        """cat "$(ls -t $(grep -l '"message_type":"summary"' said.*) | head -1)"; exit 0""",
        "and is not listed"
    ),
    # Not the last one of its host, which the host itself would miss.
    "a backup that deletes snapshots": (
        "backup", 12,
        """for host in repository/d/*/snapshots/*; do [ $(ls $host | wc -l) -lt 2 ] || rm $host/$(ls $host | head -1); done""",
        "and is not listed"
    ),
    # The snapshot is listed all the same. Often, because the next backup of the host stores again what it still needs of it, and
    # the snapshot is soon forgotten: a restore must come between.
    "a backup that deletes a data pack of what it has just stored": (
        "backup", 2,
        """{binary} "$@" > said.$$; code=$?; cat said.$$; rm "$(ls -t repository/d/*/packs/d/*/* | head -1)"; exit $code""",
        "does not restore"
    ),
    "a forget that forgets more than it says": (
        "forget", 1, """{binary} "${{@:1:3}}" forget --keep-last 1 --group-by host --allow-mass-removal > silent""",
        "and is not listed"
    ),
}


def is_found(deed, binary, seed):
    command, every, what, words = DEEDS[deed]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        names = dict(binary=shlex.quote(str(binary)), work=shlex.quote(str(work)))
        wrapped = work / "wrapped"
        wrapped.write_text(WRAPPED.format(command=command, every=every, deed=what.format(**names), **names))
        wrapped.chmod(0o755)
        life = life_cycle(wrapped, work, seed)
        # What the program itself complains of does not count.
        life.sought = words
        life.rounds(30)
        life.all_listed()
        for snapshot, attempt in life.promised - life.unclear:
            life.restores(snapshot, attempt, "end")
        return any(words in problem for problem in life.problems)


def self_test(binary, seed):
    with ThreadPoolExecutor() as pool:
        found = dict(zip(DEEDS, pool.map(lambda deed: is_found(deed, binary, seed), DEEDS)))
    for deed, is_found_out in found.items():
        print(f"found: {deed}" if is_found_out else f"FAILED with seed {seed}: nobody finds {deed}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    tries_itself = sys.argv[1:2] == ["--self-test"]
    given = dict(enumerate(sys.argv[1:] if tries_itself else sys.argv))
    root = Path(__file__).resolve().parent.parent
    program = Path(given.get(1, root / "target/release/lifeboat")).resolve()
    now = time.time_ns() % 1_000_000
    if tries_itself:
        sys.exit(self_test(program, int(given.get(2, now))))
    sys.exit(main(program, int(given.get(2, 45)), int(given.get(3, now))))
