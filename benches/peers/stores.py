"""Where repositories are kept: in a folder, or in a SeaweedFS on this machine, near or 20 ms away."""
import json, os, shutil, signal, subprocess, sys, time, urllib.error, urllib.parse, urllib.request
from pathlib import Path
from typing import NamedTuple

from measure import read_once, size

ROOT = Path(__file__).resolve().parents[2]
ROUND_TRIP_MS = 20


class Place(NamedTuple):
    """One repository: its address, as lifeboat and restic write it, and what else says how to get there."""

    address: str
    environment: dict
    options: dict


class Folder:
    name = "folder"

    def __init__(self, work):
        self.folder = Path(work) / "repositories"

    def fresh(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def place(self, tool):
        return Place(str(self.folder / tool), {}, {})

    def stored(self, tool):
        return size(self.folder / tool)

    def warm(self, tool):
        """Has the repository in the page cache: borg drops from there what it has written."""
        read_once(self.folder / tool)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class S3:
    """A server that is started anew, with nothing in it, for each round of each corpus."""

    bucket, key, secret = "lab", "labkey", "labsecret1234567"

    def __init__(self, work, server, delayed):
        self.name = "s3-slow" if delayed else "s3"
        self.folder = Path(work) / "seaweedfs"
        self.installed = (Path(server) / "venv").resolve()
        if not (self.installed / "bin/weed").exists():
            sys.exit(f"there is no SeaweedFS in {server}: `.ci/start-seaweedfs {server}` installs and starts it; stop it again")
        self.delayed, self.pid, self.proxy = delayed, None, None

    def fresh(self):
        self.close()
        self.folder.mkdir(parents=True)
        (self.folder / "venv").symlink_to(self.installed)
        subprocess.run([ROOT / ".ci/start-seaweedfs", self.folder], check=True, stdout=subprocess.DEVNULL)
        self.pid = int((self.folder / "pid").read_text())
        self.server_port = self.port = int((self.folder / "port").read_text())
        if self.delayed:
            self.proxy, self.port = far_away(self.server_port)

    def place(self, tool):
        endpoint = f"http://127.0.0.1:{self.port}"
        options = {"bucket": self.bucket, "root": f"/{tool}", "endpoint": endpoint, "region": "us-east-1"}
        options |= {"access_key_id": self.key, "secret_access_key": self.secret}
        environment = {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}
        return Place(f"s3:{endpoint}/{self.bucket}/{tool}", environment, options)

    def stored(self, tool):
        """As the server's file index knows it, on a port that needs no signature."""
        return self.stored_below(f"/buckets/{self.bucket}/{tool}/")

    def warm(self, tool):
        """What the server holds in memory is its own affair."""

    def stored_below(self, folder):
        total, last = 0, ""
        while True:
            query = urllib.parse.urlencode({"limit": 1000, "lastFileName": last})
            url = f"http://127.0.0.1:{self.server_port + 3}{urllib.parse.quote(folder)}?{query}"
            request = urllib.request.Request(url, headers={"Accept": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                entries = json.load(reply)["Entries"] or []
            for entry in entries:
                directory = entry["Mode"] >> 31 & 1
                total += self.stored_below(entry["FullPath"] + "/") if directory else entry["FileSize"]
            if len(entries) < 1000:
                return total
            last = entries[-1]["FullPath"].rsplit("/", 1)[1]

    def close(self):
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            while Path(f"/proc/{self.pid}/fd").exists() and running(self.pid):
                time.sleep(0.05)
        self.pid = self.proxy = None
        shutil.rmtree(self.folder, ignore_errors=True)


def far_away(port, round_trip_ms=ROUND_TRIP_MS):
    """The process that delays, and the port that leads through it to `port`."""
    command = [sys.executable, Path(__file__).with_name("delay.py"), str(port), str(round_trip_ms)]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return proxy, int(proxy.stdout.readline())


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def open_store(name, work, server):
    return Folder(work) if name == "folder" else S3(work, server, name == "s3-slow")
