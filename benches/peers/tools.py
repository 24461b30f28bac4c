"""The tools: how each is called for the same work. All compress with zstd at level 3 or their default, all encrypt."""
import shutil, subprocess
from pathlib import Path

PASSWORD = "correct horse battery staple"


class Tool:
    """A tool with a home, a cache and temporary files of its own."""

    stores = {"folder", "s3", "s3-slow"}
    asked_version = ["--version"]

    def __init__(self, program, work):
        self.program = program
        self.folder = Path(work) / self.name
        self.target = self.folder / "restored"

    def fresh(self, place):
        """Forgets everything; the repository will be at `place`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        self.place = place

    def environment(self):
        """Nothing of the caller's environment, so that no variable favours one tool."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            **self.place.environment,
            **self.variables(),
        }

    def version(self):
        return subprocess.run([self.program, *self.asked_version], capture_output=True, text=True).stdout.split("\n")[0]

    # As most of them have it.

    def init(self):
        return [self.program, "init"]

    def backup(self, source, snapshot):
        return [self.program, "backup", source]

    def check(self):
        return [self.program, "check", "--read-data"]

    def restore(self, source, snapshot):
        return [self.program, "restore", f"latest:{source}", "--target", self.target]


class Lifeboat(Tool):
    name = "lifeboat"
    install = "cargo build --release --locked"

    def variables(self):
        return {"LIFEBOAT_REPOSITORY": self.place.address, "LIFEBOAT_PASSWORD": PASSWORD}


class Restic(Tool):
    name = "restic"
    install = "Debian's package of a newer suite: apt-get download restic; dpkg-deb -x restic_*.deb FOLDER"
    asked_version = ["version"]

    def variables(self):
        return {"RESTIC_REPOSITORY": self.place.address, "RESTIC_PASSWORD": PASSWORD}


class Rustic(Tool):
    name = "rustic"
    install = "cargo install --locked rustic-rs"

    def fresh(self, place):
        super().fresh(place)
        settings = self.folder / "home/.config/rustic/rustic.toml"
        settings.parent.mkdir(parents=True)
        address = "opendal:s3" if place.options else place.address
        lines = ["[repository]", f'repository = "{address}"', f'password = "{PASSWORD}"']
        lines += ["[repository.options]"] + [f'{name} = "{value}"' for name, value in place.options.items()]
        settings.write_text("\n".join(lines) + "\n")

    def variables(self):
        return {"RUSTIC_NO_PROGRESS": "true"}

    def restore(self, source, snapshot):
        return [self.program, "restore", f"latest:{source}", self.target]


class Borg(Tool):
    name = "borg"
    stores = {"folder"}
    install = "pip install borgbackup (needs libacl1-dev, liblz4-dev, libzstd-dev, libxxhash-dev, libssl-dev)"

    def variables(self):
        return {"BORG_REPO": self.place.address, "BORG_PASSPHRASE": PASSWORD}

    def init(self):
        # Its manual: whichever is faster on the machine. SHA-256 is where the processor has instructions for it.
        kind = "repokey" if has_sha_instructions() else "repokey-blake2"
        return [self.program, "init", "--encryption", kind]

    def backup(self, source, snapshot):
        # Its default, lz4, is no match for the others in what is stored.
        return [self.program, "create", "--compression", "zstd,3", f"::{snapshot}", source]

    def check(self):
        return [self.program, "check", "--verify-data"]

    def restore(self, source, snapshot):
        # Into the current folder, which is the target.
        return [self.program, "extract", "--strip-components", str(len(source.parts) - 1), f"::{snapshot}"]


def has_sha_instructions():
    """As x86 and ARM call them."""
    words = {word for line in open("/proc/cpuinfo") if line.lower().startswith(("flags", "features")) for word in line.split()}
    return bool(words & {"sha_ni", "sha2"})


TOOLS = [Lifeboat, Restic, Rustic, Borg]
