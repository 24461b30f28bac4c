#!/usr/bin/env python3
"""Everything that must hold before a change lands. Prints the minutes of each part and every skipped test
with its reason; a skip that `.ci/allowed-skips` does not list fails. `.ci/run NAME..` runs only those parts.
"""
import os, re, shlex, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Shared with the clean clone, so that no dependency is built twice.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
BINARY = TARGET / "release/lifeboat"
# Nothing is built twice here, and what a second build would need takes time and disk.
ENVIRONMENT = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_INCREMENTAL": "0"}


class Failed(Exception):
    pass


def run(command, cwd=ROOT, **environment):
    """Runs a command, shows what it says, and gives it back."""
    print("+", shlex.join(map(str, command)), flush=True)
    options = dict(cwd=cwd, env={**ENVIRONMENT, **environment}, text=True, errors="replace")
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    if process.wait() != 0:
        raise Failed(f"{command[0]} ended with {process.returncode}")
    return "".join(lines)


def install(programs, packages):
    """Installs packages if one of the programs is not there."""
    if not all(map(shutil.which, programs)):
        run(["apt-get", "update"])
        run(["apt-get", "install", "--yes", "--no-install-recommends", *packages])


def formatting():
    run(["cargo", "fmt", "--check"])


def clippy():
    run(["cargo", "clippy", "--all-targets", "--locked", "--", "-D", "warnings"])


def documentation():
    run(["cargo", "doc", "--no-deps", "--locked"], RUSTDOCFLAGS="-Dwarnings")


def tests():
    # What tests look for: one that does nothing without it says so, and cargo hides what a test says that passed.
    install({"rsync", "git", "chattr", "mke2fs", "unshare"}, ["rsync", "git", "e2fsprogs", "util-linux"])
    text = run(["cargo", "test", "--locked"], LIFEBOAT_TEST_NO_SKIPS="1")
    return re.findall(r"^test (\S+)(?: - .*)? \.\.\. ignored(?:, (.*))?$", text, re.MULTILINE)


def readme():
    """The README's first command in a clean clone; then the command that it prints, which restores."""
    commands = re.findall(r"^    (.*cargo run .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    if not commands:
        raise Failed("the README begins with no `cargo run`")
    words = shlex.split(commands[0])
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder).resolve() / "lifeboat"
        run(["git", "clone", "--quiet", "--no-local", ROOT, clone])
        printed = run(words, cwd=clone, **given)
        # No dependency is left out: what was just built is what this builds.
        run(["cargo", "build", "--release", "--locked"], cwd=clone)
        restore = [line for line in printed.splitlines() if line.startswith("lifeboat ") and " restore " in line]
        if len(restore) != 1:
            raise Failed("the backup printed no command that restores it")
        path = f"{BINARY.parent}:{os.environ['PATH']}"
        # Found by its name, as a user would.
        run(["sh", "-c", restore[0]], cwd=clone, PATH=path, **given)
        for source in words[words.index("--init") + 1 :]:
            restored = clone / "restored" / (clone / source).relative_to("/")
            run(["diff", "-r", "--no-dereference", clone / source, restored])


def end_to_end():
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    text = run([ROOT / ".ci/end-to-end", BINARY])
    return re.findall(r"^SKIP (.*?): (.*)$", text, re.MULTILINE)


def stores():
    """The conformance suite on real servers, and the program on one that ignores conditional writes."""
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    run([ROOT / ".ci/stores", BINARY])


def bad_disks():
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    text = run([ROOT / ".ci/bad-disks", BINARY])
    return re.findall(r"^SKIP (.*?): (.*)$", text, re.MULTILINE)


def mounts():
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    install({"setfacl"}, ["acl"])
    text = run([ROOT / ".ci/mounts", BINARY])
    return re.findall(r"^SKIP (.*?): (.*)$", text, re.MULTILINE)


def kills():
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    run([ROOT / ".ci/kills.py", BINARY])
    run([ROOT / ".ci/life_cycle.py", "--self-test", BINARY])
    run([ROOT / ".ci/life_cycle.py", BINARY])


def decoder():
    """The decoder in Python, written from docs/format.md alone, reads what the binary writes, and the vectors."""
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    python = ROOT / "target/ci/decoder/bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", python.parent.parent])
    run([python, "-m", "pip", "install", "--quiet", "-r", ROOT / "tests/decoder.txt"])
    run([python, ROOT / "tests/vectors/make.py", "--check"])
    run([python, ROOT / ".ci/decoder", BINARY])


def mutants():
    """The checks that `tests/mutants.py` switches off are where it looks for them; running it whole takes an hour."""
    run([sys.executable, ROOT / "tests/mutants.py", "--check"])


def fuzz():
    """Every decoder, a minute each."""
    run([sys.executable, ROOT / ".ci/fuzz"])


def peers():
    """The comparison with other tools measures what it says. With lifeboat alone: its figures are for a quiet machine."""
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    where = ["--lifeboat", BINARY, "--seaweedfs", ROOT / "target/ci/seaweedfs"]
    text = run([ROOT / "benches/peers/run.py", ROOT / "target/ci/peers", "--self-test", *where])
    return re.findall(r"^SKIP (.*?): (.*)$", text, re.MULTILINE)


def systemd():
    """A real systemd, the units and docs/systemd.md, with the store on this machine."""
    if not BINARY.exists():
        raise Failed(f"{BINARY} is not built: run the part `readme` first")
    needed = {"/lib/systemd/systemd", "systemd-analyze", "systemd-creds", "dbus-daemon", "nsenter", "setpriv"}
    install(needed, ["systemd", "dbus", "util-linux"])
    run([ROOT / ".ci/systemd", BINARY])


PARTS = [
    formatting, clippy, documentation, mutants, tests, readme, end_to_end, stores, bad_disks, mounts, decoder, kills, peers, fuzz,
    systemd
]


def allowed_skips():
    lines = (ROOT / ".ci/allowed-skips").read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def main(names):
    unknown = set(names) - {part.__name__ for part in PARTS}
    if unknown:
        sys.exit(f"there is no part {', '.join(unknown)}")
    if not shutil.which("cargo"):
        sys.exit("cargo is not installed")
    passed, failed, skipped, begun = 0, [], [], time.monotonic()
    for part in PARTS:
        name, started = part.__name__, time.monotonic()
        if names and name not in names:
            continue
        print(f"== {name}", flush=True)
        try:
            skipped += part() or []
            passed += 1
        except Failed as error:
            failed.append(name)
            print(f"FAILED: {name}: {error}")
        print(f"== {name}: {(time.monotonic() - started) / 60:.2f} minutes", flush=True)
    allowed = allowed_skips()
    for test, reason in sorted(set(skipped)):
        known = test in allowed
        print(f"skipped{'' if known else ' WITHOUT LEAVE'}: {test}: {reason or 'no reason given'}")
        if not known:
            failed.append(f"skip of {test}")
    print(f"{passed} parts passed, {len(failed)} failed, {len(skipped)} tests skipped, "
          f"{(time.monotonic() - begun) / 60:.2f} minutes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
