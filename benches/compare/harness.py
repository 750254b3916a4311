"""What the comparison stands on: processes of its own, their CPU time and memory, and the load that is put on them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Trouble(Exception):
    """Something without which no figure may be given."""


class Process:
    """A program and its children, on cores of their own; ended as a group, and nothing else with it."""

    def __init__(self, command, cores, log):
        self.log = log
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=open(log, "ab"), stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def cpu_ns(self):
        """Of all its processes. This is the clock that clock_getcpuclockid(3) gives for a process: in nanoseconds, and
        with what threads used that have ended."""
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.pids())

    def memory_bytes(self):
        """The proportional share: what several of its processes have in common counts once."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        return total * 1024

    def pids(self):
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as stat:
                    parents[int(name)] = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue  # It has ended since.
        found = [self.child.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def wait_for(self, address):
        host, port = address.split(":")
        for _ in range(200):
            if self.child.poll() is not None:
                break
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        with open(self.log) as log:
            raise Trouble(f"{self.child.args[0]} does not listen: {log.read()[-2000:]}")

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


class Bench:
    """The shop, and what is started in front of it."""

    def __init__(self, target, oncegate):
        self.folder = os.path.join(target, "run")
        self.tools = os.path.join(target, "release", "compare-tools")
        self.commands = {
            "oncegate": [oncegate, "run", "--config", "{folder}/oncegate.toml"],
            "nginx": ["nginx", "-e", "stderr", "-p", "{folder}", "-c", "{folder}/nginx.conf"],
            "haproxy": ["haproxy", "-db", "-f", "{folder}/haproxy.cfg"],
        }
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        # The subject has a core to itself; the shop and the clients share what is left, or the one that there is.
        cores = sorted(os.sched_getaffinity(0))
        self.subject_cores, self.load_cores = {cores[-1]}, set(cores[:-1]) or {cores[0]}
        self.shop_address = free_address()
        self.shop = Process([self.tools, "shop", self.shop_address], self.load_cores, f"{self.folder}/shop.log")
        self.shop.wait_for(self.shop_address)
        self.running = {}
        self.loads = 0

    def start(self, name):
        address, folder = free_address(), os.path.join(self.folder, name)
        os.makedirs(folder, exist_ok=True)
        # Started as root, nginx hands its work to another user, who may have no way to its temporary files here.
        given = {"ADDRESS": address, "SHOP": self.shop_address, "FOLDER": folder,
                 "USER": "user root;" if os.geteuid() == 0 else ""}
        for template in os.listdir(HERE):
            if template.startswith(name + ".") and template.endswith(".tmpl"):
                with open(os.path.join(HERE, template)) as source:
                    text = re.sub("@([A-Z]+)@", lambda mark: given[mark[1]], source.read())
                with open(os.path.join(folder, template.removesuffix(".tmpl")), "w") as rendered:
                    rendered.write(text)
        command = [word.replace("{folder}", folder) for word in self.commands[name]]
        process = Process(command, self.subject_cores, os.path.join(folder, "log"))
        self.running[name] = (process, address)
        process.wait_for(address)

    def stop(self, name):
        self.running.pop(name)[0].stop()

    def close(self):
        for name in list(self.running):
            self.stop(name)
        self.shop.stop()

    def shop_calls(self):
        host, port = self.shop_address.split(":")
        with socket.create_connection((host, int(port)), 5) as stream:
            stream.sendall(b"GET /calls HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            return int(stream.recv(4096).split(b"\r\n\r\n")[1])

    def load(self, name, **settings):
        self.loads += 1
        settings |= {"address": self.running[name][1], "prefix": f"{self.loads:04x}"}
        return Load(self.tools, settings, self.load_cores)


class Load:
    """Clients that are warm and wait for the word."""

    def __init__(self, tools, settings, cores):
        words = [f"{name}={value}" for name, value in settings.items()]
        self.child = subprocess.Popen(
            [tools, "load", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.read_line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()

    def cpu_ns(self):
        return time.clock_gettime_ns(~self.child.pid << 3 | 2)

    def run(self):
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        return json.loads(self.read_line())

    def read_line(self):
        line = self.child.stdout.readline()
        if not line:
            raise Trouble(self.child.stderr.read().strip())
        return line


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def machine_busy_ns():
    """What all cores together have worked since the machine was started, and what a host took from them."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * 10**9 // os.sysconf("SC_CLK_TCK")
