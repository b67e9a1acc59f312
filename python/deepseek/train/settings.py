"""What each setting of a run means and whether it may change when the run is continued: its page and its checks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from deepseek.models.family import DEFAULT, families
from deepseek.train.config import SECTIONS, TYPE_NAMES

# Settings a continued run may have other values of: no number of what was trained so far depends on them.
_FREE = {
    "data.path": "the text itself must be the same",
    "data.eval_bytes": "",
    "run.steps": "longer extends the run, the learning rate goes on as in a run of the new length",
    "run.seconds": "as for run.steps",
    "run.checkpoint_every": "",
    "run.keep": "",
}
# Why the others of a section have to stay as they are.
_FIXED = {
    "model": "the weights belong to such a model",
    "data": "it decides which text the run was trained on",
    "optim": "the steps so far were taken with it",
    "run": "the order of the text, or the weights at the start, came from it",
}

_FAMILY = "Family of models; each has settings of its own, below are those of the default."

_INTRODUCTION = """\
# Configuration of a training run

`deepseek train mine.toml --out runs/mine` reads settings from a TOML (or JSON) file with the tables below, and
`--set section.key=value` overrides one. `deepseek config` prints a file of all defaults to start from. What is not
given keeps its default, or the value of the run that is continued.

A run found in the folder is continued exactly from where it was; `deepseek train runs/mine` alone does so too. A
**finished run is extended** by `deepseek train runs/mine --set run.steps=5000`: weights, optimizer, order of the text
and random state go on, and the learning rate is that of a run of 5000 steps from here on (it had come down to 0, so it
rises at once, then falls to 0 at step 5000). Most settings cannot change in a continued run; the tables say why. To
train on with other ones, **warm-start** a new run from the weights alone:
`deepseek train mine.toml --out runs/next --set run.init_from=runs/mine`. It has the shape of that model unless
`[model]` says otherwise, its own schedule, and a fresh optimizer.

This page is written by `deepseek config --markdown`."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: "section.key".
        default: Its default.
        doc: One or two sentences.
        fixed: Why a continued run cannot change it; empty where it can.
        note: What happens when a continued run changes it.
        range: What numbers it may be; empty where it is none.
    """

    name: str
    default: Any
    doc: str
    fixed: str
    note: str
    range: str

    @property
    def type_name(self) -> str:
        """What a value has to be."""
        return TYPE_NAMES[type(self.default)]

    @property
    def toml(self) -> str:
        """The default as TOML."""
        return json.dumps(list(self.default) if isinstance(self.default, tuple) else self.default)


def all_settings() -> Iterator[Setting]:
    """Every setting there is, in the order of the configuration's classes."""
    for section, kind in SECTIONS.items():
        if section == "model":
            allowed = f"one of {', '.join(families())}"
            yield Setting("model.model_type", DEFAULT, _FAMILY, _FIXED["model"], "", allowed)
        docs = attribute_docs(kind)
        for item in fields(kind):
            name = f"{section}.{item.name}"
            free = name in _FREE
            fixed, allowed = "" if free else _FIXED[section], str(item.metadata.get("range", ""))
            yield Setting(name, item.default, docs[item.name], fixed, _FREE.get(name, ""), allowed)


def attribute_docs(kind: type) -> dict[str, str]:
    """The texts under "Attributes:" of a class's docstring."""
    _, _, text = (kind.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z)", text, re.DOTALL | re.MULTILINE)
    return {name: " ".join(doc.replace("``", "`").split()) for name, doc in found}


def fixed_because(name: str) -> str:
    """Why a continued run cannot change a setting; empty where it can."""
    return "" if name in _FREE else _FIXED[name.partition(".")[0]]


def as_toml() -> str:
    """A configuration file of all defaults, each with its meaning."""
    lines = ["# All settings with their defaults. Leave out what should stay as it is."]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for setting in all_settings():
            if setting.name.startswith(f"{section}."):
                lines.append(f"{setting.name.partition('.')[2]} = {setting.toml}  # {setting.doc}")
    return "\n".join(lines) + "\n"


def as_page() -> str:
    """docs/configuration.md."""
    lines = [_INTRODUCTION]
    for section, kind in SECTIONS.items():
        lines += ["", f"## [{section}]", "", (kind.__doc__ or "").splitlines()[0].replace(":class:", "")]
        lines += ["", "| key | default | meaning | range | in a continued run |", "|---|---|---|---|---|"]
        for setting in all_settings():
            if setting.name.startswith(f"{section}."):
                change = f"fixed: {setting.fixed}" if setting.fixed else f"may change; {setting.note}".rstrip("; ")
                cells = (f"`{setting.name}`", f"`{setting.toml}`", setting.doc, setting.range, change)
                lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return re.sub(r":func:`([\w.]+)`", r"`\1`", "\n".join(lines)).replace("`deepseek.models.", "`models.") + "\n"
