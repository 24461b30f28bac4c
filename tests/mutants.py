#!/usr/bin/env python3
"""Switches the checks of the engine off, one at a time, and sees that a test notices.

    tests/mutants.py            runs all, prints a table for docs/decisions/0013
    tests/mutants.py WORD..     only those whose name holds one of the words
    tests/mutants.py --check    that each text to change is still there exactly once, and that cargo takes the copy for a project

A mutant is built in a copy of the sources, with the dependencies that the project has built already. It counts as
noticed when its test fails, not when it does not compile.
"""
import os, re, shutil, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
COPY = TARGET / "mutants"
SECONDS = 900

# What is switched off: file, old text, new text, the test that must go red (binary, or `lib`, and a filter).
MUTANTS = [
    ("hash of a frame's ciphertext", "src/repository/section.rs",
     "if blake3::hash(sealed).as_bytes() == &frame.hash {", "if frame.hash.len() == 32 {", "forged garbage"),
    ("id of a chunk, in a restore", "src/ops/restore/work.rs",
     "good.filter(|bytes| self.job.key.id(bytes) == piece.chunk.id)", "good", "forged garbage"),
    ("id of a chunk or node, in `check`", "src/ops/frames.rs", "if id != blob.id {", "if id != id {", "forged garbage"),
    ("id of a manifest node", "src/repository/reader.rs",
     "if self.key.id(wanted) != *id {", "if wanted.len() > usize::MAX / 2 {", "forged a_manifest_node"),
    ("signatures", "src/format/envelope.rs",
     "key.verify(&[&self.place[..], self.signed].concat(), &self.signature)",
     "{ key.verify(&[&self.place[..], self.signed].concat(), &self.signature).or(Ok(())) }", "forged a_signature"),
    ("commitment of a record", "src/format/envelope.rs", "if commitment != self.commitment {",
     "if commitment.len() != self.commitment.len() {", "lib envelope"),
    ("commitment of a section", "src/repository/section.rs", "if expected != *commitment {",
     "if expected.len() != commitment.len() {", "lib section"),
    ("commitment of a slot", "src/format/slot.rs", "if to_hex(&commitment) != self.commitment {",
     "if to_hex(&commitment).len() != self.commitment.len() {", "lib slot"),
    ("hash in the name of what is read", "src/store/mod.rs", "if blake3::hash(&bytes).as_bytes() == hash {",
     "if hash.len() == 32 {", "forged under_the_hash"),
    ("hash in a name, in `check`", "src/ops/check/objects.rs",
     "if !name.as_str().ends_with(blake3::hash(bytes).to_hex().as_str()) {", "if name.as_str().is_empty() {",
     "damage whatever_is_damaged"),
    ("hash in the name of a pack, in `check`", "src/ops/check/packs.rs",
     "let is_other = blake3::hash(&bytes).as_bytes() != pack.id.as_bytes();", "let is_other = bytes.len() > usize::MAX / 2;",
     "damage whatever_is_damaged"),
    ("directory of a pack against the index", "src/ops/check/packs.rs", "if listed.kind != pack.kind || self.listing(&pack.name, listed)? != *own {",
     "if listed.kind != pack.kind || self.listing(&pack.name, listed)? != *own && own.sections.len() > 999 {", "forged an_index_that_says"),
    ("LIST before the commit", "src/repository/commit.rs",
     "if missing.is_empty() { Validation::Complete }", "if missing.is_empty() || reached.len() < 9999 { Validation::Complete }",
     "crash a_put_that_was_cut"),
    ("size of an index object after the write", "src/repository/view.rs", "if self.is_cut_short(&id, listed.size) {",
     "if self.is_cut_short(&id, listed.size) && listed.size > 1 << 40 {", "crash a_put_that_was_cut"),
    ("size of a snapshot after the write", "src/repository/commit.rs", "if self.is_cut_short(&id, listed.size) {",
     "if self.is_cut_short(&id, listed.size) && listed.size > 1 << 40 {", "crash a_put_that_was_cut"),
    ("read-back of registries and records", "src/store/create.rs", "Ok(()) if !name.is_read_back() =>",
     "Ok(()) if !name.is_read_back() || round < 99 =>", "crash a_put_that_was_cut"),
    ("place of a snapshot in its chain", "src/repository/snapshots.rs",
     "if envelope.author() != name.identity || envelope.sequence() != name.sequence {",
     "if envelope.author() != name.identity && envelope.sequence() > 9999 {", "forged a_snapshot_counts"),
    ("links of a chain", "src/repository/snapshots.rs",
     'Some(format!("the snapshot before it, {id}, is gone and nobody forgot it"))', "None",
     "damage whatever_is_damaged"),
    ("checksum of a slot", "src/format/slot.rs", "if slot.checksum == checksum(CHECKSUM, bytes, &slot.checksum) {",
     "if checksum(CHECKSUM, bytes, &slot.checksum).len() == 64 {", "damage whatever_is_damaged"),
    ("checksum of `config`", "src/format/config.rs", "if text.checksum != checksum(CHECKSUM, bytes, &text.checksum) {",
     "if checksum(CHECKSUM, bytes, &text.checksum).is_empty() {", "lib config"),
    ("objects that are no packs, in `check`", "src/ops/check/objects.rs",
     "Looked::Damaged(..) => once(),", "Looked::Damaged(..) => Ok(Looked::Gone),", "damage whatever_is_damaged"),
    ("slots of another repository are passed over", "src/repository/unlock.rs",
     "to nothing of this one.\n                Ok(Some(secrets)) if secrets.root_public_key() == config.root_public_key => {",
     "\n                Ok(Some(secrets)) if !secrets.root_public_key().is_empty() => {", "init a_slot_of_another"),
    ("features of the newest registry", "src/repository/mod.rs", "newest.registry.check_features(Use::Read)?;", "",
     "repository"),
    # A hostile client.
    ("parts of a path", "src/format/node.rs",
     '!part.is_empty() && part != b"." && part != b".." && !part.contains(&0)', "part.len() < 100_000", "hostile names_that_no"),
    ("order of paths in a node", "src/format/node.rs",
     "if !last.is_empty() && compare_paths(last, &path).is_ge() {",
     "if !last.is_empty() && compare_paths(last, &path).is_ge() && path.len() > 1 << 20 {", "hostile names_that_no"),
    ("a node begins behind the one before", "src/repository/manifest.rs",
     "if !is_first && compare_paths(&child.first, &self.reached).is_le() {", "if !is_first && child.first.is_empty() {",
     "lib manifest"),
    ("a node begins where its branch says", "src/repository/manifest.rs",
     "if !is_root && first.is_some_and(|first| *first != child.first) {",
     "if !is_root && first.is_some_and(|first| first.is_empty()) {", "hostile_objects a_manifest_that_repeats"),
    ("levels of branches fall", "src/repository/manifest.rs", "Node::Branch(level, children) if *level < above => (",
     "Node::Branch(level, children) if *level <= above => (", "hostile_objects a_manifest_that_cannot"),
    ("level of a node", "src/format/node.rs", "if level == 0 || level > limits::TREE_LEVELS_MAX {\n        return Err(reader",
     "if level == 0 {\n        return Err(reader", "hostile_objects a_manifest_that_cannot"),
    ("levels of lists fall", "src/repository/content.rs", "Node::Lists(level, children) if *level < above => {",
     "Node::Lists(level, children) if *level <= above.max(16) => {", "hostile_objects lists_that_lie"),
    ("sums of lists", "src/repository/content.rs",
     "if found.0 == 0 || found.0 != chunks || bytes.is_some_and(|bytes| bytes != found.1) {",
     "if found.0 == 0 && bytes.is_some_and(|bytes| bytes != found.1) {", "hostile_objects lists_that_lie"),
    ("content beyond the size of a file", "src/ops/restore/planner.rs", "if begin > size || at.large.is_given_up() {",
     "if at.large.is_given_up() && begin > size {", "hostile_objects lists_that_lie"),
    ("content shorter than a file", "src/ops/restore/work.rs", "if length < whole {", "if length > whole {",
     "hostile_objects lists_that_lie"),
    ("length of what is decompressed", "src/compress.rs", "if plain.len() == length {", "if plain.len() <= length {",
     "hostile_objects a_frame_that"),
    ("one zstd frame", "src/compress.rs", "Codec::Zstd if !is_one_frame(&stored) => {",
     "Codec::Zstd if stored.is_empty() => {", "hostile_objects a_frame_that"),
    ("a frame lies in its pack", "src/format/pack.rs",
     "self.frames.iter().all(inside) && self.sections",
     "self.frames.iter().all(inside) || self.sections",
     "hostile_objects a_directory_that"),
    ("bytes of a frame's plaintext", "src/format/pack.rs", "|| plain > limits::FRAME_BYTES_MAX as u64 {", "{",
     "hostile_objects a_directory_that"),
    ("no link is followed, by its path", "src/filesystem/trail.rs",
     "ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);",
     "ResolveFlags::NO_MAGICLINKS;", "hostile nothing_is_written"),
    ("no link is followed, while it is planted", "src/filesystem/trail.rs",
     "ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);",
     "ResolveFlags::NO_MAGICLINKS;", "hostile a_folder_that_becomes"),
    ("setuid is not given to another owner", "src/filesystem/metadata.rs", "mode &= !lost;", "mode &= 0o7777;",
     "hostile devices"),
    ("what a folder gives to new files does not stay", "src/filesystem/metadata.rs", "&|| way.remove(name)) {",
     "&|| Ok(())) {", "fidelity what_a_folder_gives"),
    ("a hole that was written to", "src/ops/verify/content.rs", "Ok(Some(Piece { range, is_zeros: false })) => self.add(range),",
     "Ok(Some(Piece { range: _, is_zeros: false })) => {}", "fidelity of_a_sparse"),
    ("attributes that have changed", "src/ops/backup/parent.rs", "then.ctime == now.ctime && now.ctime.seconds",
     "now.ctime.seconds", "fidelity attributes_are_taken"),
    ("kind of a further name", "src/ops/links.rs", ", *kind as u64];", "];", "hostile further_names"),
    ("other names of a file that is changed", "src/filesystem/old.rs", "self.links == 1 && !self.covered && owner && group && wider == 0",
     "!self.covered && owner && group && wider == 0", "restoring what_has_a_name_outside"),
    ("who could open a file that is changed", "src/filesystem/old.rs", "self.links == 1 && !self.covered && owner && group && wider == 0",
     "self.links == 1 && !self.covered && owner && group", "restoring what_is_there_already"),
    ("name of a file that is half new", "src/filesystem/old.rs", "        if own {\n            let rename",
     "        if own && found.size == 0 {\n            let rename", "lib filesystem::old"),
    ("file that a killed restore has begun", "src/ops/restore/existing.rs", "if stays && !found.is_begun(then, &self.job.options.ownership) {", "if stays {",
     "restoring what_a_killed_restore"),
    ("chunks of a large file that is there", "src/ops/restore/existing.rs",
     "key.id(&self.buffer) == chunk.id\n", "key.id(&self.buffer).as_bytes().len() == 32\n", "restoring a_large_file"),
    ("holes of a file that is there", "src/ops/restore/existing.rs", "Self { is_right: to_fill == wanted, to_fill }",
     "Self { is_right: true, to_fill }", "fidelity a_sparse_file_gets"),
    ("what was in the holes of a file that is there", "src/filesystem/old.rs", ".emptied(&metadata.holes, found.size)",
     ".emptied(&[], found.size)", "fidelity a_sparse_file_gets"),
    ("attributes of a file of several names", "src/filesystem/old.rs",
     "fd.is_some_and(|fd| attributes::are_as(fd.as_fd(), metadata))", "fd.is_some()", "fidelity what_is_there_gets"),
    ("who is let in by an ACL", "src/filesystem/old.rs", "attributes::may_become(fd.as_fd(), found.mode, metadata) &&", "",
     "fidelity who_may_read"),
    ("what is frozen in the way", "src/ops/restore/existing.rs",
     "            self.let_change((&entry.path, below), &found, self.job.may_thaw(entry))?;\n", "",
     "fidelity everything_comes_back_over"),
    ("chunks of a small file that is there", "src/ops/restore/existing.rs",
     "bytes.get(begin..end).is_some_and(|bytes| self.job.key.id(bytes) == chunk.id)",
     "bytes.get(begin..end).is_some_and(|bytes| !bytes.is_empty())", "restoring each_policy"),
    ("what is left alone is not linked to", "src/ops/restore/work.rs",
     "            lock(&self.left).insert(entry.path.clone());\n        }\n        self.done().left += 1;",
     "        }\n        self.done().left += 1;", "restoring further_names"),
    ("folders of what could not be restored", "src/ops/restore/clear.rs",
     "let (job, all_stays) = (self.job, self.has_failed(&ended.folder));",
     "let (job, all_stays) = (self.job, self.has_failed(&ended.folder) && self.known > usize::MAX / 2);", "restoring nothing_is_removed"),
    ("parts of a manifest that are lost, in --delete", "src/ops/restore/clear.rs", "self.besides.doubt();", "self.known += 0;",
     "restoring nothing_is_removed"),
    ("parts of a manifest that are lost, in verify", "src/ops/verify/mod.rs", "extras.doubt();", "",
     "compare entries_that_are_lost"),
    ("folders above a source, in --delete", "src/ops/besides.rs",
     "            && !self.snapshot.leads_to_a_source(&entry.path)\n", "", "restoring delete_removes"),
    ("the repository, in --delete", "src/filesystem/remove.rs", "|| self.never.has(&found) ||", "||", "restoring the_repository"),
    ("all that there is of a file, in --delete", "src/ops/besides.rs", "_ if is_unfinished(name) =>",
     "_ if name.is_empty() =>", "restoring delete_removes"),
    ("parts of a manifest that are lost, in diff", "src/ops/diff.rs",
     "if unknown || !self.is_meant(&entry) {", "if (unknown && !removed && removed) || !self.is_meant(&entry) {",
     "compare what_is_lost"),
    ("what is shown", "src/report/text.rs", "if character.is_control() || misleads {",
     "if character.is_control() && misleads {", "hostile_program every_command"),
]


def places(file, old):
    return (ROOT / file).read_text().count(old)


def check():
    wrong = [f"{name}: {places(file, old)} times in {file}" for name, file, old, *_ in MUTANTS if places(file, old) != 1]
    copy()
    # In a copy that lacks a folder nothing is built: a test that does not exist is not even looked for.
    asked = subprocess.run(["cargo", "test", "--locked", "--test", "nothing"], cwd=COPY, capture_output=True, text=True)
    if "no test target named" not in asked.stderr:
        wrong.append(asked.stderr)
    print("\n".join(wrong) or f"each of the {len(MUTANTS)} texts is there once")
    return 1 if wrong else 0


def copy():
    COPY.mkdir(parents=True, exist_ok=True)
    for entry in COPY.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("src", "tests", "benches", "fuzz", "docs"):
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("target"))
    for name in ("Cargo.toml", "Cargo.lock", "README.md"):
        shutil.copy2(ROOT / name, COPY / name)


def run(test):
    """What became of a test: `red` with the number of failures, `green`, or why it did not run."""
    binary, *words = test.split()
    which = ["--lib"] if binary == "lib" else ["--test", binary]
    command = ["cargo", "test", "--locked", "--quiet", *which, "--", *words]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_INCREMENTAL": "0", "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "red (it never ends)"
    result = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", done.stdout)
    if not result:
        # A panic of the whole process, or no program at all.
        if "process didn't exit" in done.stderr:
            return "red (it ends the process)"
        print(done.stderr[-2000:], file=sys.stderr)
        return "NOT BUILT"
    passed, failed = map(int, result.groups())
    cells = re.search(r"(\d+) of \d+ cells", done.stdout)
    if failed:
        return f"red ({cells[1]} cells)" if cells else f"red ({failed})"
    return "GREEN" if passed else "NO SUCH TEST"


def main(words):
    if words == ["--check"]:
        return check()
    if check():
        return 1
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant[0] for word in words)]
    unnoticed = []
    print("| switched off | test | result |\n|---|---|---|")
    for name, file, old, new, test in chosen:
        begun, original = time.monotonic(), (ROOT / file).read_text()
        (COPY / file).write_text(original.replace(old, new))
        result = run(test)
        (COPY / file).write_text(original)
        print(f"| {name} | `{test}` | {result} |", flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if not result.startswith("red"):
            unnoticed.append(name)
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} are noticed; not: {', '.join(unnoticed) or 'none'}")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
