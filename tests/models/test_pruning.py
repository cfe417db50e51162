"""Pruned modules are smaller, answer in the same shapes, and can still be exported; what was given stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.models import prune, pruning

IMAGES, ROWS, WORDS = torch.ones(2, 1, 8, 8), torch.ones(2, 4), torch.ones(2, 5, 8)


class Residual(nn.Module):
    """Whatever is added up must keep the same channels; the scores go through a softmax before they are put out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 24, 3, padding=1)
        self.outer = nn.Conv2d(24, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        return torch.softmax(self.head(self.depthwise(x).mean((2, 3))), -1)


class Features(Residual):
    """Puts out what its last layers take in, and a class that no gradient leads to."""

    def forward(self, x: torch.Tensor) -> Any:
        features = self.inner(torch.relu(self.stem(x)))
        return {"features": features, "class": self.head(self.outer(features).mean((2, 3))).argmax(-1)}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.memory = kind(12, 32, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.memory(self.embed(x))[0][:, -1])


class CountsOnChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.mix = nn.Linear(8 * 64, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.conv(x).reshape(-1, 8 * 64)))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def perceptron(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def channels(pruned: pruning.Pruned) -> dict[str, tuple[int, int]]:
    return {each.name: tuple(each.channels) for each in pruned.layers}


@pytest.mark.parametrize(
    ("module", "example", "sizes"),
    [
        pytest.param(
            Residual(),
            IMAGES,
            {"stem": (16, 8), "norm": (16, 8), "inner": (24, 12), "outer": (16, 8), "depthwise": (16, 8),
             "head": (10, 10)},
            id="a residual network",
        ),
        pytest.param(Features(), IMAGES, {"stem": (16, 8), "inner": (24, 24)}, id="what goes on and is an output too"),
        pytest.param(
            Attention(),
            WORDS,
            {"embed": (32, 16), "encoder.self_attn": (32, 16), "encoder.linear1": (64, 32), "head": (3, 3)},
            id="heads of attention give up as many channels each",
        ),
        pytest.param(
            Recurrent(), WORDS, {"embed": (12, 6), "memory": (32, 32), "head": (3, 3)}, id="an LSTM keeps its state"
        ),
        pytest.param(perceptron().requires_grad_(False), ROWS, {"0": (8, 4), "2": (2, 2)}, id="frozen weights"),
    ],
)  # fmt: skip
def test_half_of_the_channels_leave(module: nn.Module, example: torch.Tensor, sizes: dict[str, Any]) -> None:
    before = {name: each.clone() for name, each in module.state_dict().items()}
    pruned = prune(module, example, ratio=0.5)
    assert {name: channels(pruned)[name] for name in sizes} == sizes
    assert pruned.parameters.after == sum(each.numel() for each in pruned.module.parameters())
    assert pruned.parameters.before == sum(each.numel() for each in module.parameters())
    assert pruned.parameters.after < pruned.parameters.before
    assert pruned.macs.after < pruned.macs.before
    assert pruned.macs == tuple(map(sum, zip(*(each.macs for each in pruned.layers), strict=True)))
    assert all((before[name] == each).all() for name, each in module.state_dict().items())
    assert [each.requires_grad for each in pruned.module.parameters()] == [
        each.requires_grad for each in module.parameters()
    ]


@pytest.mark.parametrize(("module", "example"), [(Residual(), IMAGES), (Attention(), WORDS), (Recurrent(), WORDS)])
def test_a_pruned_module_is_exported_with_any_batch_size(module: nn.Module, example: torch.Tensor) -> None:
    smaller = prune(module.eval(), example, ratio=0.3).module
    program = torch.export.export(smaller, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    rows = torch.cat([example] * 3)
    torch.testing.assert_close(program.module()(rows), smaller(rows))


@pytest.mark.parametrize(
    ("keep", "reasons"),
    [
        (
            ["stem"],
            {"stem": "as asked", "outer": "shares its channels with stem, which is to be kept", "inner": "",
             "head": "its channels are an output of the module"},
        ),
        ("norm", {"norm": "as asked", "stem": "shares its channels with norm, which is to be kept"}),
        (["inner"], {"inner": "as asked", "stem": "", "outer": ""}),
    ],
)  # fmt: skip
def test_what_is_kept_says_why(keep: Any, reasons: dict[str, str]) -> None:
    pruned = prune(Residual(), IMAGES, ratio=0.5, keep=keep)
    found = {each.name: each for each in pruned.layers}
    assert {name: found[name].kept for name in reasons} == reasons
    assert all(each.channels.after == each.channels.before for each in pruned.layers if each.kept)
    assert "head: " in str(pruned)
    assert "10 to 10 channels; kept: its channels are an output of the module" in str(pruned)


def test_fine_tuning_goes_on_between_steps_of_equal_size() -> None:
    widths, module = [], perceptron(width=16).train()

    def fine_tune(smaller: nn.Module, step: int) -> None:
        widths.append((step, smaller[0].out_features))  # type: ignore[index]
        smaller.eval()
        optimizer = torch.optim.SGD(smaller.parameters(), lr=0.1)
        smaller(ROWS).square().sum().backward()
        optimizer.step()

    with torch.no_grad():
        pruned = prune(module, ROWS, ratio=0.75, steps=3, fine_tune=torch.enable_grad()(fine_tune))
    assert widths == [(0, 12), (1, 8), (2, 4)]
    assert pruned.module.training
    assert not torch.equal(pruned.module(ROWS), prune(module, ROWS, ratio=0.75).module(ROWS))


def test_the_least_important_channels_leave() -> None:
    module = perceptron(width=4)
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.1], [3.0], [0.2], [2.0]]).expand(4, 4))
        module[2].weight.fill_(1.0)
    smaller = prune(module, ROWS, ratio=0.5).module
    assert smaller[0].weight[:, 0].tolist() == [3.0, 2.0]


@given(ratio=st.floats(0.01, 0.99), width=st.integers(2, 12), importance=st.sampled_from(pruning.IMPORTANCES))
@settings(deadline=None, max_examples=30)
def test_any_ratio_leaves_that_share_and_a_channel_at_least(ratio: float, width: int, importance: str) -> None:
    pruned = prune(perceptron(width), ROWS, ratio=ratio, importance=importance)
    left = channels(pruned)["0"][1]
    assert 1 <= left < width
    assert left == max(1, int(width * (1 - ratio)))


def test_inputs_by_the_names_of_arguments() -> None:
    assert channels(prune(Residual(), {"x": IMAGES}, ratio=0.5))["stem"] == (16, 8)


@pytest.mark.parametrize(
    ("module", "example", "flags", "error", "message"),
    [
        pytest.param(perceptron(), ROWS, {"ratio": 1.0}, InvalidArgument, "ratio: expected a share above 0", id="all"),
        pytest.param(perceptron(), ROWS, {"ratio": float("nan")}, InvalidArgument, "ratio: expected a share", id="NaN"),
        pytest.param(perceptron(), ROWS, {"steps": 0}, InvalidArgument, "steps: expected 1 or more; got 0", id="steps"),
        pytest.param(
            perceptron(), ROWS, {"importance": "luck"}, InvalidArgument,
            "importance: expected one of magnitude, lamp, geometric-median; got 'luck'", id="importance",
        ),
        pytest.param(
            perceptron(), ROWS, {"keep": ["3"]}, InvalidArgument,
            "keep: the module has no '3'; it has 0, 1, 2", id="keep",
        ),
        pytest.param(
            perceptron(), ROWS, {"keep": ["0"]}, InvalidArgument,
            "nothing to prune: 0: as asked; 2: its channels are an output of the module", id="all kept",
        ),
        pytest.param(
            nn.Linear(4, 2), ROWS, {}, InvalidArgument,
            "nothing to prune: the module: its channels are an output of the module", id="an output layer alone",
        ),
        pytest.param(
            perceptron(width=1), ROWS, {}, InvalidArgument,
            "nothing to prune: 0: it has one channel; 2: its channels are an output", id="one channel",
        ),
        pytest.param(Bare(), ROWS, {}, InvalidArgument, "nothing to prune: no convolution, linear", id="no layers"),
        pytest.param(perceptron(), IMAGES, {}, InvalidArgument, "module cannot run on them: RuntimeError", id="shape"),
        pytest.param(perceptron(), 3, {}, InvalidArgument, "a tensor, a tuple or a mapping; got int", id="int"),
        pytest.param("model.pt", ROWS, {}, InvalidArgument, "expected a torch.nn.Module; got str", id="a file's name"),
        pytest.param(
            Recurrent(nn.GRU), WORDS, {}, FailedPrecondition, "torch-pruning cannot trace Recurrent: ", id="a GRU"
        ),
        pytest.param(
            CountsOnChannels(), IMAGES, {}, FailedPrecondition,
            "the pruned module no longer runs: RuntimeError: mat1 and mat2 shapes cannot be multiplied",
            id="fixed sizes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_refused(
    module: Any, example: Any, flags: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        prune(module, example, **{"ratio": 0.5, **flags})
    assert message in str(caught.value)


class Tied(nn.Module):
    """Words go in and come out by the same weights; what lies between can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.inner, self.outer = nn.Linear(16, 32), nn.Linear(32, 16)
        self.scores = nn.Linear(16, 50, bias=False)
        self.scores.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.outer(torch.relu(self.inner(self.words(x)))))


def test_layers_that_have_their_weights_in_common_still_do() -> None:
    pruned = prune(Tied(), torch.zeros(2, 3, dtype=torch.long), ratio=0.5)
    assert pruned.module.scores.weight is pruned.module.words.weight
    assert pruned.module.inner.out_features == 16
    kept = {layer.name: layer.kept for layer in pruned.layers}
    assert kept["outer"] == "scores has its weights in common with words"


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Linear(4, 32), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, gate = self.gates(x).chunk(2, -1)
        return self.head(values * gate.sigmoid())


def test_a_layer_that_would_lose_more_than_was_asked_for_is_refused_before_anything_is_trained() -> None:
    torch.manual_seed(0)
    trained: list[int] = []
    with pytest.raises(FailedPrecondition, match=r"gates would lose \d+ of 32 channels, and not 0.5 of them"):
        prune(Gated(), ROWS, ratio=0.5, fine_tune=lambda _, step: trained.append(step))
    assert not trained


def test_what_counts_on_its_channels_is_pruned_around_them() -> None:
    assert channels(prune(CountsOnChannels(), IMAGES, ratio=0.5, keep=["conv"]))["mix"] == (16, 8)


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "find_spec", lambda _name: None)
    with pytest.raises(FailedPrecondition, match=r"needs torch, torch_pruning, .*'headrace\[torch\]'"):
        prune(perceptron(), ROWS, ratio=0.5)


def test_inference_mode_is_refused_with_what_to_do() -> None:
    with torch.inference_mode(), pytest.raises(FailedPrecondition, match=r"called under torch\.inference_mode"):
        prune(Residual(), IMAGES, ratio=0.5)


def test_no_grad_around_it_is_no_matter() -> None:
    with torch.no_grad():
        assert prune(Residual(), IMAGES, ratio=0.5).parameters.share < 0.6
