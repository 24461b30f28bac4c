"""What the vectors hold: derivations, chunk boundaries, and an object of every kind."""
import math, re

from seal import *

# --- What a manifest holds.
def path(text, last=b""):
    shared = next((at for at, (a, b) in enumerate(zip(last, text)) if a != b), min(len(last), len(text)))
    return num(shared) + counted(text[shared:])


ENTRY = {0: 0, 1: 0o4640, 2: 1000, 3: 1001, 4: "alice", 5: "staff", 6: TIME, 7: PAST, 8: [3, 4], 9: 77, 10: 88, 11: 2,
         12: 300, 15: [[b"user.a", b"1"], [b"user.b", b"\0"]], 16: 16, 17: [LOW, 100, chunk_id(b"x"), 200], 19: True}
SMALL = {0: 0, 1: 0o644, 2: 0, 3: 0, 6: TIME, 7: TIME, 9: 1, 10: 1}


def leaf(*entries):
    data, last = b"", b""
    for name, fields in entries:
        data, last = data + path(name, last) + counted(open_map(fields)), name
    return b"\x01" + num(len(entries)) + data


NODES = {
    "leaf": (leaf((b"srv", SMALL | {0: 1}), (b"srv/a", ENTRY), (b"srv/a-b", SMALL | {12: 99, 18: [LOW, 300, 1], 21: [5, 20, 1, 4], 23: "attribute user.a"}),
                  (b"srv/link", SMALL | {0: 2, 13: b"../a\xff"}), (b"srv/null", SMALL | {0: 4, 14: 1 << 32 | 3}),
                  (b"srv/secret", SMALL | {20: "Permission denied"})),
             ["mode: 2464", "uid: 1000", "gid: 1001", 'user: "alice"', 'group: "staff"', "mtime: Timestamp { seconds: 1700000000, nanoseconds: 5 }",
              "ctime: Timestamp { seconds: -1, nanoseconds: 999999999 }", "btime: Some(Timestamp { seconds: 3, nanoseconds: 4 })", "inode: 77",
              "device_key: 88", "links: 2", "size: 300", "Hole { offset: 5, length: 20 }, Hole { offset: 26, length: 4 }",
              'lacks: Some("attribute user.a")', "flags: 16", "length: 100", "changed_while_read: true", "kind: Directory",
              "kind: Symlink", "kind: CharacterDevice", "device_number: 4294967299", 'error: Some("Permission denied")', "chunks: 300, level: 1"]),
    "branch": (b"\x02\x01" + num(2) + path(b"a/b") + LOW + num(128) + num(1 << 40) + path(b"a/c", b"a/b") + H(LOW) + num(1) + num(0),
               ["Branch(1", "entries: 128", "bytes: 1099511627776", LOW.hex()]),
    "chunks": (b"\x03" + num(2) + LOW + num(1) + H(LOW) + num(MIB), ["Chunks", "length: 1048576", LOW.hex()]),
    "lists": (b"\x04\x02" + num(1) + LOW + num(9) + num(10), ["Lists(2", "chunks: 9", "bytes: 10"]),
}

# --- Records. Each with what it says, as the decoded value prints itself.
SNAPSHOT = {1: H(LOW), 2: 7, 3: H(LOW), 4: TIME, 5: "host", 6: "user", 7: ["tag", "naïve"], 8: [b"/srv", b"/\xff"], 9: LOW,
            10: [1, 2, 3, 4, 5, 6], 11: 8, 12: [[b"srv/x", "reason"]], 13: "lifeboat 0.1.0", 14: fixed("nonce", 16), 15: PAST,
            16: [600, 259200, 65536, 262144, 1048576], 17: 3}
HOLD = {0: TIME, 1: [LOW], 5: "case 17"}
LIFT = {0: TIME, 1: [LOW], 5: "closed", 6: [H(LOW)]}
REPORT = '{"kind":"drill","summary":"all is well"}'


def report_signature(signer=RESTORE, text=REPORT):
    return signer.sign(context("report") + b"\n" + text.encode())


def attested(frames):
    data = b"".join(struct.pack("<I", frame.counter) + frame.hash + bytes([frame.codec]) + num(len(frame.blobs)) +
                    b"".join(id + struct.pack("<I", size) for id, size in frame.blobs) for frame in frames)
    return D("attested section", data)


HEADER, SEAL = section("data", BACKUP, PLACE)
ATTESTATION = {0: TIME, 1: [{0: H(HEADER), 1: attested(frames_of(SEAL))}]}
CERTIFIED = [(OWNER, "owner", DOMAIN), (BACKUP, "backup", DOMAIN), (AUDIT, "audit", None), (MAINTAIN, "maintain", None),
             (RESTORE, "restore", None), (FOREIGN, "backup", OTHER_DOMAIN)]


def certificate(signer, role, domain):
    return {0: signer.identity, 1: signer.public, 2: role, 3: f"the {role}"} | ({4: domain} if domain else {}) | {5: role == "audit", 6: TIME}


def domain(id, name):
    return {0: id, 1: name, 2: 64 * KIB, 3: 256 * KIB, 4: MIB}


REGISTRY = {0: 2, 1: H(LOW), 2: {0: [], 1: [], 2: ["grace-of-god"]},
            3: [{0: EPOCH, 1: x_wing_public("data"), 2: x_wing_public("metadata")}],
            4: [domain(DOMAIN, "main"), domain(OTHER_DOMAIN, "other")], 5: [certificate(*each) for each in CERTIFIED],
            6: [{0: STRANGER.identity, 1: 4, 2: [LOW], 3: TIME, 4: [H(LOW)]}], 7: 600, 8: 259200}

# kind: author, the key that seals (None: the metadata key), number, fields, what it says
RECORDS = {
    "snapshot": (BACKUP, None, 9, SNAPSHOT,
                 ["registry: 7", 'host: "host", user: "user"', 'tags: ["tag", "naïve"]', "begun: Timestamp { seconds: -1, nanoseconds: 999999999 }",
                  "entries: 1, files: 2, bytes: 3, files_unchanged: 4, bytes_new: 5, bytes_stored: 6", "levels: 3", "unreadable: 8",
                  'program: "lifeboat 0.1.0"', "commit_window_seconds: 600, minimum_grace_seconds: 259200, chunk_sizes: [65536, 262144, 1048576]"]),
    "run": (BACKUP, None, 0, {0: TIME, 1: "host", 2: "backup", 3: [75, "no answer"], 4: fixed("nonce", 16)},
            ['host: "host", command: "backup", failure: Some((75, "no answer"))']),
    "attestation": (RESTORE, INDEX_KEY, 0, ATTESTATION, [H(HEADER).hex()]),
    "annotation": (MAINTAIN, None, 0, {0: TIME, 1: [LOW, H(LOW)], 2: ["a"], 3: ["b", "naïve"], 4: ["c"]},
                   [LOW.hex(), 'set: Some(["a"]), add: ["b", "naïve"], remove: ["c"]']),
    "forgotten": (MAINTAIN, INDEX_KEY, 0, {0: TIME, 1: [LOW, H(LOW)], 2: "keep 7"}, [LOW.hex(), 'reason: "keep 7"']),
    "tombstones": (MAINTAIN, INDEX_KEY, 0, {0: TIME, 1: [LOW, H(LOW)]}, [LOW.hex()]),
    "quarantine": (MAINTAIN, INDEX_KEY, 0, {0: TIME, 1: ["config", "registry/x"], 2: "forged"}, ['objects: ["config", "registry/x"]', 'reason: "forged"']),
    "evidence": (RESTORE, None, 3, {0: TIME, 1: H(LOW), 2: REPORT, 3: report_signature()}, ["all is well"]),
    "registry": (ROOT_SIGNER, REGISTRY_KEY, 2, REGISTRY,
                 ["number: 2", 'prune: ["grace-of-god"]', "role: Maintain", 'label: "the audit"', "shared: true", "last_sequence: 4",
                  "chunk_min: 65536, chunk_average: 262144, chunk_max: 1048576", "commit_window_seconds: 600", "minimum_grace_seconds: 259200"]),
}


def of_domain(kind):
    return bytes(8) if kind in ("registry", "evidence") else DOMAIN


def sealed_record(kind, plain=None, **other):
    signer, key, sequence, fields, _ = RECORDS[kind]
    plain = plain if plain is not None else open_map(fields) if kind == "snapshot" else record(fields)
    given = dict(sequence=sequence, key=key, domain=of_domain(kind), signer=signer) | other
    return envelope(kind, plain, **given)


def index_of(frames, size=8192, headers=(HEADER,), code=1, after=b""):
    at = sum(map(len, headers))
    for frame in frames:
        frame.offset, at = at, at + frame.length
    return num(1) + LOW + struct.pack("<IB", size, code) + directory(list(headers), frames) + after


def exported(label="the restore", signature=None, role="restore"):
    statement = "\n".join([context("exported certificate").decode(), REPOSITORY.hex(), ROOT_SIGNER.public.hex(),
                           RESTORE.identity.hex(), RESTORE.public.hex(), role, label])
    return (json.dumps({
        "about": "Who signs for a lifeboat repository. Compare the root public key with its `config`.", "statement": statement,
        "repository_id": REPOSITORY.hex(), "root_public_key": ROOT_SIGNER.public.hex(), "identity": RESTORE.identity.hex(),
        "verifying_key": RESTORE.public.hex(), "role": role, "label": label,
        "root_signature": (signature or ROOT_SIGNER.sign(statement.encode())).hex()}, indent=2) + "\n").encode()


# --- Where a file is cut.
PAGE = (HERE.parent.parent / "docs/format.md").read_text()
MASKS = {int(b): int(mask, 16) for b, mask in re.findall(r"\| ([0-9]+) \| `([0-9a-f]{16})` ", PAGE)}


def lengths(data, gear, smallest, average, largest):
    found, at = [], 0
    b = round(math.log2(average))
    strict, relaxed = MASKS[b + 1], MASKS[b - 1]
    while at < len(data):
        n = min(len(data) - at, largest)
        length, h, piece = n, 0, data[at:at + n]
        for i in range(smallest, n - n % 2):
            h = (h << 1) + gear[piece[i]] & 0xFFFFFFFFFFFFFFFF
            if not h & (strict if i < average else relaxed):
                length = i
                break
        found.append(length)
        at += length
    return found


def content(parts):
    """Noise, one byte, bytes that repeat after so many, numbers one a line: each so many bytes."""
    made_of = {
        "noise": lambda what, length: blake3(struct.pack("<Q", what)).digest(length),
        "byte": lambda what, length: bytes([what]) * length,
        "period": lambda what, length: (bytes(at & 255 for at in range(what)) * (length // what + 1))[:length],
        "lines": lambda what, length: b"".join(b"%d\n" % n for n in range(what, what + length // 2 + 1))[:length]}
    return b"".join(made_of[kind](what, length) for kind, what, length in parts)


USUAL, SMALLER, TINY, UNEVEN = [64 * KIB, 256 * KIB, MIB], [4 * KIB, 16 * KIB, 64 * KIB], [64, 66, 1024], [1000, 3000, 9998]
CUTS = [
    (USUAL, [["noise", 1, 3 * MIB + 1]]),
    (USUAL, [["noise", 2, 700_000], ["byte", 0, 2_500_000], ["noise", 3, 300_001]]),
    (USUAL, [["lines", 1, 1_500_000]]),
    (USUAL, [["period", 251, 1_200_001]]),
    (SMALLER, [["noise", 4, 600_000]]),
    (SMALLER, [["lines", 10**12, 200_001]]),
    (TINY, [["noise", 5, 20_001]]),
    (TINY, [["period", 7, 5_000]]),
    (UNEVEN, [["noise", 6, 90_001], ["byte", 255, 30_000]]),
    *((USUAL, [["noise", 7, length]]) for length in (0, 1, 65535, 65536, 65537, 65538, 262143, 262144, 262145, MIB - 1, MIB, MIB + 1)),
]


def make_chunks():
    gear = struct.unpack("<256Q", keyed(GEAR_SEED, b"", 2048))
    cases = [{"sizes": sizes, "parts": parts, "lengths": lengths(content(parts), gear, *sizes)} for sizes, parts in CUTS]
    vector("good/chunks", "Where files are cut: of parts [kind, number, bytes]", gear_seed=GEAR_SEED,
           gear_hash=H(keyed(GEAR_SEED, b"", 2048)), cases=cases)


# --- What is derived.
def make_derivations():
    rows = []
    def row(name, secret, then, output):
        used.add(f"lifeboat v1 {name}")
        rows.append({"context": f"lifeboat v1 {name}", "secret": secret, "then": then, "output": output})
    for name in ("repository id", "registry key", "index root", "node root", "chunk root"):
        row(name, ROOT, b"", D(name, ROOT))
    for name in ("root signing key", "owner signing key"):
        row(name, ROOT, b"", D(name, ROOT))
    for epoch in (1, 2, 2**32 - 1):
        for name in ("data seed", "metadata seed"):
            row(name, ROOT, struct.pack("<I", epoch), D(name, ROOT + struct.pack("<I", epoch)))
    for name, root in (("index", INDEX_ROOT), ("node", NODE_ROOT), ("chunk", CHUNK_ROOT)):
        for id in (DOMAIN, OTHER_DOMAIN):
            row(f"domain {name} key", root, id, D(f"domain {name} key", root + id))
    row("domain gear", CHUNK_ROOT, DOMAIN, GEAR_SEED)
    row("cache", INDEX_KEY, b"what the cache keeps", keyed(D("cache", INDEX_KEY), b"what the cache keeps"))
    row("index segment", INDEX_KEY, b"", D("index segment", INDEX_KEY))
    for purpose in (b"", b"a purpose"):
        row("frame key commitment", LOW, purpose, commit(LOW, purpose)[1])
    row("frame key", LOW, b"a purpose", gcm(commit(LOW, b"a purpose")[0], 2**40 + 3, b"associated", b"plaintext"))
    row("attested section", b"", directory([HEADER], frames_of(SEAL)), attested(frames_of(SEAL)))
    row("config checksum", b"", config(), json.loads(config())["checksum"].encode())
    seed = 2026
    key = D("drill sample", struct.pack("<Q", seed))
    paths = [b"srv/file%d" % at for at in range(12)]
    drawn = sorted(paths, key=lambda each: int.from_bytes(keyed(key, each, 8), "little"))[:5]
    row("drill sample", struct.pack("<Q", seed), b"\n".join(paths), b"\n".join(each for each in paths if each in drawn))
    vector("good/derivations", "D(context, secret ‖ then), or what is made with it", rows=rows)

    words = mnemonic.Mnemonic("english").to_mnemonic
    vector("good/words", "Recovery words", rows=[{"root": root, "words": words(root)} for root in (ROOT, bytes(32), b"\xff" * 32, LOW)])
    vector("good/ids", "Ids of chunks and nodes, and what decides where nodes are cut", domain=DOMAIN, root=ROOT,
           rows=[{"plain": text, "chunk": chunk_id(text), "node": keyed(NODE_KEY, text)} for text in (b"", b"x", fixed("long", 5000))],
           boundaries=[{"level": level, "path": path, "word": keyed(NODE_KEY, b"\xff" + bytes([level]) + path, 8)}
                       for level, path in ((0, b""), (0, b"srv/a"), (16, b"srv/a"))])
    vector("good/signing", "Ed25519 keys, identities and signatures", rows=[
        {"seed": signer.seed, "public": signer.public, "identity": signer.identity, "message": message, "signature": signer.sign(message)}
        for signer, message in ((OWNER, b""), (BACKUP, b"a message"))])
    info = b"some info"
    context("export")
    vector("good/x-wing", "HPKE with X-Wing: key pairs, and what an encapsulation carries", info=info, rows=[
        {"seed": SEEDS[kind], "public": x_wing_public(kind), "encapsulation": SENT[kind], "secret": PRIVATE[kind].secret(SENT[kind], info)}
        for kind in PRIVATE])


# --- Objects. `opens` names how tests/vectors.rs reads one; what it says must be in what it reads.
def obj(name, about, opens, data, says=(), error=None, exit=5, **fields):
    outcome = {"error": error, "exit": exit} if error else {"says": list(says)}
    vector(f"{'defects' if error else 'good'}/{name}", about, opens=opens, object=data, **fields, **outcome)


def make_objects():
    obj("config", "The config", "config", config(), [REPOSITORY.hex(), "commit_window_seconds: 600", "minimum_grace_seconds: 259200"])
    for kind, (_, key, *_, says) in RECORDS.items():
        obj(kind, f"A record of the kind {kind}", kind, sealed_record(kind), says)
    obj("annotation-hold", "An annotation that is a legal hold", "annotation", sealed_record("annotation", record(HOLD)), ['Hold("case 17")'])
    obj("annotation-lift", "An annotation that lifts one", "annotation", sealed_record("annotation", record(LIFT), signer=OWNER), ["Lift([", H(LOW).hex(), '"closed")'])
    places = {3: [[BACKUP.identity, 9], [BACKUP.identity, 2**64 - 1]], 4: [[[OWNER.identity, 7], H(HEADER)]]}
    obj("forgotten-places", "A record of the kind forgotten that says where the snapshots stood", "forgotten",
        sealed_record("forgotten", record(RECORDS["forgotten"][3] | places)), [BACKUP.identity.hex(), "sequence: 9", f"sequence: {2**64 - 1}", LOW.hex(), OWNER.identity.hex(), "sequence: 7", H(HEADER).hex()])
    obj("snapshot-rewritten", "The record of a copy, which says whose the original was", "snapshot",
        sealed_record("snapshot", open_map(SNAPSHOT | {19: BACKUP.identity})), ["origin: None", BACKUP.identity.hex()])
    obj("snapshot-copy", "The record of a copy, which says of what", "snapshot", sealed_record("snapshot", open_map(SNAPSHOT | {18: [LOW, H(LOW)]})),
        ["origin: Some(Origin", LOW.hex(), H(LOW).hex(), "registry: 7"])
    for kind, (data, says) in NODES.items():
        obj(f"node-{kind}", f"A manifest node: {kind}", "node", data, says)
    frames = frames_of(SEAL)
    obj("index", "An index of one pack", "index", envelope("index", index_of(frames), BACKUP), ["size: 8192", "kind: Data", "counter: 1", "codec: Zstd", chunk_id(b"x").hex()])
    obj("pack-data", "A pack of chunks: two sections, four frames", "pack", *two_sections())
    header, seal = section("metadata", BACKUP, PLACE)
    bodies = [data for data, _ in NODES.values()]
    nodes = [Frame(0, at, seal(at, data), 0, [(keyed(NODE_KEY, data), len(data))]) for at, data in enumerate(bodies)]
    obj("pack-metadata", "A pack of manifest nodes", "pack", pack([header], nodes, BACKUP), [data.hex() for data in bodies])
    obj("certificate", "An exported certificate", "certificate", exported(), ["role: Restore", 'label: "the restore"'])
    obj("report", "A signed report", "report", report_file(), ["all is well"])
    roles = dict(owner=OWNER, backup=BACKUP, audit=AUDIT, maintain=MAINTAIN, restore=RESTORE)
    for role, signer in roles.items():
        data = slot(record(secrets(role, signer)), signer, {"algorithm": "access-key"}, secret=LOW)
        held = {"root": role == "owner", "chunks": role in ("owner", "restore", "backup"), "metadata": role not in ("backup",), "data": role in ("owner", "restore")}
        obj(f"slot-{role}", f"A key slot of the role {role}, opened by an access key", "slot", data,
            [f"role: {role}", f"identity: {signer.identity.hex()}", *(f"{what}: {str(has).lower()}" for what, has in held.items())],
            access_key=access_key(signer, LOW))
    for name, kdf in (("quick", QUICK), ("usual", {"algorithm": "argon2id", "memory_kib": 65536, "passes": 3, "lanes": 4})):
        data = slot(record(secrets("owner", OWNER)), OWNER, kdf)
        obj(f"slot-passphrase-{name}", f"A key slot of the owner, opened by a passphrase: {name} parameters", "slot", data, ["role: owner"], passphrase=PASSPHRASE)


def report_file(text=REPORT, signature=None):
    signature = signature or report_signature()
    return b'{"lifeboat_report":\n%s\n,"verifying_key":"%s","signature":"%s"}\n' % (text.encode(), RESTORE.public.hex().encode(), signature.hex().encode())


def two_sections():
    """As prune makes them: sections of two authors in one pack of a third."""
    headers, frames = [], []
    for at, signer in enumerate((BACKUP, OWNER)):
        header, seal = section("data", signer, PLACE, at)
        headers.append(header)
        frames += frames_of(seal, at)
    plain = [TEXTS[0], b"x", TEXTS[2]]
    return pack(headers, frames, MAINTAIN), [data.hex() for data in plain * 2]
