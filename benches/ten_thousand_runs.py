"""A store of many finished runs, made in seconds, to time the commands that look at a whole store.

    python3 benches/ten_thousand_runs.py --lab target/debug/ddpm-lab --out target/many

writes `target/many/many.toml`, a grid of 10 000 cells (`--cells 1000` for fewer), and `target/many/results`, in which all
of them are finished: one real run, trained for two steps, is copied under each cell's identity. Configurations and
records are those of the cell (but for the hash of the configuration, which is left out), so that `plan`, `sweep`, `ls`,
`gc` and `doctor` find nothing to object to; only the numbers are all the same run's. Then it times the commands, and counts
what a sweep that has nothing to do writes, with strace where that is installed.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

BASE = """description = "Does the harness stand ten thousand runs?"
[base]
data.name = "two_moons"
model.channels = [4]
diffusion.timesteps = 30
train = { steps = 2, batch_size = 4 }
eval = { every = 0, images = 4, test_images = 16 }
sample.count = 0
[grid]
"""

AXES = {
    "diffusion.schedule": ["linear", "cosine", "sigmoid", "jsd"],
    "loss.variant": ["simple", "vlb"],
    "train.lr": [round(1e-4 * (i + 1), 6) for i in range(25)],
    "train.ema": [round(0.9 + 0.01 * i, 2) for i in range(10)],
    "train.grad_clip": [0.5, 1.0, 2.0, 4.0, 8.0],
}


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, text=True, capture_output=True, **options).stdout


def experiment(cells):
    """The grid, its second-slowest axes cut to about so many cells."""
    axes = {key: list(values) for key, values in AXES.items()}
    for key in ["train.lr", "train.ema", "train.grad_clip"]:
        while len(axes[key]) > 1 and count(axes) > cells:
            axes[key].pop()
    return BASE + "".join(f"{key} = {json.dumps(values)}\n" for key, values in axes.items())


def count(axes):
    product = 1
    for values in axes.values():
        product *= len(values)
    return product


def make(lab, out, cells):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "many.toml").write_text(experiment(cells))
    template_store = out / "template"
    first = [f"{key}={json.dumps(values[0])}" for key, values in AXES.items()]
    run(lab, "sweep", "many.toml", "name=template", *first, "--results", "template", "--device", "cpu", cwd=out)
    (template,) = (template_store / "runs").iterdir()
    record = json.loads((template / "run.json").read_text())
    record.pop("blake3", None)
    config = (template / "config.toml").read_text()
    plan = json.loads(run(lab, "plan", "many.toml", "--json", "--results", "none", cwd=out))
    runs = out / "results" / "runs"
    for planned in plan["runs"]:
        folder = runs / f"{planned['slug']}-{planned['run_id']}"
        for part in ["checkpoints", "samples"]:
            (folder / part).mkdir(parents=True)
        for path in template.rglob("*"):
            if path.is_file() and path.name not in ("run.json", "config.toml", "lock"):
                os.link(path, folder / path.relative_to(template))
        (folder / "lock").touch()
        text = config.replace(record["run_id"], planned["run_id"]).replace(record["slug"], planned["slug"])
        for key, value in planned["axes"]:
            section, leaf = key.split(".")
            written = value if re.fullmatch(r"[-+0-9.e]+", value) else f'"{value}"'
            part = re.compile(rf"(\[base\.{section}\]\n(?:[^\[\n][^\n]*\n)*?{leaf} = )[^\n]*")
            text, hits = part.subn(lambda m: m.group(1) + written, text)
            assert hits == 1, key
        (folder / "config.toml").write_text(text)
        # Without the hash of itself, which records of earlier versions lack too.
        own = dict(record, run_id=planned["run_id"], slug=planned["slug"])
        own["files"] = {name: digest for name, digest in record["files"].items() if name != "config.toml"}
        (folder / "run.json").write_text(json.dumps(own, indent=2) + "\n")
    # The sweep writes its record and the index once.
    run(lab, "sweep", "many.toml", cwd=out)
    return len(plan["runs"])


def timed(command, out, rounds):
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(*command, cwd=out)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def writes(command, out):
    """Calls of the process and its children that change a file system, but for those to a terminal or a pipe."""
    # Not `openat`: what it creates here is a lock at most, and that is there already.
    calls = "creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,truncate,ftruncate,fsync,fdatasync,write,pwrite64"
    log = out / "strace.txt"
    subprocess.run(["strace", "-f", "-y", "-qq", "-e", f"trace={calls}", "-o", str(log), *map(str, command)], check=True, cwd=out, capture_output=True)
    changing = []
    for line in log.read_text(errors="replace").splitlines():
        call = re.sub(r"^\d+\s+", "", line)
        if not re.match(r"[a-z0-9_]+\(", call):
            continue  # the end of a call whose beginning stands above, or no call
        if re.match(r"p?write(64)?\(\d+<(pipe|socket|anon_inode|/dev/|/proc/)", call) or "= -1" in call:
            continue
        changing.append(call)
    return changing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/many"))
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="time the store that is there")
    args = parser.parse_args()
    lab, out = args.lab.resolve(), args.out.resolve()
    if not args.keep:
        start = time.perf_counter()
        print(f"{make(lab, out, args.cells)} finished runs in {time.perf_counter() - start:.1f} s")
    commands = {
        "plan": [lab, "plan", "many.toml"],
        "sweep, nothing to run": [lab, "sweep", "many.toml"],
        "ls": [lab, "ls"],
        "ls, two filters": [lab, "ls", "schedule=cosine", "lr=0.0005", "--sort", "bits_per_dim"],
        "ls --json": [lab, "ls", "--json"],
        "gc": [lab, "gc"],
        "doctor": [lab, "doctor"],
    }
    for name, command in commands.items():
        print(f"{name:24} {timed(command, out, args.rounds):6.2f} s", flush=True)
    if shutil.which("strace"):
        changing = writes(commands["sweep, nothing to run"], out)
        print(f"a sweep with nothing to run makes {len(changing)} calls that change the file system")
        print("".join(f"  {call}\n" for call in changing[:20]), end="")
    else:
        print("strace is not installed: writes were not counted", file=sys.stderr)


if __name__ == "__main__":
    main()
