"""What is backed up. Each corpus is one folder, always at the same path, in a first and a second version."""
import os, random, re, shutil, subprocess, sys
from pathlib import Path

from measure import walk

SEED = 20221211  # of everything that is generated; the day of Linux 6.1
RELEASES = ["6.1.176-1", "6.1.192-2"]
IMAGE_UUID = "6c696665-626f-6174-2d62-656e63686573"


class Releases:
    """Two trees, of which the one that is shown has the name `source`. The other is `1` or `2`."""

    def __init__(self, folder):
        self.folder, self.source = folder, folder / "source"

    def show(self, version):
        wanted, other = self.folder / str(version), self.folder / str(3 - version)
        if not wanted.exists():
            return
        if self.source.exists():
            self.source.rename(other)
        wanted.rename(self.source)


class InPlace:
    """One tree. In its second version the middle of every hundredth file is reversed."""

    def __init__(self, folder):
        self.folder, self.source = folder, folder / "source"
        self.changed, self.changing = folder / "changed", folder / "changing"

    def show(self, version):
        if (version == 2) == self.changed.exists():
            return
        self.changing.touch()
        reverse_middles(self.source)
        if version == 2:
            self.changed.touch()
        else:
            self.changed.unlink()
        self.changing.unlink()


def reverse_middles(folder):
    """Undoes itself when it is done twice."""
    files = [entry for entry in walk(folder) if entry.is_file(follow_symlinks=False)]
    names = sorted(entry.path for entry in files if entry.stat().st_nlink == 1)
    for name in names[::100]:
        with open(name, "r+b") as file:
            length = os.fstat(file.fileno()).st_size
            start, count = length // 2, -(-length // 16)
            file.seek(start)
            middle = file.read(count)
            file.seek(start)
            file.write(middle[::-1])


def build_linux(folder):
    """The source of two releases, from two Debian packages in the folder above."""
    packages = sorted(folder.parent.glob("linux-source-6.1_*.deb"), key=by_version)
    if len(packages) != 2:
        names = " ".join(f"linux-source-6.1={release}" for release in RELEASES)
        sys.exit(f"the linux corpus needs two releases: cd {folder.parent} && apt-get download {names}")
    for version, package in enumerate(packages, 1):
        (folder / str(version)).mkdir(parents=True)
        steps = "dpkg-deb --fsys-tarfile {} | tar -xO ./usr/src/linux-source-6.1.tar.xz | tar -xJ --strip-components 1 -C {}"
        run(["bash", "-o", "pipefail", "-c", steps.format('"$1"', '"$2"'), "-", package, folder / str(version)])


def by_version(package):
    return [int(number) for number in re.findall(r"\d+", package.name)]


def build_tiny(folder, releases, files=200_000):
    """Tiny text files: those of the first release, in an order by chance, cut into 64 to 8,192 bytes, most of them short."""
    chance = random.Random(SEED)
    paths = sorted(entry.path for entry in walk(releases.source) if entry.is_file(follow_symlinks=False))
    chance.shuffle(paths)
    for number, piece in zip(range(files), pieces(paths, chance)):
        branch = folder / "source" / f"{number // 1000:03}"
        if number % 1000 == 0:
            branch.mkdir(parents=True)
        (branch / f"{number % 1000:03}.txt").write_bytes(piece)


def pieces(paths, chance):
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(int(64 * 128 ** chance.random())):
                yield piece


def build_random(folder, size=1 << 30):
    """Bytes that no compressor makes smaller, in eight files."""
    chance = random.Random(SEED)
    block = min(1 << 20, size // 8)
    (folder / "source").mkdir(parents=True)
    for number in range(8):
        with open(folder / "source" / f"{number}.bin", "wb") as file:
            for _ in range(size // 8 // block):
                file.write(chance.randbytes(block))


def build_image(folder, releases, size="4G"):
    """A disk with the first release on it, and the same disk when its files were brought to the second."""
    releases.show(2)
    first, second = releases.folder / "1", releases.source
    for version in (1, 2):
        (folder / str(version)).mkdir(parents=True)
    disk, later = folder / "1/disk.img", folder / "2/disk.img"
    fixed = {**os.environ, "E2FSPROGS_FAKE_TIME": "1700000000"}
    options = f"hash_seed={IMAGE_UUID},lazy_itable_init=0,lazy_journal_init=0"
    run(["mkfs.ext4", "-q", "-F", "-U", IMAGE_UUID, "-E", options, "-d", first, disk, size], env=fixed, stdout=subprocess.DEVNULL)
    run(["cp", "--sparse=always", disk, later])
    script = folder / "upgrade"
    script.write_text("\n".join(upgrade(first, second)) + "\n")
    run(["debugfs", "-w", "-f", script, later], env=fixed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run(["e2fsck", "-fn", later], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script.unlink()


def upgrade(first, second):
    """What debugfs is told, so that the disk has the files of the second release; folders that became empty stay."""
    old, new = files_below(first), files_below(second)
    made = set()
    for path in sorted(old.keys() | new.keys()):
        if path in old and path in new and old[path].read_bytes() == new[path].read_bytes():
            continue
        for parent in reversed(path.parents):
            if parent not in made and not (first / parent).is_dir():
                made.add(parent)
                yield f'mkdir "/{parent}"'
        yield f'cd "/{path.parent}"'
        if path in old:
            yield f'rm "{path.name}"'
        if path in new:
            yield f'write "{new[path]}" "{path.name}"'


def files_below(folder):
    paths = (Path(entry.path) for entry in walk(folder) if entry.is_file(follow_symlinks=False))
    return {path.relative_to(folder): path for path in paths}


def build_usr(folder):
    """The programs of this machine: no two machines have the same."""
    folder.mkdir(parents=True)
    run(["cp", "-a", "/usr", folder / "source"])


def run(command, **options):
    if subprocess.run(command, **options).returncode != 0:
        sys.exit(f"{command[0]} failed: {' '.join(map(str, command))}")


def open_corpus(folder, name):
    """The corpus in its first version, built if it is not there."""
    path = folder / name
    if (path / "changing").exists():
        # Ended in the middle of a change: nobody knows which files are which.
        shutil.rmtree(path)
    if not path.exists():
        print(f"building {name} in {path}", flush=True)
        build(folder, name)
    corpus = corpus_at(path)
    corpus.show(1)
    return corpus


def corpus_at(path):
    return Releases(path) if any((path / version).exists() for version in "12") else InPlace(path)


def build(folder, name):
    """Under another name first, so that half a corpus is never taken for one."""
    partial = folder / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    needed = [open_corpus(folder, "linux")] if name in ("tiny", "image") else []
    BUILDERS[name](partial, *needed)
    partial.rename(folder / name)


BUILDERS = {"linux": build_linux, "tiny": build_tiny, "random": build_random, "image": build_image, "usr": build_usr}
