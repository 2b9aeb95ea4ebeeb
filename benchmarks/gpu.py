"""Speed, memory and correctness on one GPU: the network, `segment`, training.

    python benchmarks/gpu.py --out gpu.json --budget 560

Sections run in the order of their importance until the seconds of `--budget` are used up. The
results are written after each; a section that fails is recorded with its error, and the next one
begins. Full-size networks have random weights, made on the GPU. The video, 1080p at 30 frames per
second, is generated; every frame is computed, also in silence. In `segment`, the masks of random
weights, which are noise, are replaced by a disc that covers half of the frame.

`frames_per_s` of a network covers everything but CLAP, resizing and codecs; `share_of_peak` is the
number of its operations per second, divided by that of a product of two large matrices in the same
precision. `ratio` compares it with a plain implementation in fp32 (see baseline.py). `utilisation`
is NVML's: the share of time in which any kernel runs. On a CPU, it only shows that it works.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import av
import numpy as np
import torch
from av.codec.hwaccel import HWAccel
from baseline import compare, run_ours, time_parts
from machine import MIB, facts, median_of, peak_flops, peak_rss_bytes, seconds, wait_for
from networks import cast, random_network, scene, write_video
from pipeline import Replaying, Timed, record, run_network, timed
from torch.profiler import ProfilerActivity, profile

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.cache import Embeddings
from av2tsam_cli.data.samples import Sample
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.registry import BUNDLED_MODEL
from av2tsam_cli.inference.device import choose_device
from av2tsam_cli.inference.distributed import start_fabric
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.segmenter import Segmenter, compile_network
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import PRESETS, ModelConfig
from av2tsam_cli.model.cost import count_costs
from av2tsam_cli.model.sam import MaskPrediction
from av2tsam_cli.outputs.writers import open_writer
from av2tsam_cli.pipeline import segment_planned
from av2tsam_cli.plan import SegmentPlan, plan_video
from av2tsam_cli.process import tune_process
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.training.learner import Learner
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.values import MaskedFrame

Result = dict[str, object]

ROOT = Path(__file__).resolve().parents[1]
SECONDS_PER_CLIP, FRAME_PX = 5, 224
"""Labelled seconds of a training video, and the side of its frames and masks, as in AVSBench."""
ENGINES = {
    "decoders": ("h264_cuvid", "hevc_cuvid", "vp9_cuvid", "av1_cuvid"),
    "encoders": ("h264_nvenc", "hevc_nvenc", "av1_nvenc"),
}
"""FFmpeg's names for NVDEC and NVENC."""
TESTS_S = 130
"""Most seconds for the tests."""
SAMPLE_S = 0.1
"""Seconds between two readings of the utilisation."""


def main() -> None:
    """Run all sections and print their results on one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--budget", type=float, default=560, help="seconds for everything")
    parser.add_argument("--only", help="sections to run, comma-separated; default: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batches", default="1,2,4,8,16,32", help="frames per batch")
    parser.add_argument("--segment-batches", default="8,16", help="the same, for `segment`")
    parser.add_argument("--clips", type=int, default=8, help="training videos per batch")
    parser.add_argument("--size", default="1920x1080", help="width and height of the video")
    parser.add_argument("--rate", type=int, default=30, help="its frames per second")
    parser.add_argument("--seconds", type=int, default=8, help="its length")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    tune_process()  # as the command line does
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        bench = Bench(args, choose_device(args.device), Path(folder))
        bench.start_video(pool)
        wanted = args.only.split(",") if args.only else SECTIONS
        for name in wanted:
            bench.run_section(name)
    print(json.dumps(bench.results | facts(bench.device)))


@dataclass
class Bench:
    """What the sections share: options, the video, the results so far."""

    args: argparse.Namespace
    """The options."""
    device: torch.device
    """Where the networks run."""
    folder: Path
    """Folder for the video and what is made of it."""
    began_s: float = field(default_factory=time.monotonic)
    """When the script began."""
    results: Result = field(default_factory=dict)
    """The results of each section by name."""

    def start_video(self, pool: ThreadPoolExecutor) -> None:
        """Generate the video on another thread, while the tests run in another process."""
        size = tuple(map(int, self.args.size.split("x")))
        path = self.folder / "video.mp4"

        def write() -> Path:
            write_video(path, self.args.seconds, size=size, rate=self.args.rate)
            self.say("the video is ready")
            return path

        self._video: Future[Path] = pool.submit(write)

    @property
    def video(self) -> Path:
        """The video."""
        return self._video.result()

    def run_section(self, name: str) -> None:
        """Run a section, unless it needs more time than is left, and write the results."""
        subject, _, kind = name.rpartition(" ")
        needed_s, run = KINDS[kind]
        left_s = self.args.budget - self.elapsed_s
        began_s = time.monotonic()
        if self.device.type == "cuda" and left_s < needed_s:
            self.say(f"{name}: skipped, {left_s:.0f} s left")
            self.results[name] = {"skipped": f"{left_s:.0f} s left, about {needed_s} s needed"}
        else:
            self.say(f"{name} ...")
            self.results[name] = run_safely(run, self, subject)
            self.say(f"{name}: {json.dumps(self.results[name])[:2000]}")
        self.results[name] |= {"section_s": round(time.monotonic() - began_s, 1)}
        self.args.out.parent.mkdir(parents=True, exist_ok=True)
        self.args.out.write_text(json.dumps(self.results | facts(self.device), indent=1) + "\n")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the script began."""
        return time.monotonic() - self.began_s

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{self.elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    def plain_network(self, preset: str) -> Av2tSam:
        """Return a network in fp32: nano with its own weights, others with random ones."""
        if preset == BUNDLED_MODEL:
            return load_network(locate.resolve(preset), self.device, torch.float32)
        return random_network(PRESETS[preset], self.device)

    def model(self, preset: str, network: Av2tSam | None = None) -> LoadedModel:
        """Return a model as `segment` uses it."""
        precision = self.args.precision
        network = self.plain_network(preset) if network is None else network
        ours = cast(network, precision)
        return LoadedModel(ours, preset, self.folder / preset, self.device, precision)

    @property
    def batches(self) -> list[int]:
        """Batch sizes to measure."""
        return list(map(int, self.args.batches.split(",")))


def run_safely(run: Callable[[Bench, str], Result], bench: Bench, subject: str) -> Result:
    """Return the result of a section, or its error."""
    try:
        return run(bench, subject)
    except Exception as error:  # noqa: BLE001 - the next sections can still succeed
        lines = traceback.format_exception(error)
        print("".join(lines), file=sys.stderr, flush=True)
        return {"error": "".join(traceback.format_exception_only(error)).strip()[:2000]}
    finally:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


# --- sections ------------------------------------------------------------------------------------


def measure_peaks(bench: Bench, _: str) -> Result:
    """Measure matrix products in each precision, and a copy within the memory."""
    names = ("fp32", "bf16", "fp16") if bench.device.type == "cuda" else (bench.args.precision,)
    peaks: Result = {f"tflops_{n}": round(peak_flops(bench.device, n) / 1e12, 2) for n in names}
    source = torch.empty((1 << 30 if bench.device.type == "cuda" else 1 << 20), device=bench.device)
    target, moved = torch.empty_like(source), 2 * source.nbytes
    copy_s = median_of(lambda: target.copy_(source), 5, bench.device)
    return peaks | {"copy_gb_per_s": round(moved / copy_s / 1e9)}


def run_tests(bench: Bench, _: str) -> Result:
    """Run the tests that need a GPU, in another process."""
    if bench.device.type != "cuda":
        return {"skipped": "no GPU"}
    command = (
        f"{sys.executable} -m pytest -v -n 6 -m gpu -W default -rP --log-level=INFO --tb=short"
    )
    command += f" -p no:cacheprovider -p no:benchmark --durations=20 {ROOT / 'tests/gpu'}"
    log = bench.args.out.with_name("gpu_tests.txt")
    with log.open("w") as file, own_processes(command.split(), file) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(TESTS_S)
        code = process.poll()
    lines = log.read_text().splitlines()
    print("\n".join(lines[-60:]), file=sys.stderr)
    outcomes = ("PASSED", "FAILED", "ERROR")
    counts = {name: sum(f"] {name} " in line for line in lines) for name in outcomes}
    return {"exit_code": code, "timed_out": code is None, **counts, "last_line": lines[-1]}


@contextmanager
def own_processes(command: list[str], output: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command, and end it with all processes that it has started at the end of the block."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # several processes share the cores
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measure_network(bench: Bench, preset: str) -> Result:
    """Measure a network beside the plain implementation, its parts, and every batch size."""
    network = bench.plain_network(preset)
    ours = bench.model(preset, network)
    plain = replace(ours, network=network, precision="fp32")
    batch = ours.batch_size
    count = 2 * batch if bench.device.type == "cuda" else 2
    result: Result = compare(plain, ours, batch, count, bench.args.runs, parts=False)
    del plain, network
    prepared = prepare_batches(ours, count, batch)
    parts_s = time_parts(ours.network, lambda: run_ours(ours, prepared), bench.device)
    result |= {"default_batch": batch, "ms_per_frame_of": milliseconds(parts_s, count)}
    result |= {"weights_mib": round(allocated(bench.device) / MIB)}
    costs = count_costs(PRESETS[preset])
    flops = sum(cost.flops for name, cost in costs.items() if name != "clap")
    tflops = {"tflop_per_frame": round(flops / 1e12, 4)}
    peak = peak_flops(bench.device, ours.precision)
    return result | tflops | {"by_batch": by_batch(bench, ours, flops / peak)}


def by_batch(bench: Bench, model: LoadedModel, least_s: float) -> Result:
    """Measure frames per second and memory for each batch size."""
    found: Result = {}
    for batch in bench.batches:
        reset_peak(bench.device)
        try:
            (inputs, windows) = prepare_batches(model, batch, batch)[0]
            segmenter = Segmenter(model)
            step_s = median_of(
                lambda: segmenter.logits(inputs, windows),  # noqa: B023
                bench.args.runs,
                bench.device,
            )
        except (torch.OutOfMemoryError, RuntimeError) as error:
            found[str(batch)] = {"error": str(error)[:200]}
            continue
        found[str(batch)] = {
            "frames_per_s": round(batch / step_s, 2),
            "share_of_peak": round(least_s * batch / step_s, 4),
            "halved": segmenter.max_batch_size is not None,
            **peak_memory(bench.device),
        }
    return found


def measure_segment(bench: Bench, preset: str) -> Result:
    """Measure `segment` on the video, with what limits it."""
    model = bench.model(preset)
    if preset != BUNDLED_MODEL:
        model.network.register_forward_hook(with_disc)
    batches = list(map(int, bench.args.segment_batches.split(",")))
    found: Result = {f"batch_{size}": segment_once(bench, model, size) for size in batches}
    return found | time_codecs(plan_for(bench, batches[0]))


def with_disc(_: Av2tSam, __: object, prediction: MaskPrediction) -> MaskPrediction:
    """Put a disc of half the frame in place of the masks, once they are computed.

    With random weights, masks are noise. Their thousands of contours take 0.17 s to draw.
    """
    logits = prediction.logits
    down, across = (torch.linspace(-1, 1, n, device=logits.device) for n in logits.shape[-2:])
    disc = 0.8 - torch.hypot(down[:, None], across)
    return replace(prediction, logits=10 * disc + 0 * logits)


def segment_once(bench: Bench, model: LoadedModel, batch: int) -> Result:
    """Segment the whole video, and the beginning of it without the network or without codecs."""
    beginning = plan_for(bench, batch, end=min(2.0, bench.args.seconds))
    calls, results, few = record(beginning, model)
    network_s, _ = timed(partial(run_network, model, calls), model)
    replay = Replaying(model, results)
    codec_s, codec_cpu_s = timed(partial(segment_planned, beginning, replay), model)
    del calls, results, replay
    reset_peak(bench.device)
    plan = plan_for(bench, batch)
    segmenter = Timed(model)
    with sampled_utilisation(bench.device) as readings:
        began_s = time.process_time()
        result = segment_planned(plan, segmenter)
        cpu_s = time.process_time() - began_s
        wait_for(bench.device)
    frames = result.frames
    return {
        "frames": frames,
        "frames_per_s": round(frames / result.wall_s, 2),
        "mean_area": round(result.mean_area, 3),
        "utilisation": round(statistics.mean(readings), 1) if readings else None,
        "network_share_of_time": round(segmenter.busy_s() / result.wall_s, 3),
        "cpu_ms_per_frame": round(1000 * cpu_s / frames, 2),
        "network_frames_per_s": round(few / network_s, 2),
        "codec_frames_per_s": round(few / codec_s, 2),
        "codec_cpu_ms_per_frame": round(1000 * codec_cpu_s / few, 2),
        "peak_rss_mib": round(peak_rss_bytes() / MIB),
        **peak_memory(bench.device),
    }


def time_codecs(plan: SegmentPlan) -> Result:
    """Measure decoding to RGB alone, and drawing and encoding alone."""
    began_s = time.perf_counter()
    with closing(frames_of(plan)) as frames:
        count = sum(1 for _ in frames)
    decode_s = (time.perf_counter() - began_s) / count
    with closing(frames_of(plan)) as frames:
        kept = list(islice(frames, 60))
    height, width = kept[0].rgb.shape[:2]
    rows, columns = np.indices((height, width))
    mask = np.hypot(rows - height / 2, columns - width / 2) < height / 2
    writer = open_writer(
        plan.output,
        "video",
        info=plan.info,
        video=plan.video,
        audio=plan.audio,
        encoding=plan.encoding,
        zero_s=plan.zero_s,
        overwrite=True,
    )
    began_s = time.perf_counter()
    with writer:
        for frame in kept:
            writer.write(MaskedFrame(frame, mask, "computed"))
    write_s = (time.perf_counter() - began_s) / len(kept)
    return {"decode_ms": round(1000 * decode_s, 2), "draw_encode_ms": round(1000 * write_s, 2)}


def frames_of(plan: SegmentPlan) -> Iterator[object]:
    """Decode the frames of a video."""
    return read_frames(plan.info, stream=plan.video, zero_s=plan.zero_s)


def profile_network(bench: Bench, preset: str) -> Result:
    """Write a table of the kernels that take most of a batch's time."""
    model = bench.model(preset)
    inputs, windows = prepare_batches(model, model.batch_size, model.batch_size)[0]
    segmenter = Segmenter(model)
    segmenter.logits(inputs, windows)  # to warm up
    kinds = [ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds, record_shapes=True) as found:
        segmenter.logits(inputs, windows)
        wait_for(bench.device)
    column = f"self_{'device' if bench.device.type == 'cuda' else 'cpu'}_time_total"
    path = bench.args.out.with_name(f"profile-{preset}.txt")
    tables = [
        averages.table(sort_by=column, row_limit=40, max_name_column_width=90)
        for averages in (found.key_averages(), found.key_averages(group_by_input_shape=True))
    ]
    path.write_text("\n".join(tables))
    return {"batch": model.batch_size, "table": path.name}


def measure_training(bench: Bench, preset: str) -> Result:
    """Measure training steps in bf16 and in fp32, on random videos."""
    found: Result = {}
    for precision in ("bf16", "fp32"):
        try:
            found[precision] = train_steps(bench, preset, precision)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            found[precision] = {"error": str(error)[:500]}
        bench.say(f"{precision}: {found[precision]}")
    return found


def train_steps(bench: Bench, preset: str, precision: str) -> Result:
    """Take steps on random videos of five seconds each."""
    reset_peak(bench.device)
    options = TrainOptions(out=bench.folder / "run", batch_size=bench.args.clips)
    network = bench.plain_network(preset)
    learner = Learner(network, options, start_fabric(bench.device.type, 1, precision))
    samples = [random_sample(network.config, number) for number in range(options.batch_size)]
    clips = [sample.clip for sample in samples]
    losses = []

    def step() -> None:
        losses.append(learner.compute_gradient(clips, samples).loss)
        learner.update()

    step_s = median_of(step, 2 if precision == "bf16" else 1, bench.device)
    return {
        "clips_per_s": round(len(clips) / step_s, 3),
        "step_s": round(step_s, 3),
        "losses": [round(loss, 5) for loss in losses],
        **peak_memory(bench.device),
    }


def random_sample(config: ModelConfig, seed: int) -> Sample:
    """Make a random training video with random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    paths = (Path(),) * SECONDS_PER_CLIP
    clip = Clip(f"random-{seed}", None, "train", "s4", paths, paths, Path("sound.wav"))
    shape = (SECONDS_PER_CLIP, 3, FRAME_PX, FRAME_PX)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    masks = torch.zeros(SECONDS_PER_CLIP, FRAME_PX, FRAME_PX, dtype=torch.bool)
    masks[:, 50:150, 60:160] = True
    clip_embeddings, clap_embeddings = (
        torch.randn(SECONDS_PER_CLIP, width, generator=generator)
        for width in (config.clip.embed_dim, config.clap.embed_dim)
    )
    levels = torch.zeros(SECONDS_PER_CLIP, dtype=torch.float64)
    return Sample(clip, frames, masks, Embeddings(clip_embeddings, clap_embeddings, (), levels))


def measure_compile(bench: Bench, preset: str) -> Result:
    """Measure a network before and after compiling it."""
    model = bench.model(preset)
    batch = model.batch_size
    inputs, windows = prepare_batches(model, batch, batch)[0]

    def frames_per_s(model: LoadedModel) -> float:
        segmenter = Segmenter(model)
        step_s = median_of(lambda: segmenter.logits(inputs, windows), bench.args.runs, bench.device)
        return round(batch / step_s, 2)

    off = frames_per_s(model)
    took_s = seconds(lambda: compile_network(model, batch), bench.device)
    compiled = replace(model, compiled_for=batch)
    on = frames_per_s(compiled)
    found: Result = {"batch": batch, "off": off, "on": on, "compile_s": round(took_s, 1)}
    if preset != BUNDLED_MODEL:
        compiled.network.register_forward_hook(with_disc)
    return found | {"segment": segment_once(bench, compiled, batch)}


def measure_engines(bench: Bench, _: str) -> Result:
    """Find out which video engines FFmpeg can use, and decode and encode with them."""
    available = {
        kind: {name: name in av.codecs_available for name in names}
        for kind, names in ENGINES.items()
    }
    found: Result = dict(available)
    if bench.device.type == "cuda":
        for name, run in {"nvdec": decode_on_gpu, "nvenc": encode_on_gpu}.items():
            found[name] = run_safely(run, bench, "")
    return found


def decode_on_gpu(bench: Bench, _: str) -> Result:
    """Decode the video with NVDEC; frames are copied to the CPU as NV12."""
    hwaccel = HWAccel(device_type="cuda", allow_software_fallback=False)
    began_s = time.perf_counter()
    with av.open(str(bench.video), hwaccel=hwaccel) as container:
        formats = [frame.format.name for frame in container.decode(video=0)]
    frame_s = (time.perf_counter() - began_s) / len(formats)
    return {"format": formats[0], "frames": len(formats), "ms_per_frame": round(1000 * frame_s, 2)}


def encode_on_gpu(bench: Bench, _: str) -> Result:
    """Encode grey frames with NVENC."""
    width, height = map(int, bench.args.size.split("x"))
    began_s = time.perf_counter()
    with av.open(str(bench.folder / "nvenc.mp4"), "w") as container:
        stream = container.add_stream("h264_nvenc", rate=bench.args.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for level in range(60):
            grey = np.full((height, width, 3), 4 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode(None))
    return {"ms_per_frame": round(1000 * (time.perf_counter() - began_s) / 60, 2)}


# --- helpers -------------------------------------------------------------------------------------


def prepare_batches(model: LoadedModel, count: int, batch: int) -> list[tuple]:
    """Return prepared frames with their audio windows, in batches."""
    segmenter = Segmenter(model)
    frames, windows = scene(count, segmenter.rate_hz)
    return [
        (segmenter.prepare(frames[k : k + batch]), windows[k : k + batch])
        for k in range(0, count, batch)
    ]


def plan_for(bench: Bench, batch: int, end: float | None = None) -> SegmentPlan:
    """Plan to segment every frame of the video, including silent and repeated ones."""
    options = SegmentOptions(
        batch_size=batch,
        silence_dbfs=None,
        reuse=None,
        overwrite=True,
        end=end,
    )
    return plan_video(bench.video, bench.folder / "overlay.mp4", options)


@contextmanager
def sampled_utilisation(device: torch.device) -> Iterator[list[int]]:
    """Read NVML's utilisation of a GPU in percent, several times per second, on another thread."""
    readings: list[int] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_S):
            readings.append(torch.cuda.utilization(device))

    thread = threading.Thread(target=sample)
    if device.type == "cuda" and find_spec("pynvml"):
        thread.start()
    try:
        yield readings
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()


def milliseconds(parts_s: Mapping[str, float], count: int) -> Result:
    """Return the milliseconds per frame of each part."""
    return {name: round(1000 * spent_s / count, 3) for name, spent_s in parts_s.items()}


def allocated(device: torch.device) -> int:
    """Return the bytes that tensors take on a GPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def reset_peak(device: torch.device) -> None:
    """Free what is cached, and forget the peaks of earlier work."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> Result:
    """Return the peaks of a GPU's memory since `reset_peak`."""
    if device.type != "cuda":
        return {}
    return {
        "peak_mib": round(torch.cuda.max_memory_allocated(device) / MIB),
        "reserved_mib": round(torch.cuda.max_memory_reserved(device) / MIB),
    }


KINDS: Mapping[str, tuple[int, Callable[[Bench, str], Result]]] = {
    "peaks": (5, measure_peaks),
    "tests": (60, run_tests),
    "network": (25, measure_network),
    "segment": (40, measure_segment),
    "profile": (10, profile_network),
    "training": (50, measure_training),
    "compile": (90, measure_compile),
    "engines": (10, measure_engines),
}
"""Kinds of sections: about the most seconds that each needs on an H100, and what it runs."""
SECTIONS = (
    "peaks", "tests", "evf-sam2 network", "evf-sam2 segment", "evf-sam network",
    "evf-sam segment", "evf-sam2 training", "evf-sam2 compile", "nano network", "nano segment",
    "engines", "evf-sam2 profile", "evf-sam profile", "evf-sam compile", "nano compile",
)  # fmt: skip
"""All sections, the most important first: a kind, after the preset that it is about."""


if __name__ == "__main__":
    main()
