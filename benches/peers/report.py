"""What the runs say: medians, ratios, goals, and where lifeboat is behind."""
import statistics

OURS = "lifeboat"
MEASURES = ["wall", "synced", "cpu", "peak", "stored", "grown"]
# At most this much of what restic takes.
GOALS = {
    "linux": {
        "first": {"wall": 0.33, "cpu": 0.40, "stored": 0.80, "peak": 1.0},
        "unchanged": {"wall": 0.15, "cpu": 0.60, "peak": 1.0},
        "changed": {"wall": 0.30, "cpu": 0.60, "peak": 1.0},
        "check": {"wall": 0.40, "cpu": 0.60, "peak": 1.0},
        "restore": {"wall": 0.40, "cpu": 0.60, "peak": 1.0},
    },
    "tiny": {"first": {"wall": 0.35, "stored": 0.52}},
    "image": {"first": {"wall": 0.45}, "changed": {"grown": 0.80}},
    "random": {"first": {"wall": 0.35}},
}
# A ratio to restic that is so much above the one of an earlier run is a defect.
WORSE_AT_MOST = 1.10
# No peer may be faster at all, or smaller by more than this.
SMALLER_AT_MOST = 1.01


def medians(results):
    """By corpus, step and tool, of the rounds that worked."""
    groups = {}
    for result in results:
        if not result["failed"]:
            groups.setdefault((result["corpus"], result["step"], result["tool"]), []).append(result)
    return {
        key: {measure: statistics.median(result[measure] for result in group) for measure in MEASURES}
        for key, group in groups.items()
    }


def ratio(found, corpus, step, peer, measure):
    """What lifeboat took for each unit that the peer took; None where one of them has no figure."""
    ours, theirs = found.get((corpus, step, OURS)), found.get((corpus, step, peer))
    return ours[measure] / theirs[measure] if ours and theirs and theirs[measure] > 0 else None


def in_order(results, field):
    return list(dict.fromkeys(result[field] for result in results))


def table(results):
    """In Markdown, one for each corpus: what lifeboat took, and how much that is of what each other tool took: of its wall time, its
    time until the disk had everything, its CPU time, its peak and its stored bytes."""
    found = medians(results)
    lines = []
    for corpus in in_order(results, "corpus"):
        peers = [tool for tool in in_order(results, "tool") if tool != OURS]
        peers = sorted(peer for peer in peers if any((corpus, step, peer) in found for step in in_order(results, "step")))
        rounds = rounds_of(results, corpus)
        lines += ["", f"**{corpus}**, {rounds} {'round' if rounds == 1 else 'rounds'}", ""]
        lines += [f"| step | wall s | on disk s | CPU s | peak MB | stored MB | {' | '.join(f'of {peer}' for peer in peers)} |"]
        lines += ["|---|" + "--:|" * (5 + max(len(peers), 1))]
        lines += [line(found, corpus, step, peers) for step in in_order(results, "step") if (corpus, step, OURS) in found]
    return "\n".join(lines[1:])


def rounds_of(results, corpus):
    return len({result["round"] for result in results if result["corpus"] == corpus and not result["failed"]})


def line(found, corpus, step, peers):
    took = found[corpus, step, OURS]
    seconds = [f"{took[measure]:.2f}" for measure in ["wall", "synced", "cpu"]]
    cells = [step, *seconds, f"{took['peak'] / 1e6:.0f}", f"{took['stored'] / 1e6:.1f}"]
    for peer in peers:
        parts = [ratio(found, corpus, step, peer, measure) for measure in ["wall", "synced", "cpu", "peak", "stored"]]
        cells.append(", ".join("?" if part is None else f"{part:.2f}" for part in parts))
    return f"| {' | '.join(cells)} |"


def missed(results):
    """The goals that were not reached, and the steps at which a peer is ahead."""
    found = medians(results)
    reached, unknown = 0, 0
    for corpus, step, measure, goal in goals():
        part = ratio(found, corpus, step, "restic", measure)
        reached += part is not None and part <= goal
        unknown += part is None
        if part is not None and part > goal:
            yield f"goal: {corpus} {step}: {measure} is {part:.3f} of restic's, {goal:.2f} is allowed"
    yield f"goals: {reached} of {len(list(goals()))} reached, {unknown} without figures here"
    for corpus, step, peer in found:
        for measure, allowed in [("wall", 1.0), ("stored", SMALLER_AT_MOST)]:
            part = ratio(found, corpus, step, peer, measure) if peer != OURS else None
            if part is not None and part > allowed:
                yield f"behind: {corpus} {step}: {measure} is {part:.3f} of {peer}'s"


def goals():
    for corpus, steps in GOALS.items():
        for step, measures in steps.items():
            for measure, goal in measures.items():
                yield corpus, step, measure, goal


def ratios(results, corpus, step, measure):
    """What lifeboat took of what restic took, in each round."""
    rounds = {}
    for result in results:
        if not result["failed"] and (result["corpus"], result["step"]) == (corpus, step):
            rounds.setdefault(result["round"], {})[result["tool"]] = result[measure]
    pairs = (figures for figures in rounds.values() if figures.keys() >= {OURS, "restic"} and figures["restic"] > 0)
    return [figures[OURS] / figures["restic"] for figures in pairs]


def slower(results, before):
    """Where lifeboat's part of restic's is worse than it was, in every round than in any, and what there is nothing to compare with.
    A corpus that the earlier run did not have is not compared."""
    now, then = medians(results), medians(before)
    known = [corpus for corpus in in_order(before, "corpus") if corpus in in_order(results, "corpus")]
    if not known:
        yield "nothing to compare: the earlier run has none of these corpora"
    for corpus, step in dict.fromkeys((corpus, step) for corpus, step, _ in now if corpus in known):
        lacking = [f"{tool} {when}" for found, when in [(now, "now"), (then, "then")] for tool in [OURS, "restic"] if (corpus, step, tool) not in found]
        if lacking:
            yield f"nothing to compare: {corpus} {step}: no figure of {', '.join(lacking)}"
            continue
        for measure in MEASURES:
            part, was = (ratio(found, corpus, step, "restic", measure) for found in [now, then])
            if None in (part, was) or part <= was * WORSE_AT_MOST:
                continue
            new, old = ratios(results, corpus, step, measure), ratios(before, corpus, step, measure)
            if not new or not old:
                yield f"nothing to compare: {corpus} {step}: no round in which both worked"
                break
            if min(new) > max(old):
                yield f"worse: {corpus} {step}: {measure} is {part:.3f} of restic's, and was {was:.3f}"
