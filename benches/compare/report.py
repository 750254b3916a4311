"""Turns samples into tables: medians over the rounds, and ratios of neighbours in one round."""

from statistics import median

# A window in which others used more than this share of one core says little, and is left out where enough are left.
OTHERS_MAX = 0.15
CLEAN_MIN = 3
TITLES = {"get": "GET, answer 1 KiB", "post": "POST 2 KB JSON, answer 500 B",
          "new": "guarded, a new order each", "replay": "guarded, replay of a known order"}


def text(result):
    facts, samples = result["facts"], result["samples"]
    return "\n".join([
        facts["machine"], " · ".join(facts["versions"]),
        f"{facts['rounds']} rounds, windows of {facts['seconds']:g} s; latency at {facts['rate']} requests/s", "",
        *passing(samples), "", *guarded(samples), "", *idle(samples), "", *disturbance(samples),
    ])


def passing(samples):
    yield "Pass-through, one core, keep-alive on both sides"
    rows = [["", "subject", "CPU µs/request", "(range)", "÷ nginx", "requests/s", "p50 µs", "p99 µs"]]
    for workload in ("get", "post"):
        for name in subjects(samples):
            row = [TITLES[workload], name, *figures(samples, workload, name)]
            row.insert(4, ratio(samples, (workload, name), (workload, "nginx")))
            rows.append(row)
    yield from aligned(rows, texts=2)


def guarded(samples):
    yield "Guarded, oncegate, memory store: the same POST, in the same run"
    rows = [["", "CPU µs/request", "(range)", "more µs", "÷ unguarded", "requests/s", "p50 µs", "p99 µs"]]
    for workload in ("post", "new", "replay"):
        pair = ((workload, "oncegate"), ("post", "oncegate"))
        row = [TITLES[workload] if workload != "post" else "unguarded", *figures(samples, workload, "oncegate")]
        row[3:3] = [paired(samples, *pair, lambda one, other: one - other, "{:+.2f}"), ratio(samples, *pair)]
        rows.append(row)
    yield from aligned(rows, texts=1)


def idle(samples):
    yield "5,000 idle keep-alive connections that were used once"
    rows = [["subject", "bytes/connection", "process before, MiB"]]
    for name in subjects(samples):
        own = [one for one in samples if one["mode"] == "idle" and one["subject"] == name]
        rows.append([name, f"{median(one['each'] for one in own):.0f}",
                     f"{median(one['base'] for one in own) / 2**20:.1f}"])
    yield from aligned(rows, texts=1)


def disturbance(samples):
    shares = [one["others"] for one in samples if "others" in one]
    dirty = sum(share > OTHERS_MAX for share in shares)
    yield (f"Others used {median(shares):.0%} of a core in the median window, {max(shares):.0%} at most; "
           f"{dirty} of {len(shares)} windows had more than {OTHERS_MAX:.0%}.")
    if dirty * 2 > len(shares):
        yield "This machine was busy: do not quote these figures."


def subjects(samples):
    return list(dict.fromkeys(one["subject"] for one in samples if one["mode"] == "idle"))


def chosen(samples, mode, workload, name):
    """By round; without the disturbed ones, if enough are left."""
    own = [one for one in samples if (one["mode"], one["workload"], one["subject"]) == (mode, workload, name)]
    clean = [one for one in own if one["others"] <= OTHERS_MAX]
    return {one["round"]: one for one in (clean if len(clean) >= CLEAN_MIN else own)}


def figures(samples, workload, name):
    closed = chosen(samples, "closed", workload, name).values()
    steady = chosen(samples, "open", workload, name).values()
    if not closed:
        return ["-"] * 5
    cpu = [one["cpu_us"] for one in closed]
    return [f"{median(cpu):.2f}", f"({min(cpu):.2f}–{max(cpu):.2f})", f"{median(one['rate'] for one in closed):.0f}",
            f"{median(one['p50'] for one in steady):.0f}", f"{median(one['p99'] for one in steady):.0f}"]


def ratio(samples, own, base):
    return paired(samples, own, base, lambda one, other: one / other, "{:.2f}")


def paired(samples, own, base, combine, form):
    one, other = chosen(samples, "closed", *own), chosen(samples, "closed", *base)
    pairs = [combine(one[number]["cpu_us"], other[number]["cpu_us"]) for number in one if number in other]
    return form.format(median(pairs)) if pairs else "-"


def aligned(rows, texts):
    """The first columns hold text, to the left; the others hold figures, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:texts], widths)]
        cells += [cell.rjust(width) for cell, width in zip(row[texts:], widths[texts:])]
        yield "  " + "  ".join(cells).rstrip()
