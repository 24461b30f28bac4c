#!/usr/bin/env python3
"""Kills or interrupts the program at random moments and looks at what is left, in a folder.

    kills.py [BINARY [ROUNDS [SEED]]]

CI runs 32 rounds of four backups and an `init`; `.ci/kills.py target/release/lifeboat 1000` runs for an hour. What is printed on a
failure names the seed and the round. `.ci/end-to-end` does the same with SeaweedFS.
"""
import os, random, shutil, signal, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path

# Backups in a round that are killed or interrupted, one after the other.
IN_A_ROUND = 4
# How far a backup had come: the last of these that it has added to.
PHASES = ["runs", "packs", "index", "snapshots"]


class Kills:
    """Rounds with one repository. `start` begins a command and gives its process."""

    def __init__(self, start, work, chance, folder=None):
        self.start, self.work, self.chance, self.folder = start, work, chance, folder
        self.tree, self.last = work / "killed-tree", work / "killed-last"
        # The words open a repository at once, where stretching a passphrase would take most of the time.
        self.words = work / "killed-words"
        self.seconds, self.ends, self.phases = 1.0, Counter(), Counter()

    def opened(self, *arguments):
        return self.start("--recovery-words-file", self.words, *arguments)

    def missed(self):
        return [phase for phase in PHASES if not self.phases[phase]]

    def run(self, *arguments, codes=(0,)):
        process = self.opened(*arguments)
        text = process.communicate(timeout=240)[0]
        assert process.returncode in codes, f"{arguments}: exit {process.returncode}: {text}"
        return text

    def disturb(self, *arguments):
        """Starts a command and ends it at any time until a little after its usual end."""
        before = self.objects()
        process = self.opened(*arguments)
        if self.folder and self.chance.random() < 0.7:
            # Most of the time goes by before it writes: wait until it has written so much.
            wanted = len(before) + self.chance.randint(1, 5)
            while process.poll() is None and len(self.objects()) < wanted:
                time.sleep(0.001)
            time.sleep(self.chance.uniform(0, 0.005))
        else:
            time.sleep(self.chance.uniform(0, self.seconds * 0.9))
        sent = self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
        process.send_signal(sent)
        text = process.communicate(timeout=60)[0]
        # A SIGINT before the program listens ends it as any other.
        expected = {0, 130, -sent} if sent == signal.SIGINT else {0, -sent}
        assert process.returncode in expected, f"{sent.name}: exit {process.returncode}: {text}"
        self.ends[process.returncode] += 1
        if process.returncode != 0 and self.folder:
            new = {part for name in self.objects() - before for part in PHASES if f"/{part}/" in name}
            self.phases[max(new, key=PHASES.index, default="nothing")] += 1

    def objects(self):
        return {str(path) for path in self.folder.glob("d/**/*") if path.is_file()} if self.folder else set()

    def told(self):
        ends = f"{self.ends[-9]} killed, {self.ends[130] + self.ends[-2]} interrupted, {self.ends[0]} done before it"
        phases = ", ".join(f"{self.phases[phase]} {phase}" for phase in ["nothing", *PHASES])
        return f"{sum(self.ends.values())} backups: {ends}" + (f"; the last that they wrote: {phases}" if self.folder else "")

    def change(self):
        """New files, changed ones, lost ones: some small, one of several packs."""
        self.tree.mkdir(exist_ok=True)
        for number in range(self.chance.randint(1, 60)):
            path = self.tree / str(self.chance.randint(0, 9)) / f"file {self.chance.randint(0, 200)}"
            path.parent.mkdir(exist_ok=True)
            if path.exists() and self.chance.random() < 0.2:
                path.unlink()
            else:
                path.write_bytes(self.chance.randbytes(self.chance.randint(0, 40_000)))
        (self.tree / "large").write_bytes(self.chance.randbytes(20 << 20))

    def restored(self):
        target = self.work / "killed-restored"
        shutil.rmtree(target, ignore_errors=True)
        self.run("restore", "latest", "--target", target)
        return target / self.tree.relative_to("/")

    def keep(self):
        shutil.rmtree(self.last, ignore_errors=True)
        shutil.copytree(self.tree, self.last, symlinks=True)

    def begin(self):
        """A repository with a backup. Gives how long its `init` took."""
        begun = time.monotonic()
        text = self.start("init", "--recovery-file", self.words).communicate(timeout=240)[0]
        init_seconds = time.monotonic() - begun
        assert self.words.exists(), text
        self.change()
        begun = time.monotonic()
        self.run("backup", self.tree)
        self.seconds = time.monotonic() - begun
        self.keep()
        return init_seconds

    def round(self, number):
        for _ in range(IN_A_ROUND):
            self.change()
            self.disturb("backup", self.tree)
            # The snapshot before is whole; or the killed one was already safe.
            restored = self.restored()
            if same(self.tree, restored):
                self.keep()
            assert same(self.last, restored), "the last snapshot is not whole"
        self.run("backup", self.tree)
        assert same(self.tree, self.restored()), "the snapshot after the kill is not whole"
        self.keep()
        self.run("check", *(["--read-data"] if number % 5 == 0 else []))


def same(one, other):
    return subprocess.run(["diff", "-rq", "--no-dereference", one, other], capture_output=True).returncode == 0


def kill_init(start, tree, seconds, chance):
    """An `init` that was killed is run again with the same passphrase: what comes of it can be used."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "new"

        def run(*command, codes):
            process = start(*command, repository=repository)
            text = process.communicate(timeout=240)[0]
            assert process.returncode in codes, f"{command} after a killed init: {process.returncode}: {text}"
            return process.returncode, text

        process = start("init", repository=repository)
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.communicate(timeout=60)
        # Exit 1: it was done already. Exit 5: something is left of it, and the message says what to do.
        code, text = run("init", codes=(0, 1, 5))
        if code == 5:
            assert "delete `keys` and `registry`" in " ".join(text.split()), text
            for part in ("keys", "registry"):
                shutil.rmtree(repository / part, ignore_errors=True)
            run("init", codes=(0,))
        run("backup", tree, codes=(0,))
        run("check", codes=(0,))


def main(binary, rounds, seed):
    with tempfile.TemporaryDirectory() as folder:
        work, chance = Path(folder).resolve(), random.Random(seed)

        def start(*arguments, repository=None):
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(work),
                "LIFEBOAT_REPOSITORY": str(repository or work / "repository"),
                "LIFEBOAT_PASSWORD": "correct horse",
            }
            options = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            return subprocess.Popen([binary, *map(str, arguments)], **options)

        kills = Kills(start, work, chance, work / "repository")
        init_seconds = kills.begin()
        small = kills.tree / "0"
        small.mkdir(exist_ok=True)
        number = 0
        # Few rounds may miss a phase by chance: then there are more.
        while number < rounds or (rounds >= 25 and number < 3 * rounds and kills.missed()):
            try:
                kills.round(number)
                kill_init(start, small, init_seconds, chance)
            except (AssertionError, subprocess.SubprocessError) as error:
                print(f"FAILED in round {number} with seed {seed}: {error}")
                return 1
            number += 1
        print(f"{kills.told()}; {number} killed init (seed {seed})")
        if sum(kills.ends[code] for code in kills.ends if code) < number * IN_A_ROUND // 3:
            print("FAILED: most backups were done before they were killed")
            return 1
        if rounds >= 25 and kills.missed():
            print(f"FAILED: no backup was killed behind its {', '.join(kills.missed())}")
            return 1
    return 0


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    root = Path(__file__).resolve().parent.parent
    program = Path(given.get(1, root / "target/release/lifeboat")).resolve()
    sys.exit(main(program, int(given.get(2, 32)), int(given.get(3, time.time_ns() % 1_000_000))))
