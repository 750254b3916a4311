"""Measures oncegate, nginx and HAProxy in turn and prints tables. Started by ./run, which see; README.md has the method."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time

import report
from harness import Bench, Trouble, machine_busy_ns

ALL = ["oncegate", "nginx", "haproxy"]
POST = {"body": 2048, "expect": 500}
WORKLOADS = {  # who can do it, and what is asked
    "get": (ALL, {"path": "/small", "body": 0, "expect": 1024, "keys": "new"}),
    "post": (ALL, {"path": "/json", "keys": "new"} | POST),
    "new": (["oncegate"], {"path": "/op", "keys": "new"} | POST),
    "replay": (["oncegate"], {"path": "/op", "keys": "same"} | POST),
}
# How often the shop must have been asked for each request: what a subject does not do, it does not get credit for.
CALLS_PER_REQUEST = {"get": 1, "post": 1, "new": 1, "replay": 0}
IDLE_CONNECTIONS = 5000


def measure(bench, options, name, workload, mode):
    """One window: the CPU time of the subject divided by its requests, and how long they took."""
    subject = bench.running[name][0]
    asked = WORKLOADS[workload][1]
    pace = {"closed": {"connections": 32}, "open": {"connections": 64}}[mode]
    with bench.load(name, mode=mode, rate=options.rate, warm=options.warm, seconds=options.seconds, **asked,
                    **pace) as load:
        ours = (subject, bench.shop, load)
        calls, busy, own = bench.shop_calls(), machine_busy_ns(), sum(one.cpu_ns() for one in ours)
        began, cpu = time.monotonic(), subject.cpu_ns()
        done = load.run()
        cpu, took = subject.cpu_ns() - cpu, time.monotonic() - began
        own = sum(one.cpu_ns() for one in ours) - own
        busy, calls = machine_busy_ns() - busy, bench.shop_calls() - calls
    if not done["requests"]:
        raise Trouble(f"{name}, {workload}: nothing was asked")
    if calls != done["requests"] * CALLS_PER_REQUEST[workload]:
        raise Trouble(f"{name}, {workload}: {done['requests']} requests, {calls} calls of the shop")
    return {"cpu_us": cpu / done["requests"] / 1e3, "rate": done["requests"] / done["seconds"],
            "p50": done["p50"], "p99": done["p99"], "others": max(0, busy - own) / 1e9 / took}


def measure_idle(bench, options, name):
    """What a fresh process grows by when clients ask once and then keep their connections."""
    asked = WORKLOADS["get"][1] | {"rate": 0}
    bench.start(name)
    subject = bench.running[name][0]
    # What is set up only once, by the first requests, belongs to none of the connections.
    with bench.load(name, mode="closed", connections=16, warm=0.5, seconds=0.5, **asked) as load:
        load.run()
    time.sleep(0.5)
    before = subject.memory_bytes()
    with bench.load(name, mode="idle", connections=IDLE_CONNECTIONS, warm=0, seconds=1, **asked) as load:
        load.run()
        after = subject.memory_bytes()
    bench.stop(name)
    return {"base": before, "each": (after - before) / IDLE_CONNECTIONS}


def round_of(bench, options, number, samples):
    """Everything once, in an order by chance, on fresh processes: a record of one round is none in the next."""
    for name in options.subjects:
        bench.start(name)
    for mode in ("closed", "open"):
        jobs = [(workload, name) for workload, (able, _) in WORKLOADS.items() for name in able
                if name in options.subjects]
        options.chance.shuffle(jobs)
        for workload, name in jobs:
            sample = measure(bench, options, name, workload, mode)
            tell(options, f"round {number} {mode:6} {workload:6} {name:8} {sample['cpu_us']:7.2f} µs/request"
                          f"  p50 {sample['p50']:.0f} p99 {sample['p99']:.0f} µs  others {sample['others']:.0%}")
            samples.append({"round": number, "mode": mode, "workload": workload, "subject": name} | sample)
    for name in options.subjects:
        bench.stop(name)
    for name in options.subjects:
        sample = measure_idle(bench, options, name)
        tell(options, f"round {number} idle          {name:8} {sample['each']:7.0f} bytes/connection")
        samples.append({"round": number, "mode": "idle", "workload": "idle", "subject": name} | sample)


def tell(options, line):
    if options.verbose:
        print(line, file=sys.stderr, flush=True)


def facts(options):
    """What somebody who sees the figures must know about the place where they were taken."""
    def first_line(*command):
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        return (said.stdout + said.stderr).strip().split("\n")[0]

    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "machine": f"{(models or ['unknown processor'])[0]}, {os.cpu_count()} cores, Linux {os.uname().release}",
        "versions": [first_line(options.oncegate, "--version"), first_line("nginx", "-v"), first_line("haproxy", "-v")],
        "rounds": options.rounds, "seconds": options.seconds, "rate": options.rate,
    }


def options_of(words):
    parser = argparse.ArgumentParser(prog="benches/compare/run", description="oncegate beside nginx and HAProxy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each window")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before each window")
    parser.add_argument("--rate", type=int, default=1500, help="requests per second where latency is measured")
    parser.add_argument("--only", default=",".join(ALL), help="some of " + ",".join(ALL))
    parser.add_argument("--target", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--oncegate", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.subjects = options.only.split(",")
    if options.rounds < 1 or not set(options.subjects) <= set(ALL):
        parser.error("at least one round, and no subjects but " + ", ".join(ALL))
    options.chance = random.Random(1)  # The same order in every run.
    options.verbose = sys.stderr.isatty() or "COMPARE_VERBOSE" in os.environ
    return options


def main():
    options = options_of(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    samples = []
    bench = Bench(options.target, options.oncegate)
    try:
        for number in range(1, options.rounds + 1):
            round_of(bench, options, number, samples)
    finally:
        bench.close()
    result = {"facts": facts(options), "samples": samples}
    with open(os.path.join(options.target, "result.json"), "w") as file:
        json.dump(result, file, indent=1)
    print(report.text(result))


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(f"benches/compare: {trouble}")
    except KeyboardInterrupt:
        sys.exit(130)
