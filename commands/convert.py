"""`alula convert`: a dataset of any format becomes one of another."""

import time
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import required
from alula.configs.schemas import ConvertConfig
from alula.core.errors import ConfigError, DatasetError
from alula.core.spaces import FieldSpec
from alula.datasets.comparison import Agreement, compare
from alula.datasets.conversion import Conversion, for_target, source_format
from alula.datasets.formats.format import Format
from alula.datasets.transforms import Chain, Rotation
from alula.sims.registry import make_task

MAX_UNITS = 4
"""More different units of one field than this are not shown."""


def run(config: ConvertConfig, as_json: bool) -> None:
    """Show the plan, convert, and compare what was written with the source."""
    source = required(config.source, "source", "recordings.hdf5")
    target = required(config.target, "target", "recordings.zarr")
    reading = source_format(source, config.source_format, frame=config.frame, spaces=_spaces(config))
    writing = for_target(target, config.format, video=config.video, modality=config.modality)
    with reading.open(source) as reader:
        rotations = Chain(tuple(_rotation(text) for text in config.rotations))
        conversion = Conversion(source, target, reader, writing, rotations)
        _show(conversion, reading)
        if config.strict and conversion.losses:
            raise DatasetError("--strict refuses to lose anything; see the losses above. Nothing was written")
        if config.plan_only:
            return
        conversion.require_free(config.force)
        start = time.monotonic()
        with progress("convert") as report:
            conversion.run(config.force, lambda done, total: report(done, total, {}))
        seconds = time.monotonic() - start
        OUT.print(f"{reader.num_episodes} episodes in {target} ({writing.name}), {seconds:.1f} s")
        agreements = _verify(conversion) if config.verify else []
    if as_json:
        print_results("convert", _results(conversion, seconds, agreements))


def _spaces(config: ConvertConfig) -> tuple[Any, Any] | None:
    if config.task is None:
        return None
    task = make_task(config.task)
    return task.observation, task.action


def _rotation(text: str) -> Rotation:
    """What FIELD:START:FROM:TO says."""
    match text.split(":"):
        case [field, start, source, target] if start.isdecimal():
            return Rotation(field, int(start), source, target)
    raise ConfigError(f"rotations has '{text}'; needed is FIELD:START:FROM:TO, such as action:3:axis_angle:rot6d")


def _show(conversion: Conversion, reading: Format) -> None:
    """The plan: what comes from where, in which unit, and what is lost."""
    contents = conversion.contents
    OUT.print(f"{conversion.source} ({reading.name}): {conversion.reader.num_episodes} episodes")
    onward = {mapping.source: mapping for mapping in conversion.writing.mappings}
    fields = {**contents.observation, **contents.action, **contents.extra}
    rows = []
    for mapping in conversion.reader.plan.mappings:
        last = onward.pop(mapping.target, None)
        field = fields.get(mapping.target)
        kind = f"{field.dtype} {list(field.shape)} {_unit(field)}" if field else ""
        changes = [change for change in (mapping.change, last.change if last else "") if change]
        rows.append((mapping.source, mapping.target, last.target if last else "", kind, "; ".join(changes)))
    rows += [("", mapping.source, mapping.target, "", mapping.change) for mapping in onward.values()]
    titles = ("in the source", "field", f"in the target ({conversion.format.name})", "type and unit", "change")
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    for row in (titles, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        OUT.print(f"  {'  '.join(cells).rstrip()}", markup=False)
    for loss in conversion.losses:
        OUT.print(f"[yellow]lost[/yellow]  {loss}")


def _unit(field: FieldSpec) -> str:
    units = list(dict.fromkeys(field.units))
    return f"[{', '.join(units if len(units) < MAX_UNITS else [*units[:MAX_UNITS], '...'])}]"


def _verify(conversion: Conversion) -> list[Agreement]:
    """Read the target back."""
    with conversion.format.open(conversion.target) as written, progress("compare") as report:
        agreements = compare(conversion, written, lambda done, total: report(done, total, {}))
    differing = [agreement for agreement in agreements if not agreement.identical]
    OUT.print(f"read back: {len(agreements) - len(differing)} of {len(agreements)} fields identical to the bit")
    for agreement in differing:
        psnr = f", PSNR {agreement.psnr:.1f} dB" if agreement.squares and "image" in agreement.name else ""
        OUT.print(f"  {agreement.name}: differs by at most {agreement.greatest_difference:g}{psnr}")
    return agreements


def _results(conversion: Conversion, seconds: float, agreements: list[Agreement]) -> list[Result]:
    found = [
        Result("episodes", conversion.num_episodes, "1"),
        Result("losses", len(conversion.losses), "1"),
        Result("seconds", seconds, "s"),
    ]
    if agreements:
        identical = sum(agreement.identical for agreement in agreements)
        found.append(Result("identical_fields", identical / len(agreements), "ratio", runs=len(agreements)))
    return found
