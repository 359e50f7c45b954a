"""What every head must satisfy, run for each file of configs/method that names one."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from kravl.backbones.heads.head import Head, Problem, Support
from kravl.config.instantiate import build, resolve
from kravl.config.schema import CONFIGS
from kravl.run.heads.checks import WITHOUT_TEXT
from kravl.runtime.errors import InputError

NODES = {
    path.stem: dict(node["head"])
    for path in sorted((CONFIGS / "method").glob("*.yaml"))
    if "head" in (node := OmegaConf.load(path))
}
CLASSES, WIDTH, SHOTS, VIEWS, SCALE = 5, 16, 4, 3, 20.0
QUICK = {"steps": 100, "epochs": 60}  # of a fit in a test
FASTER = {"prolip": {"lr": 1e-2}, "clip_adapter": {"lr": 0.1}}  # than on features of hundreds of numbers


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def support(seed: int = 1) -> Support:
    """Features that scatter around their classes, and text that points beside them."""
    labels = torch.arange(CLASSES).repeat(SHOTS)
    centres = numbers(CLASSES, WIDTH, seed=1)
    features = F.normalize(centres[labels][:, None] + 0.3 * numbers(len(labels), VIEWS, WIDTH, seed=2), dim=-1)
    return Support(features, labels, F.normalize(centres + 2 * numbers(CLASSES, WIDTH, seed=3), dim=-1), seed)


@pytest.fixture(params=NODES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(name: str) -> Callable[..., Head]:
    def made(text: bool = True, **changes: Any) -> Head:
        node = NODES[name]
        quick = {key: value for key, value in QUICK.items() if key in node}
        given = support()
        problem = Problem(CLASSES, WIDTH, len(given.labels), SCALE, given.text if text else None, torch.eye(WIDTH))
        return build({**node, **quick, **FASTER.get(name, {}), **changes}, Head)(problem).double()

    return made


def logits(head: Head, given: Support) -> torch.Tensor:
    with torch.no_grad():
        return head(given.features[:, 1], given.text)


def test_a_file_says_every_setting_of_its_class_at_its_default(name: str) -> None:
    cls = resolve(NODES[name], Head)
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items() if key != "problem"}

    assert {key: value for key, value in NODES[name].items() if key != "_target_"} == pytest.approx(defaults)
    assert set(cls.grid) | set(cls.late_grid) <= set(defaults)
    assert cls.rule in ("closed form", "full batch", "steps")


def test_a_fit_tells_classes_apart_better_than_text(make: Callable[..., Head]) -> None:
    torch.manual_seed(0)
    head, given = make(), support()
    zero_shot = SCALE * given.features[:, 1] @ given.text.T

    assert not head.fitted
    head.fit(given)

    assert head.fitted
    assert logits(head, given).shape == (CLASSES * SHOTS, CLASSES)
    right, before = ((z.argmax(dim=1) == given.labels).double().mean() for z in (logits(head, given), zero_shot))
    assert before < right


def test_equal_seeds_give_equal_heads_and_their_state_is_all_of_them(make: Callable[..., Head], device: str) -> None:
    torch.manual_seed(0)
    first = make()
    torch.manual_seed(0)
    again, empty = make().to(device), make()
    given = support()
    there = Support(given.features.to(device), given.labels.to(device), given.text.to(device), given.seed)
    first.fit(given)
    again.fit(there)

    empty.load_state_dict(first.state_dict())

    expected, actual = logits(first, given), logits(again, there).cpu()
    if device == "cpu":
        assert torch.equal(actual, expected)
    else:  # sums in another order, grown over a hundred steps, or stopped within L-BFGS's tolerance
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(logits(empty, given), expected)
    assert all(not buffer.requires_grad for buffer in empty.buffers())


def test_what_starts_at_zero_shot_does(make: Callable[..., Head]) -> None:
    head, given = make(), support()
    zero_shot = SCALE * given.features[:, 1] @ given.text.T

    close = torch.allclose(logits(head, given), zero_shot, rtol=1e-10)

    assert close == head.starts_at_zero_shot


def test_the_order_of_images_says_nothing_where_no_batch_is_drawn(make: Callable[..., Head]) -> None:
    head, other, given = make(), make(), support()
    if head.rule == "steps":
        return
    order = torch.randperm(len(given.labels), generator=torch.Generator().manual_seed(1))

    head.fit(given)
    other.fit(given._replace(features=given.features[order], labels=given.labels[order]))

    torch.testing.assert_close(logits(other, given), logits(head, given), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_of_no_class_are_refused(make: Callable[..., Head], label: int) -> None:
    labels = support().labels.clone()
    labels[2] = label

    with pytest.raises(InputError, match=rf"labels to fit a head on must be 0 to 4, and at least one: \[{label}\]"):
        make().fit(support()._replace(labels=labels))


def test_a_class_without_images_is_refused_or_learned_around(make: Callable[..., Head]) -> None:
    head, given = make(), support()
    labels = torch.where(given.labels == 3, 2, given.labels)
    lacking = given._replace(labels=labels)

    if head.needs_every_class:
        with pytest.raises(InputError, match=r"needs an image of every class; classes \[3\] have none"):
            head.fit(lacking)
    else:
        head.fit(lacking)
        assert logits(head, given).isfinite().all()


def test_text_is_asked_for_where_it_is_needed(name: str, make: Callable[..., Head]) -> None:
    needs_text = resolve(NODES[name], Head).needs_text

    assert needs_text == (f"method={name}" not in WITHOUT_TEXT.split(", "))
    if needs_text:
        with pytest.raises(InputError, match="needs text features"):
            make(text=False)
    else:
        head, given = make(text=False), support()._replace(text=None)
        head.fit(given)
        assert logits(head, given).isfinite().all()


def test_chosen_settings_are_those_that_a_record_has(make: Callable[..., Head]) -> None:
    head = make()
    settings = {name: values[-1] for name, values in {**head.grid, **head.late_grid}.items()}

    head.choose(settings)

    assert settings.items() <= head.hyperparameters().items()
