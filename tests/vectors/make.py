#!/usr/bin/env python3
"""Known answers for tests/vectors.rs, computed from docs/format.md and without a line of lifeboat's own code.

    make.py           writes the vectors of this folder
    make.py --check   they are what this program would write; tests/decoder.py reads each good one and refuses each other

`good/` has inputs with the exact outputs, or an object with what it must open to; `defects/` has one defect a file, with
the error that it must end in. `contexts` of a file are those that its making took: each of the page stands in one of them.
The numbers that chance gives a writer are fixed here. Only the X-Wing encapsulations cannot be made again, since their
randomness is inside the library: `encapsulations.json` keeps them. Needs the packages in tests/decoder.txt.
"""
from defects import *

# --- Reading them with the decoder.
READ = {1: REGISTRY_KEY, **{code: INDEX_KEY for code in (2, 3, 6, 8, 9, 10)}, **{code: None for code in (4, 5, 7, 11)}}
CERTIFICATES = {signer.identity: (signer.public, role, of) for signer, role, of in CERTIFIED}
# What decoder.py does not look at: it is for one who wants files back, and has the words or a whole restore key.
NOT_OF_THE_DECODER = {
    "slot-backup", "slot-audit", "slot-maintain", "certificate", "report", "access-key", "words", "evidence-report", "forgotten-reason", "quarantine-name", "config-times",
    "config-foreign", "registry-weak-key", "registry-twice", "registry-domain-twice", "registry-role", "registry-chunks",
    "registry-chunk-order", "registry-times", "slot-role", "slot-field", "tombstones-twice",
    "tombstones-order", "tombstones-deep", "snapshot-closed", "node-chunk", "node-kind", "node-fields", "node-hole", "node-holes"}


def decode(name, fields):
    """With the parts of decoder.py, as Repository there puts them together."""
    data, opens = bytes.fromhex(fields["object"]), fields["opens"]
    private = lambda epoch: {EPOCH: PRIVATE["metadata"]}[epoch]
    def opened(kind, key):
        envelope = decoder.Envelope(data, kind, REPOSITORY, of_domain(opens))
        known = (ROOT_SIGNER.public, "root", None) if kind == 1 else CERTIFICATES[envelope.author]
        need(known[0] == envelope.public and (known[1] != "backup" or known[2] == DOMAIN), "its author may not write it")
        return envelope.open(key) if key else envelope.open(private=private)
    if opens == "config":
        need(decoder.checked(data, "config")["format"] == 1, "it is of another format")
    elif opens == "slot":
        text = fields.get("access_key", "::").split(":")[2]
        opened_slot = decoder.open_slot(data, passphrase=fields.get("passphrase", "").encode() or None, access=decoder.unbase64(text) if text else None)
        need(json.loads(data)["name"] == f"{(Signer(secrets_seed(name))).identity.hex()}-00000000", "it is that of another name")
        need(opened_slot.repository == REPOSITORY, "it is of another repository")
    elif opens == "node":
        decoder.node(data)
    elif opens == "index":
        fields_of = decoder.Reader(opened(3, INDEX_KEY))
        reader = object.__new__(decoder.Repository)
        reader.places, reader.certificates = {}, {BACKUP.identity: (0, 0, "backup")}
        decoder.Repository.load_index(reader, DOMAIN, name, decoder.Envelope(data, 3, REPOSITORY, DOMAIN), fields_of)
    elif opens == "pack":
        decode_pack(data)
    elif opens in KINDS:
        value = decoder.cbor(opened(KINDS[opens], READ[KINDS[opens]]))
        decode_record(opens, value)


def secrets_seed(name):
    role = name.split("/")[1].split("-")[1]
    return dict(backup=BACKUP, audit=AUDIT, maintain=MAINTAIN, restore=RESTORE).get(role, OWNER).seed


def decode_record(kind, value):
    if kind == "registry":
        need(value[0] == 2 and not value[2][0], "it needs a feature")
        need(all(H(entry[1])[:16] == entry[0] for entry in value[5]), "an identity is not that of its key")
    if kind == "snapshot":
        need({2, *range(4, 18)} <= set(value) and value[17] <= 16 and len(value[10]) == 6, "a field is missing")
        need(len(value.get(18, "--")) == 2, "an origin has two ids")
    if kind == "annotation":
        tags, holds = {2, 3, 4} & set(value), {5, 6} & set(value)
        need(not (tags and holds) and holds != {6} and value[0][0] <= 253402300799, "it says more than one thing, or too late")
        need(all(len(tag.encode()) <= 256 for key in tags for tag in value[key]), "a tag is too long")
    if kind == "tombstones":
        need(len(value[0]) == 2 and all(len(id) == 32 for id in value[1]), "a field is wrong")


def decode_pack(data):
    magic, at, length = struct.unpack("<8sII", data[-16:])
    need(magic == b"LFBP\x01\0\0\0" and at + length == len(data) - 16, "it does not end as a pack does")
    listed = decoder.Envelope(data[at:at + length], 2, REPOSITORY, DOMAIN)
    need(listed.author in CERTIFICATES, "its author may not write it")
    fields = decoder.Reader(listed.open(INDEX_KEY))
    frames = decoder.directory(fields)
    fields.end()
    reader = object.__new__(decoder.Repository)
    reader.id, reader.secrets = REPOSITORY, decoder.Secrets({1: REPOSITORY, 2: 0, 4: 0, 5: ROOT})
    for header, counter, offset, length, codec, digest, blobs in frames:
        need(header[0] == 1 and header[1] in (1, 2), "its suite or kind is unknown")
        sealed = data[offset:offset + length]
        need(H(sealed) == digest, "a frame is damaged")
        aad = b"lifeboat v1 frame" + PLACE + H(header) + struct.pack("<I", counter)
        plain = decoder.decrypt(decoder.Repository.section_key(reader, DOMAIN, header), counter, aad, sealed)
        total = sum(size for _, size in blobs)
        plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=total) if codec else plain
        need(len(plain) == total, "a frame has another length")
        for id, size in blobs:
            need(keyed(CHUNK_KEY if header[1] == 1 else NODE_KEY, plain[:size]) == id, "its content is not what its id names")
            plain = plain[size:]


def check_with_decoder():
    counted_files = {"good": 0, "defects": 0}
    for name, fields in made.items():
        folder, short = name.split("/")
        if "object" not in fields or any(short == each or short.startswith(each + "-") for each in NOT_OF_THE_DECODER):
            continue
        try:
            decode(name, fields)
            reason = None
        except Exception as error:
            reason = error
        need((reason is None) == (folder == "good"), f"decoder.py and {name}: {reason!r}")
        counted_files[folder] += 1
    print(f"ok decoder.py reads {counted_files['good']} good vectors and refuses {counted_files['defects']} others")


def main(check=None):
    used.clear()
    make_chunks()
    make_derivations()
    make_objects()
    make_defects()
    texts = {f"{name}.json": json.dumps(fields, indent=1, ensure_ascii=False) + "\n" for name, fields in made.items()}
    if check is None:
        for name, text in texts.items():
            (HERE / name).parent.mkdir(exist_ok=True)
            (HERE / name).write_text(text)
    kept = {str(file.relative_to(HERE)): file.read_text() for file in HERE.glob("*/*.json")}
    differing = sorted(name for name in {*texts, *kept} if texts.get(name) != kept.get(name))
    need(not differing, f"these are not what make.py writes: {differing}")
    print(f"ok {len(texts)} vectors")
    check_with_decoder()


if __name__ == "__main__":
    need(sys.argv[1:] in ([], ["--check"]), __doc__)
    main(*sys.argv[1:])
