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
    """In Markdown. The last five columns are what lifeboat took, as a part of what the tool of that line took."""
    found = medians(results)
    lines = []
    for corpus in in_order(results, "corpus"):
        lines += ["", f"**{corpus}**", ""]
        lines += ["| step | tool | wall s | on disk s | CPU s | peak MB | stored MB | wall | on disk | CPU | peak | stored |"]
        lines += ["|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
        for step in in_order(results, "step"):
            for tool in [OURS, *(tool for tool in sorted(in_order(results, "tool")) if tool != OURS)]:
                if (corpus, step, tool) in found:
                    lines.append(line(found, corpus, step, tool))
    return "\n".join(lines[1:])


def line(found, corpus, step, tool):
    took = found[corpus, step, tool]
    seconds = [f"{took[measure]:.2f}" for measure in ["wall", "synced", "cpu"]]
    cells = [step, tool, *seconds, f"{took['peak'] / 1e6:.0f}", f"{took['stored'] / 1e6:.1f}"]
    for measure in ["wall", "synced", "cpu", "peak", "stored"]:
        part = ratio(found, corpus, step, tool, measure) if tool != OURS else None
        cells.append("" if part is None else f"{part:.2f}")
    return f"| {' | '.join(cells)} |"


def missed(results):
    """The goals that were not reached, and the steps at which a peer is ahead."""
    found = medians(results)
    for corpus, steps in GOALS.items():
        for step, goals in steps.items():
            for measure, goal in goals.items():
                part = ratio(found, corpus, step, "restic", measure)
                if part is not None and part > goal:
                    yield f"goal: {corpus} {step}: {measure} is {part:.2f} of restic's, {goal:.2f} is allowed"
    for corpus, step, peer in found:
        for measure, allowed in [("wall", 1.0), ("stored", SMALLER_AT_MOST)]:
            part = ratio(found, corpus, step, peer, measure) if peer != OURS else None
            if part is not None and part > allowed:
                yield f"behind: {corpus} {step}: {measure} is {part:.2f} of {peer}'s"


def slower(results, before):
    """Where lifeboat's part of restic's is worse than it was, and what there is nothing to compare with."""
    now, then = medians(results), medians(before)
    for corpus, step in dict.fromkeys((corpus, step) for corpus, step, _ in now):
        lacking = [f"{tool} {when}" for found, when in [(now, "now"), (then, "then")] for tool in [OURS, "restic"] if (corpus, step, tool) not in found]
        if lacking:
            yield f"nothing to compare: {corpus} {step}: no figure of {', '.join(lacking)}"
            continue
        for measure in MEASURES:
            part, was = (ratio(found, corpus, step, "restic", measure) for found in [now, then])
            if None not in (part, was) and part > was * WORSE_AT_MOST:
                yield f"worse: {corpus} {step}: {measure} is {part:.2f} of restic's, and was {was:.2f}"
