#!/usr/bin/env python3
"""Reads a lifeboat repository in a local folder, written from docs/format.md alone: it shows that the page is enough.

    decoder.py REPOSITORY (--words FILE | --passphrase FILE | --access-key FILE) COMMAND
    COMMAND: list | ls SNAPSHOT | extract SNAPSHOT TARGET | evidence

Slow, and the index is whole in memory: who wants to restore quickly takes lifeboat. Needs the packages in decoder.txt.
"""
import base64, contextlib, hashlib, hmac, io, json, os, re, stat, struct, sys
from functools import lru_cache
from pathlib import Path

import argon2.low_level as argon2, cbor2, mnemonic, zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KIB, MIB, REGISTRY, INDEX, SNAPSHOT, ANNOTATION, FORGOTTEN, QUARANTINE, EVIDENCE = 1 << 10, 1 << 20, 1, 3, 4, 7, 8, 10, 11
NAME = re.compile(r"([0-9]{10,}-)?[0-9a-f]{64}")

def need(holds, why):
    if not holds:
        raise ValueError(why)
def H(data): return blake3(data).digest()
def D(purpose, data): return blake3(data, derive_key_context="lifeboat v1 " + purpose).digest()
def unbase64(text): return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
def checked(data, purpose):
    digits = json.loads(data)["checksum"].encode()
    need(D(purpose + " checksum", data.replace(digits, b"", 1)).hex().encode() == digits, f"{purpose}: its checksum is wrong")
    return json.loads(data)
def public(private): return private.public_key().public_bytes_raw()

class Reader:  # takes fields off the front of bytes; every length meets its limit first
    def __init__(self, data):
        self.data, self.at = data, 0
    def raw(self, length):
        need(self.at + length <= len(self.data), "it ends too early")
        self.at += length
        return self.data[self.at - length : self.at]
    def fixed(self, form):
        values = struct.unpack("<" + form, self.raw(struct.calcsize("<" + form)))
        return values if len(values) > 1 else values[0]
    def num(self, most=2**64 - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.fixed("B")
            need(byte or not shift, "a number is not in its shortest form")
            value |= (byte & 127) << shift
            if byte < 128:
                need(value <= most, f"{value} is over the limit of {most}")
                return value
        raise ValueError("a number is too long")
    def end(self): need(self.at == len(self.data), "something follows its end")

def refuse_critical(value):
    if isinstance(value, dict):
        need(all(isinstance(key, int) and key >= 0 for key in value), "it has a critical field that is unknown")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_critical(item)
def cbor(data):
    stream = io.BytesIO(data)
    value = cbor2.load(stream)
    need(stream.tell() == len(data) and isinstance(value, dict), "it is not one map")
    refuse_critical(value)
    return value
def frame_key(secret, context, commitment):
    ours = D("frame key commitment", secret + context)
    need(hmac.compare_digest(ours, commitment), "it was sealed with another key")
    return D("frame key", secret + context)
def decrypt(key, counter, aad, sealed): return AESGCM(key).decrypt(struct.pack("<4xQ", counter), sealed, aad)

class PrivateKey:  # X-Wing in HPKE, export only
    def __init__(self, seed):
        labelled = seed + b"HPKE-v1KEM\x64\x7a\x00\x0dDeriveKeyPair\x00\x20"
        expanded = hashlib.shake_256(hashlib.shake_256(labelled).digest(32)).digest(96)
        self.lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self.curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
    def secret(self, encapsulation, info):
        sent = encapsulation[1088:]
        shared = self.lattice.decapsulate(encapsulation[:1088])
        shared += self.curve.exchange(x25519.X25519PublicKey.from_public_bytes(sent))
        shared = hashlib.sha3_256(shared + sent + public(self.curve) + bytes.fromhex("5c2e2f2f5e5c")).digest()
        suite = b"HPKE-v1HPKE\x64\x7a\x00\x01\xff\xff"
        extract = lambda salt, label, data: hmac.digest(salt, suite + label + data, "sha256")
        expand = lambda key, label, data: hmac.digest(key, b"\x00\x20" + suite + label + data + b"\x01", "sha256")
        context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
        return expand(expand(extract(shared, b"secret", b""), b"exp", context), b"sec", b"lifeboat v1 export")

class Secrets:  # of a restore or owner identity: the other roles cannot read files
    def __init__(self, fields):
        self.root, self.epochs = fields.get(5), {seeds[0]: seeds for seeds in fields.get(10, [])}
        self.repository, self.root_public, self.registry_key = fields[1], fields[2], fields[4]
        derive = lambda number, kind: D(f"{kind} root", self.root) if self.root else fields[number]
        self.roots = {kind: derive(number, kind) for number, kind in ((6, "index"), (7, "node"), (8, "chunk"))}
    def domain_key(self, kind, domain): return D(f"domain {kind} key", self.roots[kind] + domain)
    @lru_cache(None)
    def private(self, kind, epoch):
        derived = D(f"{kind} seed", self.root + struct.pack("<I", epoch)) if self.root else None
        return PrivateKey(derived or self.epochs[epoch][1 if kind == "metadata" else 2])

def open_slot(data, passphrase=None, access=None):
    slot = checked(data, "key slot")
    kdf, salt = slot["kdf"], bytes.fromhex(slot["salt"])
    need(slot["lifeboat_key_slot"] == 1 and kdf["algorithm"] in ("argon2id", "access-key"), "it is of a newer format")
    if kdf["algorithm"] == "argon2id" and passphrase:
        memory, passes, lanes = kdf["memory_kib"], kdf["passes"], kdf["lanes"]
        need(memory <= MIB and passes <= 64 and lanes <= 64 and memory * passes <= 4 * MIB, "it asks for too much")
        access = argon2.hash_secret_raw(passphrase, salt, passes, memory, lanes, 32, argon2.Type.ID, 0x13)
    need(access, "it takes another secret")
    context = b"lifeboat v1 key slot" + slot["name"].encode() + salt
    key = frame_key(access, context, bytes.fromhex(slot["commitment"]))
    return Secrets(cbor(decrypt(key, 0, context, unbase64(slot["sealed"]))))
class Envelope:
    def __init__(self, data, kind, repository, domain):
        fields = Reader(data)
        need(fields.raw(7) == b"LFBT\x01\x01" + bytes([kind]), "it is not a record of this kind and format")
        sealing, self.public, self.sequence, self.epoch, _ = fields.fixed("B32sQI32s")
        need(sealing in (1, 2), "the way it is sealed is unknown")
        place = b"lifeboat v1 record" + repository + domain
        self.context, self.author = place + data[:84], H(self.public)[:16]
        self.encapsulation = fields.raw(1120) if sealing == 2 else None
        self.commitment, length = fields.fixed("32sI")
        need(length <= 64 * MIB, "it claims to be larger than any record")
        self.sealed = fields.raw(length)
        signed, signature = place + data[: fields.at], fields.raw(64)
        fields.end()
        ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, signed)
    def open(self, key=None, private=None):
        need((self.encapsulation is None) == (key is not None), "it is not sealed in the way of its kind")
        secret = key or private(self.epoch).secret(self.encapsulation, self.context)
        return decrypt(frame_key(secret, self.context, self.commitment), 0, self.context, self.sealed)
def directory(fields):
    """The frames of a pack: section header, counter, offset, length, codec, hash, blobs."""
    sections, frames = [fields.raw(1206) for _ in range(fields.num(KIB))], []
    for _ in range(fields.num(64 * KIB)):
        section, counter, offset, length = (fields.num(2**32 - 1) for _ in range(4))
        codec, digest = fields.fixed("B32s")
        blobs = tuple((fields.raw(32), fields.num(2 * MIB)) for _ in range(fields.num(16 * KIB)))
        need(section < len(sections) and codec < 2, "a section or codec is unknown")
        need(sum(blob[1] for blob in blobs) <= 2 * MIB and 16 <= length <= 2 * MIB + 16, "a frame is too large")
        frames.append((sections[section], counter, offset, length, codec, digest, blobs))
    return frames

def read_path(fields, last):
    path = last[: fields.num(len(last))] + fields.raw(fields.num(64 * KIB))
    safe = not {b"", b".", b".."} & {*path.split(b"/")} and b"\0" not in path and len(path) <= 64 * KIB
    need(safe and (not last or last.split(b"/") < path.split(b"/")), "a path is not allowed, or out of order")
    return path

def node(data):
    fields, items, path = Reader(data), [], b""
    kind = fields.fixed("B")
    level = fields.fixed("B") if kind in (2, 4) else 0
    need(1 <= kind <= 4 and level <= 16 and (level > 0) == (kind in (2, 4)), "its type or level is unknown")
    for _ in range(fields.num(4 * KIB)):
        path = read_path(fields, path) if kind <= 2 else None
        if kind == 1:
            items.append((path, cbor(fields.raw(fields.num(MIB)))))
        else:
            items.append((path, fields.raw(32), *(fields.num() for _ in range(1 if kind == 3 else 2))))
    fields.end()
    return kind, level, items
class Repository:
    def __init__(self, folder, unlock):
        self.folder, self.places = folder, {}
        config = checked(self.read("config", 4 * MIB), "config")
        need(config["format"] == 1, "the repository is of another format")
        self.secrets = unlock(self)
        self.id = self.secrets.repository
        ours = (self.id.hex(), self.secrets.root_public.hex())
        need((config["repository_id"], config["root_public_key"]) == ours, "config: it is of another repository")
        registries, names = [], self.names("registry")
        for name in [name for name in names if int(name[:-65]) == max(int(name[:-65]) for name in names)]:
            data, number, _ = self.addressed("registry", name)
            envelope = Envelope(data, REGISTRY, self.id, bytes(8))
            need(envelope.public == self.secrets.root_public, f"{name}: the root did not sign it")
            registry = cbor(envelope.open(self.secrets.registry_key))
            need(registry[0] == envelope.sequence == number, f"{name}: its number is another")
            need(not registry[2][0], f"it needs the features {registry[2][0]}")
            times = (config["commit_window_seconds"], config["minimum_grace_seconds"])
            need((registry[7], registry[8]) == times, "config: its times are not those of the registry")
            registries.append(registry)
        need(registries, "there is no registry")
        united = lambda key: [entry for registry in registries for entry in registry[key]]
        self.domains = {entry[0] for entry in united(4)}
        self.certificates = {entry[0]: entry for entry in united(5)}
        need(all(H(entry[1])[:16] == entry[0] for entry in united(5)), "an identity is not that of its key")
        strictest_last = sorted(united(6), key=lambda entry: (-entry[1], -len(entry[4])))
        self.revocations = {entry[0]: entry for entry in strictest_last}
    def read(self, name, most):
        need((self.folder / name).stat().st_size <= most, f"{name}: it is larger than any may be")
        return (self.folder / name).read_bytes()
    def names(self, folder):
        files = (self.folder / folder).rglob("*")
        return sorted(str(file.relative_to(self.folder / folder)) for file in files if NAME.fullmatch(file.name))
    def addressed(self, folder, name, most=4 * MIB):
        data, (*number, digest) = self.read(f"{folder}/{name}", most), Path(name).name.split("-")
        need(H(data).hex() == digest, f"{folder}/{name}: its bytes are not those that its name stands for")
        return data, int(number[0]) if number else 0, H(data)
    def records(self, domain, folder, kind, roles, aside=()):
        prefix = f"d/{domain.hex()}/{folder}" if any(domain) else folder
        for name in (name for name in self.names(prefix) if f"{prefix}/{name}" not in aside):
            data, number, digest = self.addressed(prefix, name, (64 if kind == INDEX else 4) * MIB)
            envelope = Envelope(data, kind, self.id, domain)
            known = self.certificates.get(envelope.author)
            need(known and known[1] == envelope.public and known[2] in roles, f"{name}: its author may not write it")
            need(known[2] != "backup" or known.get(4) == domain, f"{name}: its author is of another domain")
            need(envelope.sequence == number, f"{name}: its number is another")
            need("/" not in name or name.split("/")[0] == envelope.author.hex(), f"{name}: somebody else wrote it")
            revoked = self.revocations.get(envelope.author)
            good = not revoked or kind != SNAPSHOT and digest in revoked[4]
            if revoked and kind == SNAPSHOT:
                good = number < revoked[1] or number == revoked[1] and digest in revoked[2]
            need(good, f"{name}: its author was revoked")
            yield name, digest, envelope
    def metadata(self, epoch): return self.secrets.private("metadata", epoch)
    def evidence(self):
        """The reports, chain after chain; of a shared key two records may have one number."""
        known = {(author, 0, None) for author in self.certificates}
        for name, digest, envelope in self.records(bytes(8), "evidence", EVIDENCE, ("audit", "maintain", "restore", "owner")):
            record, author, number = cbor(envelope.open(private=self.metadata)), envelope.author, envelope.sequence
            signed = b"lifeboat v1 report\n" + record[2].encode()
            ed25519.Ed25519PublicKey.from_public_bytes(envelope.public).verify(record[3], signed)
            need((author, number - 1, record.get(1)) in known, f"{name}: the record before it is not there")
            known.add((author, number, digest))
            yield name, record[2]
    def held(self, domain, aside):
        """The snapshots that a legal hold names. One ends when an owner says so, by its id."""
        lifted, holds = set(), []
        for _, digest, envelope in self.records(domain, "annotations", ANNOTATION, ("maintain", "restore", "owner"), aside):
            said, role = cbor(envelope.open(private=self.metadata)), self.certificates[envelope.author][2]
            holds += [(digest, snapshot) for snapshot in said[1] if 5 in said and 6 not in said]
            lifted |= {(hold, snapshot) for hold in said.get(6, []) for snapshot in said[1] if role == "owner"}
        return {snapshot for hold, snapshot in holds if (hold, snapshot) not in lifted}
    def snapshots(self):
        """All that have not ended, oldest first: domain, id, record. Reads the indexes of their domains too."""
        found = []
        for domain in self.domains:
            key = self.secrets.domain_key("index", domain)
            listed = lambda *where: {item for *_, record in self.records(domain, *where, ("maintain", "owner"))
                                     for item in cbor(record.open(key))[1]}
            aside, ended = listed("quarantine", QUARANTINE), listed("forgotten", FORGOTTEN)
            ended -= self.held(domain, aside)
            for name, digest, envelope in self.records(domain, "snapshots", SNAPSHOT, ("backup", "owner"), aside):
                if digest not in ended:
                    record = cbor(envelope.open(private=self.metadata))
                    need({2, *range(4, 18)} <= set(record) and len(record.get(18, "--")) == 2, f"{name}: a field is missing")
                    need(len(record[7]) <= KIB and len(record[8]) <= 64 * KIB and len(record[12]) <= 100, f"{name}: too many")
                    need(all(len(text.encode()) <= KIB for text in [*record[7], *map(record.get, (5, 6, 13))]), f"{name}: too long")
                    found.append((domain, digest, record))
            for name, _, envelope in self.records(domain, "index", INDEX, ("backup", "maintain", "owner"), aside):
                self.load_index(domain, name, envelope, Reader(envelope.open(key)))
        replaced = {record[3] for _, _, record in found if 3 in record and record[3] == record.get(1)}
        return sorted((each for each in found if each[1] not in replaced), key=lambda each: each[2][4])
    def load_index(self, domain, name, envelope, fields):
        own_only = self.certificates[envelope.author][2] == "backup"
        for _ in range(fields.num(64 * KIB)):
            pack, size, kind = fields.fixed("32sIB")
            frames = directory(fields)
            for header, _, offset, length, *_ in frames:
                fits = header[:2] == bytes([1, kind]) and kind in (1, 2) and offset + length <= size
                need(fits, f"{name}: a frame or section does not fit its pack")
            if own_only and any(header[2:18] != envelope.author for header, *_ in frames):
                continue
            for frame in frames:
                at = 0
                for blob, length in frame[6]:
                    self.places.setdefault((domain, kind, blob), []).append((pack, frame, at, length))
                    at += length
        fields.end()
    @lru_cache(4096)
    def section_key(self, domain, header):
        _, kind, author, epoch, salt, encapsulation, commitment = struct.unpack("<BB16s4s32s1120s32s", header)
        place = b"lifeboat v1 section" + self.id + domain
        private = self.secrets.private("data" if kind == 1 else "metadata", int.from_bytes(epoch, "little"))
        context = place + (b"d" if kind == 1 else b"m") + author + epoch + salt
        return frame_key(private.secret(encapsulation, place), context, commitment)
    @lru_cache(64)
    def frame(self, domain, pack, frame):
        (header, counter, offset, length, codec, digest, blobs), name = frame, pack.hex()
        with open(self.folder / f"d/{domain.hex()}/packs/{'?dm'[header[1]]}/{name[:2]}/{name}", "rb") as file:
            file.seek(offset)
            sealed = file.read(length)
        need(H(sealed) == digest, f"pack {name}: a frame is damaged")
        aad = b"lifeboat v1 frame" + self.id + domain + H(header) + struct.pack("<I", counter)
        plain, total = decrypt(self.section_key(domain, header), counter, aad, sealed), sum(size for _, size in blobs)
        plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=total) if codec == 1 else plain
        need(len(plain) == total, f"pack {name}: a frame has another length")
        return plain
    def blob(self, domain, kind, key, blob):  # the first good copy
        error = ValueError(f"no index lists {blob.hex()}")
        for pack, frame, at, length in self.places.get((domain, kind, blob), []):
            try:
                plain = self.frame(domain, pack, frame)[at : at + length]
                need(blake3(plain, key=key).digest() == blob, "its content is not what its id names")
                return plain
            except Exception as reason:
                error = ValueError(f"{blob.hex()}: {reason!r}")
        raise error
    def below(self, domain, blob, leaf, above=17):
        """The items of all leaves (type 1) or chunk nodes (type 3) below a node."""
        kind, level, items = node(self.blob(domain, 2, self.secrets.domain_key("node", domain), blob))
        need(kind in (leaf, leaf + 1) and level < above, "a tree refers to a node of another kind")
        for item in items:
            yield from [item] if kind == leaf else self.below(domain, item[1], leaf, level)
    def content(self, domain, entry):
        flat, key = entry.get(17, []), self.secrets.domain_key("chunk", domain)
        chunks = list(zip(flat[::2], flat[1::2]))
        if 18 in entry:
            chunks = [item[1:] for item in self.below(domain, entry[18][0], 3)]
            need(len(chunks) == entry[18][1], "a list has another number of chunks")
        total = sum(length for _, length in chunks) + sum(entry.get(21, [])[1::2])
        need(20 in entry or total == entry.get(12, 0), "chunks and holes do not add up to the size")
        for chunk, length in chunks:
            plain = self.blob(domain, 1, key, chunk)
            need(len(plain) == length, "a chunk has another length")
            yield plain

def extract(repository, domain, record, target):  # below a target that is new; gives an exit code
    target.mkdir()
    first, folders, code, last = {}, [], 0, []
    for path, entry in repository.below(domain, record[9], 1):
        need(last < path.split(b"/"), "the manifest is out of order")
        last = path.split(b"/")
        place, kind = os.path.join(os.fsencode(target), path), entry[0]
        group = (entry[10], entry[9]) if kind != 1 and entry.get(11, 1) > 1 else path
        if 20 in entry or 23 in entry:
            print(f"not in the backup: {os.fsdecode(path)}: {entry.get(20, entry.get(23))}", file=sys.stderr)
            code = 3
        if group in first:
            os.link(first[group], place, follow_symlinks=False)
        elif kind == 1:
            os.mkdir(place, 0o700)
            folders.append((place, entry))
        elif 20 not in entry and kind != 6:
            if kind == 0:
                write(place, repository.content(domain, entry), iter(entry.get(21, [])), entry.get(12, 0))
            elif kind == 2:
                os.symlink(entry[13], place)
            else:
                number, device = entry.get(14, 0), {3: stat.S_IFIFO, 4: stat.S_IFCHR, 5: stat.S_IFBLK}[kind]
                os.mknod(place, 0o600 | device, os.makedev(number >> 32, number & 0xFFFFFFFF))
            finish(place, entry)
            first[group] = place
    for place, entry in reversed(folders):
        finish(place, entry)
    return code

def write(place, chunks, turns, size):  # turns: bytes of content and of holes, by turns
    with open(place, "xb") as file:
        left = next(turns, None)
        for plain in chunks:
            while left is not None and len(plain) > left:
                plain, _ = plain[left:], file.write(plain[:left]) + file.seek(next(turns), 1)
                left = next(turns, None)
            left = None if left is None else left - len(plain)
            file.write(plain)
        file.truncate(size)
def finish(place, entry):
    if os.geteuid() == 0:
        os.lchown(place, entry[2], entry[3])
    if entry[0] != 2:
        os.chmod(place, entry[1])
    for name, value in entry.get(15, []):
        os.setxattr(place, name, value, follow_symlinks=False)
    times = tuple(entry[key][0] * 10**9 + entry[key][1] for key in (7, 6))
    os.utime(place, ns=times, follow_symlinks=False)

def unlock(repository, how, text):
    if how == "--words":
        root = bytes(mnemonic.Mnemonic("english").to_entropy(text.lower().split()))
        signer = public(ed25519.Ed25519PrivateKey.from_private_bytes(D("root signing key", root)))
        return Secrets({1: D("repository id", root), 2: signer, 4: D("registry key", root), 5: root})
    if how == "--access-key":
        form, slot, secret, check = text.strip().split(":")
        ours = D("access key checksum", f"{slot}:{secret}".encode())[:4].hex()
        need(form == "lifeboat-access-1" and check == ours, "the access key has a typing error")
        return open_slot(repository.read(f"keys/{slot}", 4 * MIB), access=unbase64(secret))
    for slot in sorted((repository.folder / "keys").iterdir())[:8]:
        with contextlib.suppress(Exception):
            return open_slot(repository.read(f"keys/{slot.name}", 4 * MIB), passphrase=text.splitlines()[0].encode())
    raise ValueError("the passphrase opens no slot")

def main():
    folder, how, secret, command, *rest = sys.argv[1:]
    repository = Repository(Path(folder), lambda repository: unlock(repository, how, Path(secret).read_text()))
    chosen = [each for each in repository.snapshots() if each[1].hex().startswith("".join(rest[:1]))]
    for domain, digest, record in chosen if command == "list" else ():
        print(digest.hex(), record[4][0], record[5], *map(os.fsdecode, record[8]))
    for name, report in repository.evidence() if command == "evidence" else ():
        print(name, report)
    need(len(chosen) == 1 or command in ("list", "evidence"), "this names no snapshot, or several")
    if command == "extract":
        return extract(repository, chosen[0][0], chosen[0][2], Path(rest[1]))
    for path, entry in repository.below(chosen[0][0], chosen[0][2][9], 1) if command == "ls" else ():
        print(f"{entry[1]:04o} {entry.get(12, 0):>12} {os.fsdecode(path)!r}")

if __name__ == "__main__":
    sys.exit(main())
