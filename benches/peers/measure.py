"""One command: what it took, and whether it worked. And whether two trees are the same."""
import json, os, signal, stat, subprocess, sys, threading, time
from typing import NamedTuple

# A tool that hangs must not hang the night's run with it.
SECONDS_MAX = 7200
BLOCK_BYTES = 1 << 20


class Measured(NamedTuple):
    code: int
    wall: float  # seconds
    cpu: float  # seconds, user and system, of the command and of all that it waited for
    peak: int  # bytes, of its largest process
    synced: float  # seconds, until all that it wrote was on the disk
    said: str  # the end of what it printed


def measure(command, environment, folder, log):
    """Runs `command` in `folder`, below a small process: a child begins with the peak of its parent."""
    words = [sys.executable, "-S", __file__, log, *command]
    options = dict(env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    process = subprocess.Popen([str(word) for word in words], **options)
    try:
        figures, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    said = log.read_bytes()[-2000:].decode(errors="replace").strip()
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} could not be measured: {said}")
    return Measured(**json.loads(figures), said=said)


def observe(log, command):
    """In that process: what `command` takes."""
    with open(log, "wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        limit = threading.Timer(SECONDS_MAX, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        wall = time.monotonic() - begun
    os.sync()
    synced = time.monotonic() - begun
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    return dict(code=os.waitstatus_to_exitcode(status), wall=wall, cpu=cpu, peak=peak, synced=synced)


def read_once(folder):
    """Reads every byte below `folder`, so that all tools find it in the page cache."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    for entry in walk(folder):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def walk(folder):
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)


def difference(source, restored):
    """The first difference between two trees in names, kinds, modes, owners, times of files, links or bytes; or None."""
    theirs = {entry.name: entry for entry in os.scandir(restored)}
    for entry in os.scandir(source):
        other = theirs.pop(entry.name, None)
        if other is None:
            return f"{entry.path} was not restored"
        found = different_entry(entry, other)
        if found:
            return f"{entry.path} was restored with {found}"
        if entry.is_dir(follow_symlinks=False):
            below = difference(entry.path, other.path)
            if below:
                return below
    return f"{next(iter(theirs.values())).path} is not in the source" if theirs else None


def different_entry(one, other):
    before, after = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    if before.st_mode != after.st_mode:
        return f"mode {after.st_mode:o} instead of {before.st_mode:o}"
    if (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid):
        return f"the owner {after.st_uid}:{after.st_gid} instead of {before.st_uid}:{before.st_gid}"
    if stat.S_ISLNK(before.st_mode):
        return None if os.readlink(one.path) == os.readlink(other.path) else "another target"
    if not stat.S_ISREG(before.st_mode):
        return None
    if before.st_size != after.st_size or not same_bytes(one.path, other.path):
        return "other bytes"
    if before.st_mtime_ns != after.st_mtime_ns:
        return f"the time {after.st_mtime_ns} instead of {before.st_mtime_ns}"
    return None


def same_bytes(one, other):
    with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
        while True:
            expected = first.read(BLOCK_BYTES)
            if second.read(BLOCK_BYTES) != expected:
                return False
            if not expected:
                return True


def extent(folder):
    """How many files are below `folder`, and their bytes: enough to tell one corpus from another."""
    sizes = [entry.stat().st_size for entry in walk(folder) if entry.is_file(follow_symlinks=False)]
    return {"files": len(sizes), "bytes": sum(sizes)}


def size(folder):
    """The bytes of all files below `folder`."""
    return extent(folder)["bytes"]


if __name__ == "__main__":
    print(json.dumps(observe(sys.argv[1], sys.argv[2:])))
