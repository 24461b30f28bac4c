#!/usr/bin/env python3
"""Backups of three hosts beside forget and prune, all of them killed at random, in a repository whose grace is 20 s.

    life_cycle.py [BINARY [SECONDS [SEED]]]

CI runs a minute in a folder, longer where that deletes too little; `.ci/end-to-end` does the same with SeaweedFS. Every snapshot that exists must restore to the
tree that it was made of, all the time and at the end; then a backup, a prune and `check --read-data` must be clean. It
fails too when fewer than 100 packs were really deleted, or nobody was killed.
"""
import json, os, random, shutil, signal, subprocess, sys, tempfile, threading, time
from collections import Counter
from pathlib import Path

HOSTS = ["anna", "bert", "carl"]
# What files can hold: content that was forgotten comes back, and hosts share it.
CONTENTS = 300
FILES = 30
DELETED_MIN = 100


class LifeCycle:
    """`start(credential, *arguments)` begins a command and gives its process; what it says is on its standard output."""

    def __init__(self, start, work, seed):
        self.start, self.work, self.seed = start, work, seed
        self.words = work / "life-words"
        self.counts, self.problems = Counter(), []
        self.attempts, self.over = 0, threading.Event()
        self.guard = threading.Lock()

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
                self.attempts += 1
                attempt = f"attempt-{self.attempts}"
            # Before it begins: it may be killed behind its commit.
            shutil.copytree(tree, self.work / "attempts" / attempt)
            begun = time.monotonic()
            process = self.host(host, "backup", tree, "--host", host, "--tag", attempt)
            if self.maybe_killed(process, chance, seconds):
                self.count("backups killed")
                continue
            # 75: what it counted on died five times.
            self.done(process, codes=(0, 75))
            seconds = time.monotonic() - begun
            self.count("backups done")

    def deletions(self):
        chance, seconds = random.Random(f"{self.seed} prune"), 1.0
        # Without a snapshot `forget` is a mistake.
        while not self.counts["backups done"] and not self.over.is_set():
            time.sleep(0.1)
        while not self.over.is_set():
            process = self.owner("forget", "--keep-last", str(chance.randint(1, 3)), "--group-by", "host", "--allow-mass-removal")
            if self.maybe_killed(process, chance, seconds):
                self.count("forgets killed")
            else:
                self.done(process)
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

    def pruned(self, messages):
        for message in messages:
            if message["message_type"] == "summary":
                self.count("packs deleted", message["deleted"]["packs"])
                self.count("packs repacked", message["repacked"]["packs"])
                self.count("packs rescued", message["rescued"]["packs"])
                self.count("prunes done")

    def snapshots(self):
        return {one["id"]: one["tags"][0] for one in self.done(self.owner("snapshots")) if one["message_type"] == "snapshot"}

    def restores(self, snapshot, attempt, name):
        """Whether a snapshot comes back as the tree that it was made of. It may have been forgotten meanwhile."""
        target = self.work / f"restored-{name}"
        shutil.rmtree(target, ignore_errors=True)
        process = self.owner("restore", snapshot, "--target", target)
        text = process.communicate(timeout=240)[0]
        if process.returncode != 0:
            if snapshot not in self.snapshots():
                return
            self.problem(f"{snapshot} of {attempt} does not restore, exit {process.returncode}: {text[-2000:]}")
            return
        trees = [target / (self.work / host).relative_to("/") for host in HOSTS]
        restored, = [tree for tree in trees if tree.exists()]
        if subprocess.run(["diff", "-rq", self.work / "attempts" / attempt, restored], capture_output=True).returncode != 0:
            self.problem(f"{snapshot} of {attempt} comes back with another content")
        self.count("restores compared")

    def drills(self):
        chance = random.Random(f"{self.seed} drill")
        while not self.over.is_set():
            there = sorted(self.snapshots().items())
            if there:
                self.restores(*chance.choice(there), "drill")

    def guarded(self, work, *arguments):
        try:
            work(*arguments)
        except Exception as error:
            self.problem(f"{work.__name__}: {error!r}")

    def run(self, seconds):
        """Everything at once for so long; then all that is left is looked at."""
        works = [(self.backups, host) for host in HOSTS] + [(self.deletions,), (self.drills,)]
        threads = [threading.Thread(target=self.guarded, args=work) for work in works]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        # A slow machine needs longer for as much.
        last = time.monotonic() + 2 * seconds
        while self.counts["packs deleted"] < DELETED_MIN and time.monotonic() < last and not self.over.is_set():
            self.over.wait(1)
        self.over.set()
        for thread in threads:
            thread.join()
        for snapshot, attempt in self.snapshots().items():
            self.restores(snapshot, attempt, "end")
        for host in HOSTS:
            self.done(self.host(host, "backup", self.work / host, "--host", host, "--tag", "last"))
        self.pruned(self.done(self.owner("prune")))
        self.done(self.owner("check", "--read-data"))
        print("; ".join(f"{count} {what}" for what, count in sorted(self.counts.items())), f"(seed {self.seed})", flush=True)
        if self.counts["packs deleted"] < DELETED_MIN:
            self.problem(f"only {self.counts['packs deleted']} packs were deleted")
        for what in ["backups killed", "prunes killed", "packs repacked", "restores compared"]:
            if not self.counts[what]:
                self.problem(f"no {what}")
        for problem in self.problems:
            print(f"FAILED with seed {self.seed}: {problem}")
        return not self.problems


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


def main(binary, seconds, seed):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        (work / "attempts").mkdir()

        def start(credential, *arguments):
            environment = {"PATH": os.environ["PATH"], "HOME": str(work), "LIFEBOAT_REPOSITORY": str(work / "repository")}
            if not credential:
                environment["LIFEBOAT_PASSWORD"] = "correct horse"
            command = [binary, "--json", *map(str, credential), *map(str, arguments)]
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        life = LifeCycle(start, work, seed)
        life.begin()
        return 0 if life.run(seconds) else 1


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    root = Path(__file__).resolve().parent.parent
    program = Path(given.get(1, root / "target/release/lifeboat")).resolve()
    sys.exit(main(program, int(given.get(2, 60)), int(given.get(3, time.time_ns() % 1_000_000))))
