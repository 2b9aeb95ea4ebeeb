"""`av2tsam evaluate`: score a model on AVSBench, with original and negative audio."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from av2tsam_cli.avsbench_format import AVSS_CLASSES
from av2tsam_cli.cli.console import Console, Stages, escape, print_json, print_table, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.evaluation.options import EvaluateOptions, EvaluateOutputs
from av2tsam_cli.options import Messages, ModelOptions

if TYPE_CHECKING:
    from av2tsam_cli.evaluation.evaluate import EvaluatedVideo, Evaluation
    from av2tsam_cli.evaluation.plan import EvaluationPlan
    from av2tsam_cli.inference.distributed import Processes
    from av2tsam_cli.inference.loading import LoadedModel

SCORES = ("miou", "f_score", "j", "boundary_f", "j_and_f", "fpr", "frames_found")
CATEGORY_SCORES = ("miou", "f_score", "fpr")
OTHER_MEANS = ("positive", "negative", "ungated")

app = new_app()


@command(
    app,
    examples=[
        ("av2tsam evaluate --subset ms3", "score the best installed model"),
        ("av2tsam evaluate --data my_data --split val", "use your own data"),
        ("av2tsam evaluate --audio noise --csv scores.csv", "add negative audio"),
        ("av2tsam evaluate --hear words", "name what is heard, mask each name"),
        ("av2tsam evaluate --predictions pred_masks", "score the masks of any method"),
    ],
    config=True,
)
def evaluate(
    *,
    options: EvaluateOptions,
    outputs: EvaluateOutputs,
    model: ModelOptions,
    messages: Messages,
) -> int:
    """Score a model on AVSBench, or on data in its format.

    mIoU and F are means over videos, as in AVSBench; j, boundary_f and their mean j_and_f are
    DAVIS's measures. All have 95 % bootstrap confidence intervals over videos. With negative audio
    (--audio), the scores follow AVSBench-Robust (arXiv 2502.00358): fpr, the false-positive rate,
    is the share of pixels that are predicted with negative audio, and the combined mIoU and F are
    the harmonic means of the score with original audio and one minus the score with negative
    audio. If the silence gate empties masks, the scores of the network alone are shown too. With
    names (--hear words), the names in each second are scored, and for --subset avss the classes, by
    AVSBench-semantic's protocol. Scores do not depend on the number of processes.
    """
    if options.predictions is not None and model.model is not None:
        raise UsageError("`predictions` and `model` exclude each other; pass one of them")
    processes = _start_processes(options, model)
    console = Console(messages if processes.first else messages.silent)
    try:
        with console.logged():
            record = _evaluate(options, outputs, model, console, processes)
    except Av2tsamError as error:
        if processes.local_rank == 0:  # a line from each machine
            raise
        return error.exit_code
    if processes.first and messages.json:
        print_json(record)
    elif processes.first:
        _print_scores(record)
    return 0


def _start_processes(options: EvaluateOptions, model: ModelOptions) -> "Processes":
    from av2tsam_cli.inference.device import choose_device
    from av2tsam_cli.inference.distributed import start_processes

    if options.predictions is not None:  # one process is enough to read files
        return start_processes("cpu", 1)
    return start_processes(choose_device(model.device).type, options.devices)


def _check_outputs(outputs: EvaluateOutputs) -> None:
    """Check before the work starts that the outputs can be written."""
    from av2tsam_cli.evaluation.mask_files import check_new_folder
    from av2tsam_cli.files import check_new_file

    files = ((outputs.csv, ""), (outputs.contact_sheet, ".png"), (outputs.video, ".mp4"))
    for path, suffix in files:
        if path is not None:
            check_new_file(path, overwrite=outputs.overwrite, suffix=suffix)
    for name in ("save_masks", "save_logits"):
        folder = getattr(outputs, name)
        if folder is not None:
            check_new_folder(folder, name)


def _evaluate(
    options: EvaluateOptions,
    outputs: EvaluateOutputs,
    model_options: ModelOptions,
    console: Console,
    processes: "Processes",
) -> dict[str, Any]:
    """Evaluate, write the outputs, and return the scores as JSON values."""
    from av2tsam_cli.evaluation.evaluate import evaluate
    from av2tsam_cli.evaluation.plan import plan_evaluation
    from av2tsam_cli.evaluation.report import to_json

    with processes.together():
        if processes.first:
            _check_outputs(outputs)
        plan = plan_evaluation(options)
        model = None if options.predictions is not None else _load(model_options, options, console)
    unused_names = _unused_names(model, options, plan, console)
    with ExitStack() as stack:
        on_video = _open_folders(stack, outputs, processes)
        with Stages(console, "videos") as stages:
            evaluation = evaluate(
                model,
                options,
                plan,
                processes=processes,
                on_video=on_video,
                progress=stages.show,
            )
        if processes.first:
            _write(options, outputs, model, plan, evaluation)
    record = to_json(evaluation, options) | plan.deviations
    if record.get("resized_videos"):
        console.note(
            f"{options.predictions}: the masks of {record['resized_videos']} of "
            f"{record['videos']} videos were resized to the size of the true masks"
        )
    if "no_class_scores" in record:
        console.note(f"only binary scores: {record['no_class_scores']}")
    if model is None:
        return record | {"predictions": str(options.predictions)}
    return record | {
        "hear": model.use,
        "timing": options.timing,
        **unused_names,
        "model": model.name,
        "device": model.device.type,
        "precision": model.precision,
    }


def _load(model: ModelOptions, options: EvaluateOptions, console: Console) -> "LoadedModel":
    from av2tsam_cli.inference.loading import load_model

    loaded = load_model(
        model.model, use=options.hear, device=model.device, precision=model.precision
    )
    if model.model is None:
        console.note(f"using the model {loaded.name}; choose another one with `model`")
    return loaded


def _unused_names(
    model: "LoadedModel | None",
    options: EvaluateOptions,
    plan: "EvaluationPlan",
    console: Console,
) -> dict[str, list[str]]:
    """Return the names of the vocabulary that are not used, as JSON values, and print a note."""
    if model is None or model.use != "words":
        return {}
    from av2tsam_cli.evaluation.routes import choose_names

    used, unused = choose_names(model, options, plan)
    if unused:
        console.note(
            f"{len(used)} names are used; {len(unused)} names that are not classes of "
            f"AVSBench-semantic are left out, such as {unused[0]}"
        )
    return {"unused_names": unused}


def _open_folders(
    stack: ExitStack, outputs: EvaluateOutputs, processes: "Processes"
) -> "Callable[[EvaluatedVideo], None]":
    """Open the folders for masks and logits; return a function that writes a video into them."""
    from av2tsam_cli.evaluation.mask_files import shared_folder, write_logits, write_masks

    masks, logits = (
        folder and stack.enter_context(shared_folder(folder, processes))
        for folder in (outputs.save_masks, outputs.save_logits)
    )

    def write(video: "EvaluatedVideo") -> None:
        if masks is not None:
            write_masks(masks, video.result.clip, video.masks, video.labels)
        if logits is not None:
            write_logits(logits, video.result.clip, video.logits.numpy())

    return write


def _write(
    options: EvaluateOptions,
    outputs: EvaluateOutputs,
    model: "LoadedModel | None",
    plan: "EvaluationPlan",
    evaluation: "Evaluation",
) -> None:
    """Write the CSV, the contact sheet and the video."""
    from av2tsam_cli.evaluation.evaluate import EvaluatedVideo, evaluate_videos
    from av2tsam_cli.evaluation.report import (
        draw_contact_sheet,
        pick_examples,
        video_table,
        write_file,
    )

    if outputs.csv is not None:
        write_file(outputs.csv, video_table(evaluation), overwrite=outputs.overwrite)
    if outputs.contact_sheet is None and outputs.video is None:
        return
    planned = {video.index: video for video in plan.videos}
    examples = [planned[result.index] for result in pick_examples(evaluation.results)]
    # Evaluating a few videos a second time is cheaper than keeping the masks of all videos.
    evaluated = evaluate_videos(model, options, plan, examples)
    videos = [each for each in evaluated if isinstance(each, EvaluatedVideo)]
    if outputs.contact_sheet is not None:
        sheet = draw_contact_sheet(videos)
        write_file(outputs.contact_sheet, sheet, overwrite=outputs.overwrite)
    if outputs.video is not None:
        from av2tsam_cli.evaluation.result_video import write_result_video

        write_result_video(outputs.video, videos, options, overwrite=outputs.overwrite)


def _print_scores(record: Mapping[str, Any]) -> None:
    """Print the scores as tables."""
    plural = "" if record["videos"] == 1 else "s"
    data = f"{record['subset']} {record['split']}, {record['videos']} video{plural}"
    source = escape(record.get("model") or f"masks in {record['predictions']}")
    hear = " by words" if record.get("hear") == "words" else ""
    settings = f"{source}{hear}, {record['audio']} audio, {record['protocol']} protocol"
    print_text(f"{data}: {settings}\n\n")
    first = "combined" if "positive" in record else "all"
    means = {first: record} | {name: record[name] for name in OTHER_MEANS if name in record}
    names = [name for name in SCORES if any(name in mean for mean in means.values())]
    rows = [[name, *(_cell(mean, name) for mean in means.values())] for name in names]
    print_table(["", *means], rows)
    categories = record["categories"]
    if categories and "classes" not in record:  # single classes say more than combinations
        print_text("\n")
        names = [name for name in CATEGORY_SCORES if name in record]
        rows = [
            [category, *(_cell(mean, name) for name in names), str(mean["videos"])]
            for category, mean in categories.items()
        ]
        print_table(["category", *names, "videos"], rows)
    if naming := record.get("naming"):
        scores = ", ".join(f"{name} {value:.4f}" for name, value in naming.items())
        print_text(f"\nnames per second: {scores}\n")
    if classes := record.get("classes"):
        print_text("\n")
        means = {f"{len(classes)} that occur": "present_class", f"all {len(AVSS_CLASSES)}": "class"}
        rows = [[name, *_class_cells(one), str(one["frames"])] for name, one in classes.items()]
        for title, name in means.items():
            mean = {"iou": record[f"{name}_miou"], "f_score": record[f"{name}_f_score"]}
            rows.append([title, *_class_cells(mean), ""])
        print_table(["class", "iou", "f_score", "frames"], rows)
    if record["intervals"]:
        print_text(f"\nin brackets: {record['confidence']:.0%} bootstrap intervals over videos\n")


def _class_cells(scores: Mapping[str, Any]) -> list[str]:
    """Return the scores of a class, or means over classes, as table cells."""
    return [f"{scores[name]:.4f}" for name in ("iou", "f_score")]


def _cell(mean: Mapping[str, Any], name: str) -> str:
    """Return a mean score with its confidence interval; empty if there is no such score."""
    if name not in mean:
        return ""
    ends = (mean["intervals"] or {}).get(name)
    return f"{mean[name]:.4f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
