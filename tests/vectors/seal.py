"""Keys, envelopes, packs, slots: how docs/format.md makes each, with room for one defect."""
import base64, json, struct, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import argon2.low_level as argon2, cbor2, mnemonic, zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import decoder
from decoder import H, KIB, MIB, need, public

HERE = Path(__file__).resolve().parent
KINDS = dict(registry=1, directory=2, index=3, snapshot=4, run=5, attestation=6, annotation=7, forgotten=8, tombstones=9, quarantine=10, evidence=11)
used, made = set(), {}


def context(name):
    used.add(f"lifeboat v1 {name}")
    return f"lifeboat v1 {name}".encode()


def D(name, data):
    return blake3(data, derive_key_context=context(name).decode()).digest()


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length)


def fixed(name, length=32):
    """What chance gives a real writer."""
    return blake3(b"lifeboat test vectors: " + name.encode()).digest(length)


def vector(name, about, **fields):
    """Takes the contexts that were used since the last one."""
    plain = lambda value: value.hex() if isinstance(value, bytes) else value
    deep = lambda value: ({key: deep(item) for key, item in value.items()} if isinstance(value, dict) else
                          [deep(item) for item in value] if isinstance(value, list) else plain(value))
    need(name not in made, f"{name} is there twice")
    made[name] = {"about": about, "contexts": sorted(used), **deep(fields)}
    used.clear()


# --- The keys of the repository that all vectors are of.
ROOT, DOMAIN, OTHER_DOMAIN, EPOCH = bytes(range(32)), bytes.fromhex("d0d1d2d3d4d5d6d7"), bytes.fromhex("e0e1e2e3e4e5e6e7"), 1
REPOSITORY = D("repository id", ROOT)
REGISTRY_KEY, INDEX_ROOT, NODE_ROOT, CHUNK_ROOT = (D(f"{name}", ROOT) for name in ("registry key", "index root", "node root", "chunk root"))
INDEX_KEY, NODE_KEY = D("domain index key", INDEX_ROOT + DOMAIN), D("domain node key", NODE_ROOT + DOMAIN)
CHUNK_KEY, GEAR_SEED = D("domain chunk key", CHUNK_ROOT + DOMAIN), D("domain gear", CHUNK_ROOT + DOMAIN)
SEEDS = {kind: D(f"{kind} seed", ROOT + struct.pack("<I", EPOCH)) for kind in ("data", "metadata")}
PRIVATE = {kind: decoder.PrivateKey(seed) for kind, seed in SEEDS.items()}
LOW, TIME, PAST = fixed("any id"), [1_700_000_000, 5], [-1, 999_999_999]


class Signer:
    def __init__(self, seed):
        self.seed, self.private = seed, ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self.public = public(self.private)
        self.identity = H(self.public)[:16]

    def sign(self, message):
        return self.private.sign(message)


ROOT_SIGNER, OWNER = Signer(D("root signing key", ROOT)), Signer(D("owner signing key", ROOT))
BACKUP, AUDIT, MAINTAIN, RESTORE, FOREIGN, STRANGER = (
    Signer(fixed(f"the key of {name}")) for name in ("backup", "audit", "maintain", "restore", "a machine of another domain", "a stranger"))


def x_wing_public(kind):
    return PRIVATE[kind].lattice.public_key().public_bytes_raw() + public(PRIVATE[kind].curve)


def encapsulations():
    """One to each key, made once. What they carry depends on the HPKE info too, so one serves for many objects."""
    file = HERE / "encapsulations.json"
    if not file.exists():
        ephemeral = public(x25519.X25519PrivateKey.from_private_bytes(fixed("ephemeral")))
        sent = {kind: (PRIVATE[kind].lattice.public_key().encapsulate()[1] + ephemeral).hex() for kind in PRIVATE}
        file.write_text(json.dumps(sent, indent=1) + "\n")
    return {kind: bytes.fromhex(sent) for kind, sent in json.loads(file.read_text()).items()}


SENT = encapsulations()


# --- CBOR and numbers.
def record(fields):
    return cbor2.dumps(fields)


def open_map(fields):
    return b"\xbf" + b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items()) + b"\xff"


def num(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + num(value >> 7)


def counted(data):
    return num(len(data)) + data


# --- Sealing.
def commit(secret, purpose):
    return D("frame key", secret + purpose), D("frame key commitment", secret + purpose)


def gcm(key, counter, aad, plain):
    return AESGCM(key).encrypt(struct.pack("<4xQ", counter), plain, aad)


def flip(data, at=0):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:] if at >= 0 else flip(data, len(data) + at)


def envelope(kind, plain, signer, sequence=0, key=INDEX_KEY, domain=DOMAIN, repository=REPOSITORY, **other):
    """With key None sealed to the metadata key. `other` is a defect: what stands in the place of a field, or changes it
    after the sealing and before the signing."""
    sealing, epoch = (1, 0) if key else (2, EPOCH)
    place = context("record") + repository + domain
    prefix = other.get("magic", b"LFBT") + bytes([other.get("version", 1), other.get("suite", 1), other.get("code", KINDS.get(kind))])
    prefix += bytes([other.get("sealing", sealing)]) + other.get("author", signer.public)
    prefix += struct.pack("<QI", sequence, other.get("epoch", epoch)) + fixed(f"salt of a {kind}")
    secret = key or PRIVATE["metadata"].secret(SENT["metadata"], place + prefix)
    if not key:
        context("export")
    body = b"" if key else SENT["metadata"]
    frame_key, commitment = commit(secret, place + prefix)
    sealed = gcm(frame_key, 0, place + prefix, plain)
    change = other.get("change", lambda prefix, body, commitment, sealed: (prefix, body, commitment, sealed))
    prefix, body, commitment, sealed = change(prefix, body, commitment, sealed)
    signed = prefix + body + commitment + struct.pack("<I", other.get("length", len(sealed))) + sealed
    return signed + other.get("signing", signer.sign)(place + signed) + other.get("after", b"")


def section(kind, signer, place, number=0):
    """The header of a section, its key, and how its frames are sealed."""
    letter, code = (b"d", 1) if kind == "data" else (b"m", 2)
    info, salt, epoch = context("section") + place, fixed(f"salt of section {number} for {kind}"), struct.pack("<I", EPOCH)
    context("export")
    key, commitment = commit(PRIVATE[kind].secret(SENT[kind], info), info + letter + signer.identity + epoch + salt)
    header = bytes([1, code]) + signer.identity + epoch + salt + SENT[kind] + commitment
    aad = lambda counter: context("frame") + place + H(header) + struct.pack("<I", counter)
    return header, lambda counter, stored: gcm(key, counter, aad(counter), stored)


class Frame:
    def __init__(self, at, counter, sealed, codec, blobs, **other):
        self.section, self.counter, self.sealed, self.codec, self.blobs = at, counter, sealed, codec, blobs
        self.offset, self.length, self.hash = 0, len(sealed), other.get("hash", H(sealed))

    def listed(self):
        numbers = b"".join(map(num, (self.section, self.counter, self.offset, self.length)))
        return numbers + bytes([self.codec]) + self.hash + num(len(self.blobs)) + b"".join(id + num(size) for id, size in self.blobs)


def directory(headers, frames):
    return num(len(headers)) + b"".join(headers) + num(len(frames)) + b"".join(frame.listed() for frame in frames)


def pack(headers, frames, signer, **other):
    used_bytes = sum(map(len, headers))
    for frame in frames:
        frame.offset, used_bytes = used_bytes, used_bytes + len(frame.sealed)
    listed = envelope("directory", other.get("listing", directory(headers, frames)), signer)
    size = used_bytes + len(listed) + 16
    unit = 64 * KIB if size > MIB else 4 * KIB
    padding = fixed("padding", -size % unit)
    trailer = other.get("trailer", b"LFBP\x01\0\0\0") + struct.pack("<II", used_bytes + len(padding) + other.get("later", 0), len(listed))
    return b"".join(headers) + b"".join(frame.sealed for frame in frames) + padding + listed + trailer


PLACE = REPOSITORY + DOMAIN
TEXTS = [b"the first chunk", b"", b"the same again and again. " * 40]


def chunk_id(data):
    return keyed(CHUNK_KEY, data)


def frames_of(seal, at=0):
    """Two frames of one section: one as it is with two chunks, one compressed."""
    packed = zstandard.ZstdCompressor(3).compress(TEXTS[2])
    first = b"".join(TEXTS[:2]) + b"x"
    return [Frame(at, 0, seal(0, first), 0, [(chunk_id(TEXTS[0]), 15), (chunk_id(b"x"), 1)]),
            Frame(at, 1, seal(1, packed), 1, [(chunk_id(TEXTS[2]), len(TEXTS[2]))])]


# --- JSON objects with a checksum over all but its own digits.
def checked(purpose, fields):
    text = lambda digits: (json.dumps({**fields, "checksum": digits}, indent=2) + "\n").encode()
    return text(D(purpose, text("")).hex())


def config(**other):
    return checked("config checksum", {
        "about": "A lifeboat backup repository. Keep every object here as it is.", "format": 1,
        "repository_id": REPOSITORY.hex(), "root_public_key": ROOT_SIGNER.public.hex(), "commit_window_seconds": 600,
        "minimum_grace_seconds": 259200, **other})


def secrets(role, signer):
    """What a slot of the role holds."""
    fields = {0: role, 1: REPOSITORY, 2: ROOT_SIGNER.public, 3: signer.seed, 4: REGISTRY_KEY}
    if role == "owner":
        fields[5] = ROOT
    elif role == "backup":
        fields[9] = {0: DOMAIN, 1: INDEX_KEY, 2: NODE_KEY, 3: CHUNK_KEY, 4: GEAR_SEED}
    else:
        fields |= {6: INDEX_ROOT, 7: NODE_ROOT} | ({8: CHUNK_ROOT} if role == "restore" else {})
    epochs = {} if role in ("owner", "backup") else {0: EPOCH, 1: SEEDS["metadata"]} | ({2: SEEDS["data"]} if role == "restore" else {})
    return fields | {10: [epochs] if epochs else []}


QUICK = {"algorithm": "argon2id", "memory_kib": 64, "passes": 1, "lanes": 1}
PASSPHRASE = "correct horse, bättery staple"


def stretch(passphrase, salt, kdf):
    return argon2.hash_secret_raw(passphrase.encode(), salt, kdf["passes"], kdf["memory_kib"], kdf["lanes"], 32, argon2.Type.ID, 0x13)


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def slot(plain, signer, kdf, secret=None, **other):
    """`other` is a defect of the JSON; `seal` takes the sealing over."""
    name, salt = f"{signer.identity.hex()}-00000000", fixed("salt of a slot")
    secret = secret or stretch(PASSPHRASE, salt, kdf)
    purpose = context("key slot") + name.encode() + salt
    key, commitment = commit(secret, purpose)
    seal = other.pop("seal", lambda key, purpose, commitment: (gcm(key, 0, purpose, plain), commitment))
    sealed, commitment = seal(key, purpose, commitment)
    return checked("key slot checksum", {
        "lifeboat_key_slot": 1, "name": name, "kdf": kdf, "salt": salt.hex(), "commitment": commitment.hex(),
        "sealed": base64url(sealed), **other})


def access_key(signer, secret, check=None):
    text = f"{signer.identity.hex()}-00000000:{base64url(secret)}"
    return f"lifeboat-access-1:{text}:{check or D('access key checksum', text.encode())[:4].hex()}"


# --- A ciphertext that AES-GCM opens under two keys: its tag is linear in the blocks.
def times(a, b):
    """In GCM's field: bits count from the left."""
    product = 0
    for bit in range(127, -1, -1):
        product ^= a if b >> bit & 1 else 0
        a = a >> 1 ^ (0xE1 << 120 if a & 1 else 0)
    return product


def inverse(a):
    result, exponent = 1 << 127, 2**128 - 2
    while exponent:
        result, a, exponent = times(result, a) if exponent & 1 else result, times(a, a), exponent >> 1
    return result


def salamander(keys, aad, sealed):
    """The ciphertext `sealed` (of whole blocks) with one more block and a tag that is right under both keys."""
    blocks = lambda data: [data[at:at + 16].ljust(16, b"\0") for at in range(0, len(data), 16)]
    block = lambda key, data: int.from_bytes(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data), "big")
    lengths = struct.pack(">QQ", len(aad) * 8, (len(sealed) + 16) * 8)
    rest, factors = 0, 0
    for key in keys:
        h, total = block(key, bytes(16)), 0
        for piece in [*blocks(aad), *blocks(sealed), bytes(16), lengths]:
            total = times(total ^ int.from_bytes(piece, "big"), h)
        rest ^= total ^ block(key, bytes(12) + b"\0\0\0\x01")
        factors ^= times(h, h)
    sealed += times(rest, inverse(factors)).to_bytes(16, "big")
    tag = AESGCM(keys[0]).encrypt(bytes(12), Cipher(algorithms.AES(keys[0]), modes.CTR(bytes(15) + b"\x02")).decryptor().update(sealed), aad)[-16:]
    return sealed + tag


def two_faced(plain, committed):
    """Opens under two passphrases, as far as AES-GCM goes. Commits to the first of them (0) or to the second."""
    def seal(key, purpose, commitment):
        second, its_commitment = commit(stretch("another", fixed("salt of a slot"), QUICK), purpose)
        # A field that nobody knows takes the block that comes out as it may; another one fills up what is before it.
        bodies = (record(plain | {98: bytes(filler), 99: bytes(16)})[:-16] for filler in range(16))
        body = next(body for body in bodies if len(body) % 16 == 0)
        sealed = salamander([key, second], purpose, gcm(key, 0, purpose, body)[:-16])
        opened = [AESGCM(each).decrypt(bytes(12), sealed, purpose) for each in (key, second)]
        need(opened[0].startswith(body) and opened[1] != opened[0], "it does not open under two keys")
        return sealed, (commitment, its_commitment)[committed]
    return seal
