#!/usr/bin/env python3
"""lifeboat beside restic, rustic and borg: all of them do the same work in turn, in one run. See docs/performance.md.

FOLDER needs 40 GB and is where the corpora, the repositories and the results are. Tools are found in the PATH.
"""
import argparse, fcntl, json, os, platform, shutil, signal, subprocess, sys, time
from pathlib import Path

from corpora import BUILDERS, open_corpus
from measure import difference, extent, measure, read_once
from report import missed, slower, table
from stores import ROOT, open_store
from tools import TOOLS

STEPS = ["first", "unchanged", "changed", "check", "restore"]
# Something else runs, where so many processes did on average in the last minute.
BUSY = 0.5


class Bench:
    """One run over one corpus after the other; `results` has a record of each step of each tool."""

    def __init__(self, work, store, tools, steps):
        self.work, self.store, self.tools, self.steps = work, store, tools, steps
        self.results = []

    def round(self, name, corpus, number):
        """All tools take each step before the next one, so that they share what the machine does meanwhile."""
        corpus.show(1)
        self.store.fresh()
        order = order_of(self.tools, number)
        stored = {tool.name: 0 for tool in order}
        for step in self.steps:
            if step == "changed":
                corpus.show(2)
            for tool in order:
                if tool.name not in stored:
                    continue
                measured, failed = self.step(tool, step, corpus.source)
                now = 0 if failed else self.store.stored(tool.name)
                self.record(measured, failed, corpus=name, round=number, step=step, tool=tool.name, stored=now,
                            grown=now - stored[tool.name])
                stored[tool.name] = now
                if failed:
                    # What the next steps of this round would measure is anybody's guess.
                    del stored[tool.name]
        for tool in order:
            shutil.rmtree(tool.folder, ignore_errors=True)

    def step(self, tool, step, source):
        """What the step took, and why it failed."""
        log = self.work / f"{tool.name}.log"
        if step == "first":
            tool.fresh(self.store.place(tool.name))
            created = measure(tool.init(), tool.environment(), tool.folder, log)
            if created.code != 0:
                return created, f"init ended with {created.code}: {created.said}"
        if step == "restore":
            tool.target.mkdir()
            self.store.warm(tool.name)
            command = tool.restore(source, self.last_backup())
        elif step == "check":
            self.store.warm(tool.name)
            command = tool.check()
        else:
            # Before each tool: borg drops what it has read from the page cache.
            read_once(source)
            command = tool.backup(source, step)
        os.sync()
        measured = measure(command, tool.environment(), tool.target if step == "restore" else tool.folder, log)
        if measured.code != 0:
            return measured, f"ended with {measured.code}: {measured.said}"
        wrong = difference(source, tool.target) if step == "restore" else None
        shutil.rmtree(tool.target, ignore_errors=True)
        return measured, wrong

    def last_backup(self):
        return [step for step in self.steps if step not in ("check", "restore")][-1]

    def record(self, measured, failed, **known):
        figures = dict(wall=round(measured.wall, 3), synced=round(measured.synced, 3), cpu=round(measured.cpu, 3), peak=measured.peak)
        self.results.append({**known, **figures, "failed": failed})
        line = f"{known['corpus']} {known['round'] + 1} {known['step']:9} {known['tool']:8}"
        line += f" {measured.wall:8.2f} s, {measured.synced:8.2f} s to the disk, {measured.cpu:8.2f} s CPU {measured.peak / 1e6:6.0f} MB"
        print(line + (f"  FAILED: {failed}" if failed else f" {known['stored'] / 1e6:9.1f} MB stored"), flush=True)

    def failures(self):
        return [result for result in self.results if result["failed"]]


def order_of(tools, number):
    """Each tool begins one round in turn, and comes after another one in every second round."""
    step = -1 if number % 2 else 1
    return [tools[(number + step * place) % len(tools)] for place in range(len(tools))]


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
    }


def find_tools(names, lifeboat, store, work):
    found = []
    for kind in TOOLS:
        if kind.name not in names:
            continue
        if store not in kind.stores:
            print(f"{kind.name} knows no S3, and is left out")
            continue
        program = lifeboat if kind.name == "lifeboat" else shutil.which(kind.name)
        if not program or not Path(program).exists():
            sys.exit(f"{kind.name} is not there{f', at {program}' if program else ''}. To install it: {kind.install}")
        found.append(kind(str(Path(program).absolute()), work))
    return found


def listed(known):
    def parse(text):
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
        return [name for name in known if name in names]
    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    names = [kind.name for kind in TOOLS]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpus", type=listed(list(BUILDERS)), default=list(BUILDERS), help="of " + ",".join(BUILDERS))
    parser.add_argument("--tools", type=listed(names), default=names, help="of " + ",".join(names))
    parser.add_argument("--steps", type=listed(STEPS), default=STEPS, help="of " + ",".join(STEPS) + "; `first` always counts")
    parser.add_argument("--store", choices=["folder", "s3", "s3-slow"], default="folder")
    parser.add_argument("--lifeboat", type=Path, default=ROOT / "target/release/lifeboat")
    parser.add_argument("--seaweedfs", type=Path, default=ROOT / "target/ci/seaweedfs", help="where it is installed")
    parser.add_argument("--against", type=Path, help="results of an earlier run: what is worse by more than a tenth or cannot be compared makes the exit code 1")
    parser.add_argument("--json", type=Path, help="else FOLDER/results/TIME.json")
    parser.add_argument("--add", action="store_true", help="keep what that file has of other corpora")
    parser.add_argument("--self-test", action="store_true", help="tries this script, on tiny corpora, with lifeboat alone")
    return parser.parse_args()


def tree():
    """The commit that the working tree is at; the program is that of a build before."""
    described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or None


def kept_of(target, described, measured):
    """What a file of the same machine, tools and store has of corpora that are not measured: their descriptions and results."""
    if not target.exists():
        return {}, []
    try:
        old = json.loads(target.read_text())
        for key in ["machine", "tools", "store"]:
            if old[key] != described[key]:
                sys.exit(f"{target} was measured with another `{key}`: {old[key]}")
        corpora = {name: known for name, known in old["corpora"].items() if name not in measured}
        return corpora, [result for result in old["results"] if result["corpus"] in corpora]
    except (KeyError, ValueError) as error:
        sys.exit(f"{target} has no results that anything can be added to: {error!r}")


def is_same(one, other):
    return all(one[key] == other[key] for key in ["files", "bytes"])


def comparable(before, measured):
    """What an earlier run has of corpora that are still the same."""
    same = [name for name, known in before["corpora"].items() if name in measured and is_same(known, measured[name])]
    return [result for result in before["results"] if result["corpus"] in same]


def another(before, measured):
    for name, known in before["corpora"].items():
        if name in measured and not is_same(known, measured[name]):
            yield f"nothing to compare: {name} is another corpus than then, which had {known['files']} files of {known['bytes']} bytes"


def write(target, described, results):
    """One line for each result; whole or not at all."""
    lines = ",\n".join("  " + json.dumps(result) for result in results)
    head = json.dumps(described, indent=1).removesuffix("\n}")
    partial = target.with_suffix(".partial")
    partial.write_text(f'{head},\n "results": [\n{lines}\n ]\n}}\n')
    partial.replace(target)


def compare(options):
    """The whole run; the exit code."""
    try:
        before = json.loads(options.against.read_text()) if options.against else None
        if before and not before["corpora"]:
            raise ValueError("it knows no corpora")
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"{options.against} has no results of an earlier run: {error}")
    if before and before["store"] != options.store:
        sys.exit(f"{options.against} was measured on the store {before['store']}")
    folder = options.folder.resolve()
    (folder / "corpora").mkdir(parents=True, exist_ok=True)
    work = folder / "work"
    lock = open(folder / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"another run is at work in {folder}")
    # It may be a mounted file system, which stays.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    tools = find_tools(options.tools, options.lifeboat, options.store, work)
    load, now = round(os.getloadavg()[0], 2), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    described = {"machine": machine(), "tools": {tool.name: tool.version() for tool in tools}, "store": options.store}
    target = options.json or folder / "results" / f"{now}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = kept_of(target, described, options.corpus) if options.add else ({}, [])
    corpora = {name: open_corpus(folder / "corpora", name) for name in options.corpus}
    run = {"tree": tree(), "time": now, "load_before": load}
    measured = {name: {**extent(corpus.source), **run} for name, corpus in corpora.items()}
    described["corpora"] = {**kept[0], **measured}
    print(json.dumps(described, indent=1))
    if load > BUSY:
        print("THE MACHINE IS BUSY: what is measured now is worth little")
    steps = [step for step in STEPS if step == "first" or step in options.steps]
    bench = Bench(work, open_store(options.store, work, options.seaweedfs), tools, steps)
    try:
        for number in range(options.rounds):
            for name, corpus in corpora.items():
                bench.round(name, corpus, number)
                write(target, described, kept[1] + bench.results)
    finally:
        bench.store.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"\nMedians of {options.rounds} rounds, store {options.store}; {target}\n\n{table(bench.results)}\n")
    for line in missed(bench.results):
        print(line)
    worse = [*another(before, measured), *slower(bench.results, comparable(before, measured))] if before else []
    print("\n".join(worse), end="\n" if worse else "")
    for result in bench.failures():
        print("FAILED: {corpus} {step} of {tool} in round {round}: {failed}".format(**result))
    return 1 if bench.failures() or worse else 0


if __name__ == "__main__":
    # So that a server that was started is also stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    chosen = arguments()
    if chosen.self_test:
        from self_test import self_test

        sys.exit(self_test(chosen))
    sys.exit(compare(chosen))
