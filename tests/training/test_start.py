"""The network that a training starts from, and the part of it that is trained."""

import dataclasses
from pathlib import Path

import pytest
import torch

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import load_network, save_network, write_tensors
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import ModelConfig, ProjectorKind
from av2tsam_cli.model.sam import best_mask
from av2tsam_cli.training.losses import mask_loss
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.start import (
    freeze_untrained,
    load_starting_point,
    set_gradient_checkpointing,
)

from ..tiny import TINY_SAM2


def options(model: Path | str, **other: object) -> TrainOptions:
    return TrainOptions(out=Path("run"), model=str(model), **other)  # type: ignore[arg-type]


def weights(network: Av2tSam, part: str) -> dict[str, torch.Tensor]:
    return {n: t for n, t in network.state_dict().items() if n.startswith(part)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_init_paper_replaces_projector_and_adapters_and_keeps_the_text_prompted_sam(
    tiny_model: Path,
) -> None:
    stored = load_network(tiny_model)
    torch.manual_seed(1)
    start = load_starting_point(options(tiny_model, init="paper"))
    network = start.network
    assert same(weights(network, "text_sam"), weights(stored, "text_sam"))
    assert same(weights(network, "clap"), weights(stored, "clap"))
    assert not same(weights(network, "projector"), weights(stored, "projector"))
    assert network.adapter is not None
    assert all(not vector.any() for vector in network.adapter(torch.ones(1, 16)))
    assert str(start) == (
        f"starting from {tiny_model}: all weights but projector and adapters; new projector and "
        "adapters"
    )


def test_trained_checkpoint_is_continued_from_all_of_its_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    network = load_network(tiny_model)
    path = tmp_path / "best.safetensors"
    data = {"name": "avsbench", "subset": "s4", "videos": 3452}
    save_network(network, path, {"data": data, "metrics": {"epoch": 12}})
    start = load_starting_point(options(path))
    assert same(start.network.state_dict(), network.state_dict())
    assert str(start) == (f"starting from {path}: all weights, trained on avsbench s4 to epoch 12")
    without = load_starting_point(options(path, adapter=False))
    assert without.network.adapter is None
    assert without.network.config.adapter is False
    assert str(without) == (
        f"starting from {path}: all weights but adapters, trained on avsbench s4 to epoch 12"
    )


def test_new_adapters_are_added_to_a_checkpoint_without_any(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "best.safetensors"
    save_network(load_starting_point(options(tiny_model, adapter=False)).network, path)
    assert load_starting_point(options(path)).network.adapter is None
    start = load_starting_point(options(path, adapter=True))
    assert str(start) == f"starting from {path}: all weights; new adapters"


@pytest.mark.parametrize(("option", "value"), [("projector", "clap"), ("clap", "microsoft")])
def test_trained_projector_keeps_its_kind_and_its_clap(
    option: str, value: str, tiny_model: Path
) -> None:
    with pytest.raises(UsageError, match=rf"`{option}` {value}: .*set `init` to paper"):
        load_starting_point(options(tiny_model, **{option: value}))


def test_different_clap_is_loaded_from_its_own_file(tiny_model: Path) -> None:
    with pytest.raises(WeightsError, match="clap-microsoft"):
        load_starting_point(options(tiny_model, clap="microsoft", init="paper"))


def test_preset_name_stands_for_its_text_prompted_sam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    for init in ("auto", "paper"):
        with pytest.raises(WeightsError, match="evf-sam2-text"):
            load_starting_point(options("evf-sam2", init=init))


def test_default_model_is_the_best_text_prompted_sam_else_nano(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    start = load_starting_point(TrainOptions(out=Path("run")))
    assert str(start) == "starting from nano: all weights"
    assert same(start.network.state_dict(), load_network(locate.resolve("nano")).state_dict())
    text_only(tiny_model, tmp_path / "evf-sam-text.safetensors")
    start = load_starting_point(TrainOptions(out=Path("run")))
    assert start.model == "evf-sam-text"


def text_only(model: Path, path: Path) -> None:
    """Write a text-prompted SAM like evf-sam2-text.safetensors, without projector and adapters."""
    stored = load_network(model)
    kept = ("clip.", "clap.", "text_sam.")
    tensors = {n: t for n, t in stored.state_dict().items() if n.startswith(kept)}
    write_tensors(tensors, path, stored.config)


@pytest.mark.parametrize("init", ["auto", "paper"])
def test_text_prompted_sam_gets_a_new_projector_and_adapters(
    init: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny-text.safetensors"
    text_only(tiny_model, path)
    start = load_starting_point(options(path, init=init))
    assert start.network.config == load_network(tiny_model).config
    assert str(start) == f"starting from {path}: all weights; new projector and adapters"
    assert start.initialised == ("projector", "adapter")


def test_former_choices_of_init_are_a_usage_error() -> None:
    for former in ("fresh", "model"):
        with pytest.raises(UsageError, match=f"unknown init '{former}'; use auto or paper"):
            options("nano", init=former)


@pytest.fixture(params=["sam", "sam2"])
def config(request: pytest.FixtureRequest, tiny_model: Path) -> ModelConfig:
    config = load_network(tiny_model).config
    return config if request.param == "sam" else dataclasses.replace(config, sam=TINY_SAM2)


def loss_of(network: Av2tSam) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 3, 40, 40), generator=generator, dtype=torch.uint8)
    config = network.config
    clip = torch.randn(3, config.clip.embed_dim, generator=generator)
    clap = torch.randn(3, config.clap.embed_dim, generator=generator)
    logits = best_mask(network(*network.prepare(frames), clip, clap))
    return mask_loss(logits, (torch.rand(logits.shape, generator=generator) > 0.5).float())


@pytest.mark.parametrize("projector", ["mul", "clap", "clip"])
@pytest.mark.parametrize("adapter", [True, False])
def test_exactly_the_trained_parameters_have_a_gradient(
    config: ModelConfig, projector: ProjectorKind, adapter: bool
) -> None:
    # Processes that exchange gradients would wait forever for a missing one.
    network = build(dataclasses.replace(config, projector=projector, adapter=adapter)).eval()
    trained = freeze_untrained(network)
    loss_of(network).backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {
        name for name, _ in trained
    }
    paper = {name for name, _ in network.trained_parameters()}
    untrained = paper - {name for name, _ in trained}
    heads = ("iou_prediction_head", "pred_obj_score_head", "audio_proj", "vision_proj")
    assert all(any(head in name for head in heads) for name in untrained)


def test_gradient_checkpointing_gives_the_same_gradient(config: ModelConfig) -> None:
    torch.manual_seed(0)
    network = build(config).eval()
    trained = freeze_untrained(network)
    gradients = []
    for enabled in (False, True):
        set_gradient_checkpointing(network, enabled)
        parameters = [p for _, p in trained]
        gradients.append(torch.autograd.grad(loss_of(network), parameters))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_gradient_checkpointing_stores_fewer_activations(
    config: ModelConfig,
) -> None:
    network = build(config).eval()
    freeze_untrained(network)
    kept = []
    for enabled in (False, True):
        set_gradient_checkpointing(network, enabled)
        sizes: list[int] = []

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss_of(network)
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]


def test_gradient_checkpointing_is_off_for_small_networks_by_default(tiny_model: Path) -> None:
    network = load_network(tiny_model)
    set_gradient_checkpointing(network, None)
    assert network.text_sam.beit3.encoder.gradient_checkpointing is False
    set_gradient_checkpointing(network, True)
    assert network.text_sam.beit3.encoder.gradient_checkpointing is True
