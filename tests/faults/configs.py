"""Configs that would run code, read a key, write elsewhere or grow, by the place that they are given at.

``MARKER`` stands for a file that must not appear. ``experiment`` is a file of configs/experiment, ``saved`` changes the
config.yaml of a run folder, ``card`` is a card of datasets, ``command`` an argument.
"""

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TARGETS = (
    "os.system",
    "subprocess.call",
    "builtins.eval",
    "builtins.open",
    "pathlib.Path",
    "torch.load",
    "code.InteractiveInterpreter",
    "logging.os.system",
    "kravl.runtime.lock.os.system",
    "kravl.data.images.Path",
    "kravl.config.instantiate.importlib.import_module",
    "kravl.adapters.kra.KRAdapter.__init__.__globals__",
    "kravl/../os.system",
    "their_package.Adapter",
)
NODES = {
    "adapter": "adapter: {{_target_: {}, command: touch MARKER, file: MARKER, mode: w}}",
    "backbone": "backbone: {{name: theirs, build: {{_target_: {}, command: touch MARKER, name: MARKER}}}}",
    "source": "data: {{name: theirs, source: {{_target_: {}, command: touch MARKER, root: MARKER}}}}",
}
TEXTS = {
    "a key": "${oc.env:FAKE_API_KEY}",
    "a key with a default": "${oc.env:FAKE_API_KEY,none}",
    "a key by way of a setting": "${oc.env:${method}}",
    "a key in a default": "${oc.env:DATA_ROOT,${oc.env:FAKE_API_KEY}}",
    "decode": "${oc.decode:${oc.env:FAKE_API_KEY}}",
    "create": "${oc.create:'{a: 1}'}",
    "eval": '${eval:\'open("MARKER","w")\'}',
    "python": "${python:open('MARKER','w')}",
    "hydra": "${hydra:runtime.cwd}",
    "a resolver by way of a setting": "${${method}:FAKE_API_KEY}",
    "never closed": "${oc.env:FAKE_API_KEY",
}
TAGS = (
    "!!python/object/apply:os.system ['touch MARKER']",
    "!!python/object/new:subprocess.Popen [['touch', 'MARKER']]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!python/object:pathlib.PosixPath {}",
    "!theirs {a: 1}",
)
HYDRA = {
    "a logger": "hydra: {job_logging: {handlers: {theirs: {'()': os.system, command: touch MARKER}}}}",
    "a callback": "hydra: {callbacks: {theirs: {_target_: os.system, command: touch MARKER}}}",
    "a launcher": "hydra: {launcher: {_target_: their_package.Launcher}}",
    "the environment": "hydra: {job: {env_set: {TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: '1'}}}",
    "a folder": "hydra: {run: {dir: MARKER}, output_subdir: x}",
    "a search path": "hydra: {searchpath: ['pkg://their_package']}",
    "a choice": "defaults: [{override /hydra/job_logging: default}]",
    "a place": "defaults: [{/data@hydra.job: folder}]",
    "another package": "plugins: [their_package]",
}
PLACES = {
    "a name": "name: ../../MARKER",
    "a name that steers": 'name: "run\\e]0;theirs\\a"',
    "a name of two lines": 'name: "a\\nb"',
    "an endless name": f"name: {'a' * 300}",
    "a method": "method: ../MARKER",
    "the folder of runs": "runs: /MARKER",
    "the folder above": "runs: ../MARKER",
    "the cache at home": "cache_root: ~/MARKER",
    "an evaluation": "evaluation: {name: ../../MARKER, sets: {}}",
    "a set": "evaluation: {name: a, sets: {../../MARKER: {_target_: kravl.data.sources.folder.ImageFolder}}}",
    "a data set": 'data: {name: "\\e[2J"}',
}
GROWTH = {
    "aliases": BOMB,
    "an alias of itself": "adapter: &a {a: *a}",
    "depth": f"adapter: {'[' * 5000}",
    "a number": f"seed: 0x{'f' * 5000}",
    "many values": f"targets: [{'a,' * 200_000}]",
    "many bytes": f"name: a # {'x' * 2**21}",
}
CARDS = {
    "a name": "files: [{name: ../MARKER, urls: [x]}]",
    "a place": "files: [{name: a, urls: [x], to: /MARKER}]",
    "an inner archive": "files: [{name: a, urls: [x], inner: [../../MARKER]}]",
    "an unknown key": "files: [{name: a, urls: [x], command: touch MARKER}]",
    "a list of nothing": "files: [1, 2]",
    "a tag": f"title: {TAGS[0]}",
    "aliases": BOMB,
    "a folder": "folders: [../../MARKER]\nfiles: [{name: a, urls: [x]}]",
}


def _all() -> dict[str, tuple[str, str]]:
    """Name -> place and content."""
    found = {}
    for i, target in enumerate(TARGETS):
        for channel, node in (("experiment", list(NODES)[i % 3]), ("saved", list(NODES)[(i + 1) % 3])):
            found[f"{channel}: {target} as {node}"] = (channel, NODES[node].format(target))
    for i, (name, text) in enumerate(TEXTS.items()):
        quoted = "'" + text.replace("'", "''") + "'"
        node = (
            f"data: {{name: a, templates: {quoted}}}" if i % 2 else f"backbone: {{name: a, build: {{name: {quoted}}}}}"
        )
        found[f"experiment: {name}"] = ("experiment", node)
        found[f"saved: {name}"] = ("saved", node)
    found["command: a key"] = ("command", f"data.templates={TEXTS['a key']}")
    found["command: a resolver"] = ("command", "name=${eval:1}")
    found |= {f"{c}: {tag[:25]}": (c, f"adapter: {tag}") for tag in TAGS for c in ("experiment", "saved")}
    found |= {f"experiment: {name} of Hydra": ("experiment", text) for name, text in HYDRA.items()}
    found |= {f"experiment: {name} that leaves": ("experiment", text) for name, text in PLACES.items()}
    found |= {f"{c}: {name} that grows": (c, text) for name, text in GROWTH.items() for c in ("experiment", "saved")}
    return found | {f"card: {name}": ("card", text) for name, text in CARDS.items()}


CONFIGS = _all()
