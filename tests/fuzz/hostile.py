"""Valid files and hostile ones made from them, for `tests.fuzz.files`.

Each maker writes into an empty folder and returns a command line of `av2tsam` that reads what it
wrote. The same random numbers make the same files.
"""

import csv
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from av2tsam_cli.__main__ import main
from av2tsam_cli.hub.checkpoint import load_network, save_network
from av2tsam_cli.model.av2tsam import build
from av2tsam_cli.synth.dataset import write_dataset

from ..conftest import tone, write_clip
from ..tiny import TINY_CHECKPOINT, reference_state, sentencepiece_model, tiny_bpe
from .mutate import mutate

Command = list[str]
Maker = Callable[["Samples", Path, Random], Command]

HOSTILE_NAMES = (
    *("..", ".", "", "../../outside/x", "/etc/passwd", "a\x1b[2J\x1b]0;x\x07", "a\nb", "\u202egpj"),
    *("a\x00b", "x" * 300, "CON", "-rf", "$(touch x)", "[red]a[/red]", "\udce9", "a|b", "`a`"),
)
"""Names that lead elsewhere, that no file can have, or that control a terminal or a shell."""
HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 2**31, 2**40, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan")),
    *(float("inf"), [], {}, [[]], [2**40, 2**40], {"a": {}}, "x" * 10_000, *HOSTILE_NAMES),
)
"""What replaces a value of JSON."""


@dataclass(frozen=True)
class Samples:
    """A folder of valid files."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Samples":
        """Write the samples, which takes a few seconds."""
        samples = cls(folder)
        torch.manual_seed(0)
        network = build(TINY_CHECKPOINT).eval()
        save_network(network, folder / "tiny.safetensors", {"metrics": {"epoch": 1}})
        torch.save(reference_state(network), folder / "published.pt")
        clap = {"audio_branch.bn0.weight": torch.ones(64), "audio_projection.0.bias": torch.ones(8)}
        torch.save({"epoch": np.float64(1), "state_dict": clap}, folder / "clap.pt")
        torch.save(clap, folder / "legacy.pt", _use_new_zipfile_serialization=False)
        (folder / "beit3.spm").write_bytes(sentencepiece_model())
        (folder / "tokenizer.json").write_bytes(tiny_bpe("gpt2"))
        sound = {"samples": tone(1.0, 16_000), "rate_hz": 16_000}
        write_clip(folder / "clip.mp4", rate=4, size=(32, 24), sounds=[sound])
        for subset in ("s4", "avss"):
            data = folder / "data"
            write_dataset(data, subset=subset, videos=3, seed=3, split_sizes=(1, 1, 1), workers=1)  # type: ignore[arg-type]
        shutil.copytree(
            folder / "data" / "Single-source" / "s4_data" / "gt_masks", folder / "masks"
        )
        (folder / "bomb.png").write_bytes(
            png(60_000, 60_000, 1, 0, zlib.compress(bytes(450_060_000), 1))
        )
        train = ["train", "--data", str(folder / "data"), "-m", str(folder / "tiny.safetensors")]
        train += ["-o", str(folder / "run"), "--max-steps", "1", "--no-test", "--quiet"]
        if main([*train, "--cache", str(folder / "cache"), "--device", "cpu"]):
            raise RuntimeError("the training for the samples failed")
        return samples


def png(width: int, height: int, depth: int, colour: int, content: bytes) -> bytes:
    """Return a PNG with this header, whatever its content is."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def mutate_json(value: Any, random: Random) -> Any:  # noqa: PLR0911
    """Return JSON in which one value or key is changed, removed, repeated or nested."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.2:
            return {random.choice(HOSTILE_NAMES) if k == key else k: v for k, v in value.items()}
        if kind < 0.25:
            return {**value, random.choice(HOSTILE_NAMES): random.choice(HOSTILE_VALUES)}
        return {k: mutate_json(v, random) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        if random.random() < 0.2:
            return value * random.choice((0, 2, 1000))
        return [mutate_json(v, random) if k == at else v for k, v in enumerate(value)]
    return random.choice((*HOSTILE_VALUES, [value], {"a": value}, str(value)))


def json_text(value: Any, random: Random) -> str:
    """Return JSON as text, sometimes damaged or nested very deeply."""
    text = json.dumps(value)
    kind = random.random()
    if kind < 0.05:
        return "[" * 100_000
    if kind < 0.1:
        return '{"a":' * 50_000 + "1" + "}" * 50_000
    if kind < 0.25:
        data, _ = mutate(text.encode(), random)
        return data.decode("utf-8", "replace")
    return text


# --- checkpoints ---------------------------------------------------------------------------------


def uses(path: Path, samples: Samples, folder: Path, random: Random) -> Command:
    """Return a command that reads a checkpoint of this tool."""
    p, clip, out = str(path), str(samples.folder / "clip.mp4"), str(folder / "out")
    train = ["train", "--data", str(samples.folder / "data"), "-m", p, "-o", out, "--no-test"]
    return random.choice(
        (
            ["models", "info", p],
            ["models", "info", p, "--json"],
            ["models", "info", p, "--flops"],
            ["models", "convert", p, "-o", f"{out}.safetensors"],
            ["segment", clip, "-o", out, "-f", "masks", "-m", p, "--json"],
            ["segment", clip, "-o", f"{out}.mp4", "-m", p, "--text", "dog"],
            ["listen", clip, "-m", p, "--json"],
            [*train, "--max-steps", "1", "--cache", str(samples.folder / "cache")],
        )
    )


def checkpoint_bytes(samples: Samples, folder: Path, random: Random) -> Command:
    """Mutate the bytes of a checkpoint of this tool."""
    data, _ = mutate((samples.folder / "tiny.safetensors").read_bytes(), random)
    (folder / "m.safetensors").write_bytes(data)
    return uses(folder / "m.safetensors", samples, folder, random)


def checkpoint_header(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the header of a safetensors file: types, shapes, offsets, metadata, its length."""
    data = (samples.folder / "tiny.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    for _ in range(random.choice((1, 1, 3))):
        kind, name = random.randrange(6), random.choice(names)
        if kind == 0:
            header = mutate_json(header, random)
        elif kind == 1 and isinstance(header, dict) and isinstance(header.get(name), dict):
            header[name] = mutate_json(header[name], random)
        elif kind == 2 and isinstance(header, dict):
            header[name] = header.get(random.choice(names))  # overlapping offsets
        elif kind == 3 and isinstance(header, dict):
            shape = [2**20, 2**20] if random.random() < 0.5 else [0, 2**62]
            entry = header.get(name)
            header[name] = {**entry, "shape": shape} if isinstance(entry, dict) else None
        elif kind == 4 and isinstance(header, dict):
            header["__metadata__"] = mutate_json(header.get("__metadata__", {}), random)
    text = json_text(header, random).encode("utf-8", "surrogatepass")
    size = len(text) if random.random() < 0.8 else random.choice((0, 2**31, 2**63, len(text) - 1))
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", size) + text + data[8 + length :])
    return uses(folder / "m.safetensors", samples, folder, random)


def checkpoint_config(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the configuration or the other JSON in the metadata of a checkpoint."""
    network = load_network(samples.folder / "tiny.safetensors")
    metadata = {
        "format": "av2tsam-1",
        "config": network.config.to_json(),
        "metrics": '{"epoch": 1}',
        "data": '{"name": "avsbench", "subset": "s4"}',
        "card": '{"scores": {"s4": {"miou": 0.5}, "ms3": {"miou": 0.5}}}',
    }
    name = random.choice(("config", "config", "config", "config", "metrics", "data", "card"))
    value = json.loads(metadata[name])
    for _ in range(random.choice((1, 1, 2))):
        value = mutate_json(value, random)
    metadata[name] = json_text(value, random).encode("utf-8", "replace").decode()
    save_file(network.state_dict(), folder / "m.safetensors", metadata)
    return uses(folder / "m.safetensors", samples, folder, random)


def checkpoint_tensors(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the shapes, types, values and names of some tensors of a checkpoint."""
    network = load_network(samples.folder / "tiny.safetensors")
    state = dict(network.state_dict())
    for _ in range(random.choice((1, 1, 4))):
        name = random.choice(list(state))
        tensor = state.pop(name)
        kind = random.randrange(7)
        changed = (
            tensor.flatten(),
            tensor[None].expand(2, *tensor.shape).contiguous(),
            tensor.to(random.choice((torch.float64, torch.bool, torch.int64, torch.complex64))),
            torch.full_like(tensor, random.choice((0, 1))),
            tensor * float("nan") if tensor.is_floating_point() else tensor,
            torch.zeros(0),
        )
        if kind < len(changed):
            state[name] = changed[kind]
        else:
            state[random.choice(HOSTILE_NAMES[:8]) + name] = tensor
    metadata = {"format": "av2tsam-1", "config": network.config.to_json()}
    save_file(state, folder / "m.safetensors", metadata)
    return uses(folder / "m.safetensors", samples, folder, random)


def converted(path: Path, folder: Path, random: Random) -> Command:
    """Return a command that converts a file or folder."""
    out = [] if random.random() < 0.3 else ["-o", str(folder / "out.safetensors")]
    return ["models", "convert", str(path), *out, *(["--json"] if random.random() < 0.3 else [])]


def pickle_bytes(samples: Samples, folder: Path, random: Random) -> Command:
    """Mutate the bytes of a published checkpoint, or of the pickle in its archive."""
    name = random.choice(("published.pt", "clap.pt", "legacy.pt"))
    data, path = (samples.folder / name).read_bytes(), folder / "m.pth"
    if name == "legacy.pt" or random.random() < 0.5:
        path.write_bytes(
            mutate(data, random, marks=(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))[0]
        )
        return converted(path, folder, random)
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    chosen = random.choice(("data.pkl", "data.pkl", "version", "byteorder", "data/0"))
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(path, "w", compression) as to:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith(f"/{chosen}"):
                content, _ = mutate(content, random)
            new = item.filename
            if random.random() < 0.02:
                new = "archive/" + random.choice(HOSTILE_NAMES[:6])
            to.writestr(new, content)
    return converted(path, folder, random)


class Reduced:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _hostile_objects(random: Random) -> list[Any]:
    loop: dict[str, Any] = {"a": torch.ones(1)}
    loop["model"] = loop
    laugh: Any = ("x",)
    for _ in range(60):
        laugh = (laugh, laugh)
    deep: Any = []
    for _ in range(random.choice((50, 150))):
        deep = [deep]
    huge = torch.zeros(1).expand(2**20, 2**20)
    published = {"audio_branch.relative_position_index": torch.zeros(1, dtype=torch.int64)}
    published["audio_branch.layers.0.blocks.0.attn.relative_position_index"] = huge
    return [
        *(loop, {"a": laugh}, deep, {"model": deep}, {"a": huge}, {"audio_branch.x": huge}),
        *(published, {1: torch.ones(1)}, {"\x1b[2J": torch.ones(1)}, {"\x1b[2J": 1}, [], {}, 5),
        *({None: None}, {"state_dict": []}, {"a": Reduced(bytearray, 2**36)}),
        *({"a": Reduced(set, [1])}, {"a": Reduced(torch.Size, [2**40])}),
        *(Reduced(os.system, "touch outside"), {"a": Reduced(eval, "1")}),
        *({"a": Reduced(os.mkdir, "outside")}, Reduced(exec, "import os; os.abort()")),
        *(OrderedDict(a=torch.ones(2, 2).to_sparse()), {"a": torch.ones(1).requires_grad_()}),
        *({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        *({"module." * 9 + "a": torch.ones(1)}, {"model": {"model": {"a": torch.ones(1)}}}),
        *({"a" * 100_000: torch.ones(1)}, {("a", "b"): torch.ones(1)}, {"a": Path("/etc")}),
        *({"a": np.zeros(3)}, {"a": Reduced(torch.FloatTensor, 2**20, 2**20)}),
    ]


def pickle_object(samples: Samples, folder: Path, random: Random) -> Command:
    """Pickle an object that is no checkpoint, or that would run code or exhaust the memory."""
    path, value = folder / "m.pt", random.choice(_hostile_objects(random))
    kind = random.randrange(3)
    if kind == 2:
        try:
            path.write_bytes(pickle.dumps(value, protocol=random.randrange(6)))
        except (pickle.PicklingError, TypeError, RecursionError, AttributeError):
            kind = 1
    if kind < 2:
        torch.save(value, path, _use_new_zipfile_serialization=bool(kind))
    return converted(path, folder, random)


def pickle_opcodes(samples: Samples, folder: Path, random: Random) -> Command:
    """Write a pickle by hand: with huge sizes, endless memos, or an unknown instruction."""
    body = random.choice(
        (
            *(b"\x80\x02X\xff\xff\xff\xffa.", b"\x80\x04\x8d" + b"\xff" * 8 + b"a.", b"\x80\xff."),
            *(b"\x80\x02" + b"(" * 100_000 + b".", b"\x80\x02}" + b"\x85" * 100_000 + b"."),
            b"\x80\x02" + b"]q\x00" + b"h\x00a" * 1000 + b".",
            b"\x80\x02}X\x01\x00\x00\x00a" + b"]" + b"\x85" * 2000 + b"s.",
            *(b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."),
            *(
                b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
                b"cos\nsystem\n(S'true'\ntR.",
                b"\x80\x02N.",
            ),
            *(b"\x80\x02ccollections\nCounter\n)R.", b"(dp0\nS'a'\np1\nI1\ns.", b"\x80\x02h\xff."),
        )
    )
    body = body if isinstance(body, bytes) else b"\x80\x02" + bytes([body])
    if random.random() < 0.5:
        with zipfile.ZipFile(folder / "m.pt", "w") as archive:
            archive.writestr("archive/data.pkl", body)
            archive.writestr("archive/version", "3\n")
    else:
        (folder / "m.pt").write_bytes(body)
    return converted(folder / "m.pt", folder, random)


def zip_bomb(samples: Samples, folder: Path, random: Random) -> Command:
    """Compress gigabytes into an archive, or declare them."""
    path = folder / "m.pt"
    size = random.choice((2**26, 2**28))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(random.choice(("archive/data.pkl", "archive/data/0")), "w") as file:
            for _ in range(size >> 24):
                file.write(bytes(1 << 24))
        if random.random() < 0.5:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return converted(path, folder, random)


def shards(samples: Samples, folder: Path, random: Random) -> Command:
    """Change an index of shards: names that lead elsewhere, loops, wrong types."""
    source = folder / "shards"
    source.mkdir()
    outside = folder / "secret.safetensors"
    for path in (outside, source / "1.safetensors"):
        save_file({"visual.proj": torch.ones(2)}, path)
    index: Any = {"metadata": {}, "weight_map": {"visual.proj": "1.safetensors"}}
    name = random.choice(("model.safetensors.index.json", "pytorch_model.bin.index.json"))
    targets = (
        name,
        "../secret.safetensors",
        str(outside),
        ".",
        "..",
        "../shards",
        "1.safetensors/.",
    )
    kind = random.random()
    if kind < 0.6:
        index["weight_map"] = {"visual.proj": random.choice((*targets, *HOSTILE_NAMES))}
    else:
        index = mutate_json(index, random)
    (source / name).write_text(json_text(index, random), encoding="utf-8", errors="replace")
    return converted(source if random.random() < 0.7 else source / name, folder, random)


def tokenizer(samples: Samples, folder: Path, random: Random) -> Command:
    """Mutate a tokenizer."""
    name = random.choice(("beit3.spm", "beit3.spm", "tokenizer.json"))
    data = (samples.folder / name).read_bytes()
    if name == "tokenizer.json" and random.random() < 0.5:
        data = json_text(mutate_json(json.loads(data), random), random).encode("utf-8", "replace")
    elif random.random() < 0.1:
        data = b"\x80" * 200_000
    else:
        data, _ = mutate(data, random)
    (folder / name).write_bytes(data)
    return ["models", "convert", str(folder / name)]


def installed(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the files in the folder of installed models."""
    home = folder / "home"
    home.mkdir()
    record: Any = {
        "name": "clap-laion",
        "sha256": "0" * 64,
        "bytes": 5,
        "source": {"file": "a", "sha256": None, "repository": None, "revision": None},
        "date": "2026-01-01",
        "tool": "av2tsam",
    }
    name = random.choice(("clap-laion", "evf-sam", "mine", "a\x1b[2J", "evf-sam2-text"))
    text = json_text(mutate_json(record, random), random)
    (home / f"{name}.json").write_text(text, encoding="utf-8", errors="replace")
    data = (samples.folder / "tiny.safetensors").read_bytes()
    (home / f"{name}.safetensors").write_bytes(mutate(data, random)[0])
    command = random.choice(("list", "verify", "info", "path", "remove"))
    json_flag = ["--json"] if random.random() < 0.5 else []
    named = [] if command == "list" or (command == "verify" and random.random() < 0.5) else [name]
    return ["models", command, *named, *json_flag]


CHECKPOINTS: tuple[Maker, ...] = (
    *(checkpoint_bytes, checkpoint_header, checkpoint_config, checkpoint_config),
    *(checkpoint_tensors, pickle_bytes, pickle_bytes, pickle_object, pickle_opcodes, zip_bomb),
    *(shards, tokenizer, installed),
)


# --- other files ---------------------------------------------------------------------------------

OPTIONS = """\
epochs: 2
lr: 2e-4
batch_size: 4
subset: ms3
adapter: true
max_steps: null
"""
TOML = """\
epochs = 2
lr = 2e-4
subset = "ms3"
adapter = true
"""
VOCABULARY = """\
[[source]]
name = "dog"
sounds = ["a dog barking"]
synonyms = ["puppy"]
avss = "dog"

[[source]]
name = "kazoo"
looks = "kazoo"
all_instances = true

[[background]]
name = "rain"
sounds = ["rain falling"]
"""


def _hostile_text(text: str, random: Random) -> bytes:
    """Return a text with its lines or bytes changed, of bombs, or of deep nesting."""
    kind = random.random()
    if kind < 0.1:
        return random.choice(
            (
                b"a: " + b"[" * 20_000,
                b"epochs = " + b"[" * 20_000,
                b"x" * 5_000_000,
                b"\xff\xfe" + text.encode("utf-16-le"),
                b"a: &a [x]\n"
                + b"".join(b"a%d: &a%d [%s]\n" % (k, k, b"*a," * 9) for k in range(9)),
                b"lr: {a: &a [x,x], b: &b [*a,*a,*a,*a], c: &c [*b,*b,*b,*b], d: [*c,*c,*c,*c]}",
                b"!!python/object/apply:os.system ['touch outside']",
                b"epochs: !!python/name:os.system",
                b"source = [\n" + b'{name = "a"},\n' * 30_000 + b"]\n",
                b"a.b.c.d" * 5000 + b" = 1",
                b"name\n" * 200_000,
                "".join(f"{k:x}\n" for k in range(60_000)).encode(),
            )
        )
    if kind < 0.5:
        return mutate(text.encode(), random)[0]
    lines = text.splitlines()
    at = random.randrange(len(lines))
    key, mark, _ = lines[at].partition("=" if "=" in lines[at] else ":")
    value = random.choice(HOSTILE_VALUES)
    lines[at] = random.choice(
        (
            f"{key}{mark} {value!r}",
            f"{key}{mark} {json.dumps(value)}",
            f"{value}{mark} 1",
            str(value),
        )
    )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def option_file(samples: Samples, folder: Path, random: Random) -> Command:
    """Change a file of options."""
    suffix = random.choice((".yaml", ".toml", ".yml"))
    path = folder / f"options{suffix}"
    path.write_bytes(_hostile_text(TOML if suffix == ".toml" else OPTIONS, random))
    command = random.choice(("train", "evaluate"))
    out = ["-o", str(folder / "out")] if command == "train" else []
    return [command, "--config", str(path), "--data", str(folder / "absent"), *out]


def vocabulary(samples: Samples, folder: Path, random: Random) -> Command:
    """Change a vocabulary."""
    path = folder / random.choice(("v.toml", "v.txt"))
    text = VOCABULARY if path.suffix == ".toml" else "dog\ncat = a cat meowing; a cat hissing\n"
    path.write_bytes(_hostile_text(text, random))
    clip = str(samples.folder / "clip.mp4")
    return random.choice(
        (
            ["vocabulary", "check", str(path)],
            ["vocabulary", "check", str(path), "--json"],
            ["vocabulary", "show", str(path)],
            ["vocabulary", "show", str(path), "--json"],
            ["listen", clip, "--vocabulary", str(path), "-m", "nano"],
        )
    )


def _copy_data(samples: Samples, folder: Path) -> Path:
    return Path(shutil.copytree(samples.folder / "data", folder / "data"))


def _reads_data(samples: Samples, data: Path, folder: Path, subset: str, random: Random) -> Command:
    masks = str(samples.folder / "masks")
    checks = (
        ["data", "check", str(data)],
        ["data", "check", str(data), "--subset", subset, "--json"],
        ["data", "check", str(data), "--subset", subset, "--strict"],
        ["evaluate", "--data", str(data), "--subset", subset, "--predictions", masks],
    )
    return random.choice(checks)


def table(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the CSV of a data set, or its table of classes."""
    data = _copy_data(samples, folder)
    subset = random.choice(("s4", "avss"))
    path = next(data.rglob("s4_meta_data.csv" if subset == "s4" else "metadata.csv"))
    if subset == "avss" and random.random() < 0.3:
        path = next(data.rglob("label2idx.json"))
        content = json_text(mutate_json(json.loads(path.read_text()), random), random)
        path.write_text(content, encoding="utf-8", errors="replace")
        return _reads_data(samples, data, folder, subset, random)
    kind = random.random()
    if kind < 0.4:
        path.write_bytes(mutate(path.read_bytes(), random)[0])
    else:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        for _ in range(random.choice((1, 1, 3))):
            row = random.choice(rows)
            row[random.randrange(len(row))] = str(random.choice(HOSTILE_VALUES))
        if random.random() < 0.1:
            rows = rows * 2000
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    return _reads_data(samples, data, folder, subset, random)


def _hostile_image(valid: bytes, samples: Samples, random: Random) -> bytes:
    """Return a damaged image, or one that is small and declares to be large."""
    kind = random.random()
    if kind < 0.5:
        return mutate(valid, random, marks=(b"IHDR", b"IDAT", b"PLTE"))[0]
    if kind < 0.6:
        return (samples.folder / "bomb.png").read_bytes()
    width, height = random.choice(
        ((60_000, 60_000), (0, 0), (1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (8192, 8192), (224, 0))
    )
    depth, colour = random.choice(((8, 0), (16, 6), (1, 0), (8, 3), (3, 9), (16, 2)))
    content = random.choice(
        (b"", zlib.compress(bytes(100_000)), zlib.compress(bytes(2**24)), valid)
    )
    if kind < 0.9:
        return png(width, height, depth, colour, content)
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, random.choice(("GIF", "TIFF", "BMP", "WEBP", "JPEG")))
    return random.choice((b"\x89PNG\r\n\x1a\n" + end, file.getvalue(), b"", valid + bytes(1000)))


def image(samples: Samples, folder: Path, random: Random) -> Command:
    """Change a mask or a frame of a data set."""
    data = _copy_data(samples, folder)
    subset = random.choice(("s4", "s4", "avss"))
    base = data / ("Single-source" if subset == "s4" else "AVSBench_semantic")
    files = sorted([*base.rglob("*.png"), *base.rglob("*.jpg")])
    for path in random.sample(files, random.choice((1, 3))):
        path.write_bytes(_hostile_image(path.read_bytes(), samples, random))
    return _reads_data(samples, data, folder, subset, random)


def sound(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the sound of a data set."""
    data = _copy_data(samples, folder)
    path = random.choice(sorted((data / "Single-source").rglob("*.wav")))
    path.write_bytes(mutate(path.read_bytes(), random, marks=(b"RIFF", b"fmt ", b"data"))[0])
    cache = ["--cache", str(folder / "cache"), "--device", "cpu"]
    model = ["-m", str(samples.folder / "tiny.safetensors"), *cache]
    evaluate = ["evaluate", "--data", str(data), "--subset", "s4", "--skip-bad", *model]
    return evaluate if random.random() < 0.3 else _reads_data(samples, data, folder, "s4", random)


def predicted(samples: Samples, folder: Path, random: Random) -> Command:
    """Change predicted masks, or write hostile logits."""
    masks = Path(shutil.copytree(samples.folder / "masks", folder / "masks"))
    path = random.choice(sorted((masks / "test").rglob("*.png")))
    if random.random() < 0.6:
        path.write_bytes(_hostile_image(path.read_bytes(), samples, random))
    else:
        path.parent.with_suffix(".npz").write_bytes(_logits(random))
    data = ["--data", str(samples.folder / "data"), "--subset", "s4"]
    outputs = ["--csv", str(folder / "o.csv")] if random.random() < 0.3 else []
    return ["evaluate", *data, "--predictions", str(masks), *outputs, "--json"]


def _logits(random: Random) -> bytes:
    """Return an NPZ of logits with an array of another shape or type, or one that is a bomb."""
    file = io.BytesIO()
    shape = random.choice(((5, 6, 8), (5, 224, 224), (5,), (0, 6, 8), (5, 1, 1), (5, 6, 0)))
    seconds = random.choice((np.arange(5), np.zeros(5), np.array(["a"] * 5), np.array(5), None))
    kind = random.choice(("<f2", "<f8", "|S3", "<c16", "<M8[s]", "|b1", "|O"))
    logits = np.zeros(shape, kind)
    np.savez_compressed(file, logits=logits, seconds=seconds)
    data = file.getvalue()
    if random.random() < 0.4:
        return mutate(data, random, marks=(b"PK\x01\x02", b"PK\x03\x04", b"NUMPY"))[0]
    declared = random.choice(
        ("(5, 1000000, 1000000)", "(5, 60000, 60000)", "(99999999999999999999,)")
    )
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {declared}, }}".encode()
    header = header.ljust(117) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    if random.random() < 0.5:
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("logits.npy", "w") as entry:
                entry.write(npy)
                for _ in range(8):
                    entry.write(bytes(2**27))
            archive.writestr("seconds.npy", b"\x93NUMPY" + bytes(20))
        return bomb.getvalue()
    return data


def old_masks(samples: Samples, folder: Path, random: Random) -> Command:
    """Replace a result whose `names.json` lists folders outside it, or is not one."""
    out = folder / "out"
    result = out / "clip"
    result.mkdir(parents=True)
    names: Any = {"frames": 1, "names": [{"name": "dog", "folder": "dog", "frames": 1}]}
    if random.random() < 0.5:
        names["names"][0]["folder"] = random.choice((*HOSTILE_NAMES, "../../outside", str(folder)))
    else:
        names = mutate_json(names, random)
    text = json_text(names, random)
    (result / "names.json").write_text(text, encoding="utf-8", errors="replace")
    kind = random.randrange(4)
    outside = folder / "outside"
    if kind == 0:
        (result / "dog").symlink_to(outside)
    elif kind == 1:
        (result / "000000.png").symlink_to(outside / "keep.png")
    elif kind == 2:
        shutil.rmtree(result)
        result.symlink_to(outside)
    model = ["-m", str(samples.folder / "tiny.safetensors"), "--text", "dog", "--overwrite"]
    clip = str(samples.folder / "clip.mp4")
    return ["segment", clip, "-o", str(out), "-f", random.choice(("masks", "named-masks")), *model]


def run(samples: Samples, folder: Path, random: Random) -> Command:
    """Change the files of a training, then resume or compare it."""
    path = Path(shutil.copytree(samples.folder / "run", folder / "run"))
    name = random.choice(
        ("run.json", "run.json", "resume.safetensors", "steps.csv", "best.safetensors")
    )
    if name == "run.json":
        record = json.loads((path / name).read_text())
        text = json_text(mutate_json(record, random), random)
        (path / name).write_text(text, encoding="utf-8", errors="replace")
    elif name == "resume.safetensors" and random.random() < 0.7:
        _change_state(path / name, random)
    else:
        (path / name).write_bytes(mutate((path / name).read_bytes(), random)[0])
    resume = ["train", "-o", str(path), "--resume", "--max-steps", "2", "--quiet"]
    resume += ["--cache", str(samples.folder / "cache"), "--device", "cpu"]
    return resume if random.random() < 0.6 else ["runs", "compare", str(path), "--json"]


def _change_state(path: Path, random: Random) -> None:
    """Change the JSON or the tensors of the state to resume from."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    if random.random() < 0.7:
        state = mutate_json(json.loads(header["__metadata__"]["state"]), random)
        header["__metadata__"]["state"] = (
            json_text(state, random).encode("utf-8", "replace").decode()
        )
    else:
        name = random.choice([name for name in header if name != "__metadata__"])
        header[random.choice(("x", "optimiser:x", "optimiser:a:b", "random:cpu2"))] = header.pop(
            name
        )
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


OTHERS: tuple[Maker, ...] = (
    *(option_file, option_file, vocabulary, vocabulary, table, table, image, image, predicted),
    *(predicted, sound, old_masks, run),
)
KINDS: dict[str, tuple[Maker, ...]] = {"checkpoints": CHECKPOINTS, "others": OTHERS}
"""The makers of each kind of file."""
