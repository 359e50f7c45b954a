"""Configs that would run code, read a key, write elsewhere or grow, by the place that they are given at.

``MARKER`` stands for a file that must not appear. ``experiment`` is a file of configs/experiment, ``file`` one with its
own header, ``saved`` changes the config.yaml of a run folder, ``card`` is a card of datasets, ``study`` adds lines to a
study, ``command`` is an argument.
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
    "!!bool their",
    "!!int ''",
)
HYDRA = {
    "a logger": "hydra: {job_logging: {handlers: {theirs: {'()': os.system, command: touch MARKER}}}}",
    "a callback": "hydra: {callbacks: {theirs: {_target_: os.system, command: touch MARKER}}}",
    "a launcher": "hydra: {launcher: {_target_: their_package.Launcher}}",
    "the environment": "hydra: {job: {env_set: {TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: '1'}}}",
    "a folder": "hydra: {run: {dir: MARKER}, output_subdir: x}",
    "a search path": "hydra: {searchpath: ['pkg://their_package']}",
    "a choice": "defaults: [{override /hydra/hydra_logging: disabled}]",
    "a place": "defaults: [{/data@hydra.job: folder}]",
    "nothing": "hydra: null",
    "a list": "hydra: []",
    "no log": "hydra: {job_logging: null}",
    "another package": "plugins: [their_package]",
}
# a logger that unpickles, which Hydra does not know for a danger
LOGGER = "handlers: {theirs: {'()': torch.load, f: MARKER.pt, weights_only: false}}\nroot: {handlers: [theirs]}"
FILES = {
    **{
        f"two headers around {ord(end):#06x}": f"# @package data{end}# @package hydra.job_logging\n{LOGGER}"
        for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    },
    "a header for loggers": f"#@package hydra.job_logging\n{LOGGER}",
    "a header behind lines": f"\n\n   # @package hydra.job_logging\n{LOGGER}",
    "a header for Hydra's own log": f"# @package hydra.hydra_logging\n{LOGGER}",
    "a header for callbacks": "# @package hydra.callbacks\ntheirs: {_target_: their_package.Callback}",
    "a header for the environment": "# @package hydra.job.env_set\nPYTHONPATH: MARKER",
    "a header for a launcher": "# @package hydra.launcher\n_target_: their_package.Launcher",
    "a header for a sweeper": "# @package hydra.sweeper\n_target_: their_package.Sweeper",
    "a header for a sweep's overrides": "# @package hydra.overrides\nhydra: [hydra.job.chdir=true]",
    "a header for the folder": "# @package hydra.run\ndir: MARKER",
    "a header for the search path": "# @package hydra\nsearchpath: ['pkg://their_package']",
    "a header of three words": "# @package _global_ hydra\nname: a",
    "a place in a list": "# @package _global_\ndefaults: ['/data@hydra.job_logging': digits]",
    "a file of Hydra's": "# @package _global_\ndefaults: ['/hydra/job_logging@hydra.callbacks': default]",
    "a key with a dot": "# @package _global_\nhydra.job_logging: {version: 2}",
    "itself": "# @package _global_\ndefaults: [/experiment: theirs, _self_]",
    "an overridden choice of several": "defaults: [override /data: digits, /data: [digits, folder], _self_]\n",
    "a folder above": "# @package _global_\ndefaults: [/experiment/../experiment: theirs]",
    "a list that is a word": "# @package _global_\ndefaults: experiment",
    "an entry of two": "# @package _global_\ndefaults: [{/data: digits, /method: kra}]",
    "an entry of a number": "# @package _global_\ndefaults: [1]",
    "the schema of the data": "# @package _global_\ndata: {_target_: their_package.Data}",
}
STUDIES = {
    "a package": "settings: ['plugins=[their_package]', adapter._target_=their_package.Adapter]",
    "a package of a method": "methods: {kra: ['+plugins=[their_package]']}",
    "a package of other seeds": "other_seeds: ['++plugins=[their_package]']",
    "a folder": "runs: MARKER",
    "the folder above": "runs: ../MARKER",
    "a home": "runs: ~/MARKER",
    "a folder among the settings": "settings: [cache_root=MARKER]",
    "a folder by a variable": "runs: ${oc.env:HOME}/MARKER",
    "a set to download": "datasets: {stl10: [data.source.download=true, data.source.root=MARKER]}",
    "a run to go on with": "settings: [resume=MARKER, force=true]",
    "finished runs": "settings: [overwrite=true]",
    "Hydra's folder": "settings: [hydra.run.dir=MARKER]",
    "Hydra's log": "settings: [hydra/job_logging=default]",
    "Hydra's callback": "settings: ['+hydra.callbacks.theirs={_target_: their_package.Callback}']",
    "Hydra's search path": "settings: ['hydra.searchpath=[pkg://their_package]']",
    "a launcher": "settings: [hydra/launcher=basic]",
    "a home in what a record shows": "settings: ['data.templates=a {} ${oc.env:HOME}']",
    "a home by way of a setting": "settings: ['data.templates=a {} ${data_root}', 'data_root=${oc.env:HOME}']",
    "a key": "settings: ['data_root=${oc.env:FAKE_API_KEY}']",
    "a name": "methods: {../../MARKER: [method=kra]}",
    "a formula": "methods: {'=1+1': [method=kra]}",
    "a name among the settings": "methods: {kra: [name=../MARKER]}",
    "twenty digits": f"seeds: [{'9' * 20}]",
    "a negative seed": "seeds: [-1]",
    "half a seed": "seeds: [1.5]",
    "no shots": "shots: [0]",
    "a run that never learns": "settings: [optim.lr=.nan]",
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
    "a label": "label: ../MARKER",
    "a run to go on with": "resume: MARKER",
    "finished runs": "overwrite: true",
    "no folder": "runs: ''",
    "a folder of no name": 'runs: "a\\0b"',
    "a download": "data: {name: a, source: {_target_: kravl.data.sources.torchvision.TorchvisionSet, name: a, "
    "dataset: STL10, root: MARKER, splits: {train: {split: train}}, download: true}}",
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
    found |= {f"file: {name}": ("file", text) for name, text in FILES.items()}
    found |= {f"study: {name}": ("study", text) for name, text in STUDIES.items()}
    found |= {f"experiment: {name} that leaves": ("experiment", text) for name, text in PLACES.items()}
    found |= {f"{c}: {name} that grows": (c, text) for name, text in GROWTH.items() for c in ("experiment", "saved")}
    return found | {f"card: {name}": ("card", text) for name, text in CARDS.items()}


CONFIGS = _all()
