"""The documentation is true: its worked example builds and passes the op tests, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_layering import KERNEL_LAYERS, LAYERS

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "editable"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEAD = re.compile(r"(?://|#) ([\w./-]+\.\w+)( \(append\))?\n")
OP_TESTS = "ops/test_ops.py", "ops/test_determinism.py"
# What has to be compiled again for a row at the end of functions.def, the last family: the others keep their numbers.
EXPANDED = (
    "csrc/kernels/pointwise/families/functions.cc",
    "csrc/kernels/pointwise/pointwise.cc",
    "csrc/ops/pointwise/pointwise_ops.cc",
)
CORE_OBJECTS = re.compile(r"/deepseek_(kernels|objects)\.dir/")
NEW_OPS = ("softsign", "squared_relu", "l2_normalize")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, body) of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


# --- the worked example ---------------------------------------------------------------------------------------------
class Example:
    """docs/adding-an-op.md, followed to the letter in a folder beside the build that stands in for the source tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.usage: list[str] = []  # python blocks without a file
        self.sources: list[str] = []  # new .cc files, relative to the project
        shutil.rmtree(folder, ignore_errors=True)
        for language, body in blocks(ROOT / "docs" / "adding-an-op.md"):
            head = HEAD.match(body)
            if head:
                self._write(head[1], body[head.end() :], append=bool(head[2]))
            elif language == "python":
                self.usage.append(body)

    def _write(self, name: str, body: str, append: bool) -> None:
        assert append == (ROOT / name).exists(), f"{name}: append to what exists, create what does not"
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("pytests/") and not (self.folder / "pytests").joinpath(OP_TESTS[0]).exists():
            shutil.copytree(ROOT / "pytests" / "opinfo", self.folder / "pytests" / "opinfo", dirs_exist_ok=True)
            (self.folder / "pytests" / "ops").mkdir()
            for file in (*OP_TESTS, "conftest.py"):
                shutil.copy(ROOT / "pytests" / file, self.folder / "pytests" / file)
        if append and not target.exists():
            shutil.copy(ROOT / name, target)
        with target.open("a", encoding="utf-8") as file:
            file.write(f"\n{body}" if append else body)
        if name.endswith(".cc"):
            self.sources.append(name)

    def build(self) -> None:
        """Compiles the new files and those that expand functions.def; links them with the objects of the build."""
        entries = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
        commands = {Path(entry["file"]): entry["command"] for entry in entries}
        units = {name: unit_of(name, commands) for name in EXPANDED}
        like = {"kernels": units[EXPANDED[0]], "ops": units[EXPANDED[-1]]}
        jobs = {self.folder / name: commands[like[name.split("/")[1]]] for name in self.sources}
        jobs |= {unit: commands[unit] for unit in units.values()}
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(lambda job: self._compile(*job), jobs.items()))
        built = {BUILD / entry["output"]: Path(entry["file"]) for entry in entries}
        kept = [p for p, source in built.items() if CORE_OBJECTS.search(str(p)) and source not in jobs]
        assert kept, "the build has no objects"
        binding = [p for p in built if "_C.dir" in p.parts]
        package = self.folder / "deepseek"
        package.mkdir()
        for path in (ROOT / "python" / "deepseek").iterdir():
            (package / path.name).symlink_to(path)
        module = package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        run(["g++", "-shared", "-pthread", "-o", module, *objects, *kept, *binding, "-lhwy", "-lm"])

    def _compile(self, source: Path, command: str) -> Path:
        words = shlex.split(command)
        words = words[words.index(next(w for w in words if not w.endswith("ccache"))) :]
        out = self.folder / f"{'-'.join(source.with_suffix('').parts[-3:])}.o"
        at = words.index("-o")
        del words[at : at + 4]  # -o <object> -c <source>
        # The example's folder comes first, so its functions.def wins. -O1: to be checked, not measured.
        run([words[0], f"-I{self.folder / 'csrc'}", *words[1:], "-O1", "-Werror", "-o", out, "-c", source])
        return out

    def python(self, *arguments: str) -> str:
        """Runs Python on the extended package. -S: no .pth file may bring in the editable one."""
        paths = os.pathsep.join([str(self.folder), sysconfig.get_path("purelib")])
        return run([sys.executable, "-S", *arguments], cwd=self.folder, env=os.environ | {"PYTHONPATH": paths})


def unit_of(name: str, compiled: Iterable[Path]) -> Path:
    """What is compiled for a source: itself, or the unit of its folder, which includes it."""
    units = (p for p in compiled if p == ROOT / name or (p.parent.name == "Unity" and f'/{name}"' in p.read_text()))
    return next(units)


def run(command: list[object], **options: object) -> str:
    """Its output; a failure shows it."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{shlex.join(str(c) for c in command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def example() -> Example:
    ours = (BUILD / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").exists()  # not another interpreter's
    if not ours or not (BUILD / "compile_commands.json").exists() or not shutil.which("g++"):
        pytest.skip("needs the build tree of `make build` for this interpreter, and g++")
    made = Example(ROOT / "build" / "docs_example")
    made.build()
    return made


@pytest.mark.nosan
@pytest.mark.timeout(900)
def test_the_example_ops_pass_every_op_test(example: Example) -> None:
    names = " or ".join(f"[{name}" for name in NEW_OPS)
    tests = [f"pytests/{file}" for file in OP_TESTS]
    output = example.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", names)
    passed = re.search(r"(\d+) passed", output)
    assert passed and int(passed[1]) > 50, output[-2000:]


@pytest.mark.nosan
@pytest.mark.timeout(900)
def test_the_example_usage_runs(example: Example) -> None:
    assert example.usage
    example.python("-c", "\n".join(example.usage))


@pytest.mark.nosan
@pytest.mark.timeout(900)
def test_the_example_derives_everything_from_the_structs(example: Example) -> None:
    program = """
import deepseek
from deepseek import _C
table = dict(_C.op_table())
for name in {names!r}:
    row = table[name]
    assert row.schema.startswith(name + "(") and row.doc in getattr(deepseek, name).__doc__, name
    assert getattr(deepseek.Tensor, name), name
assert hasattr(deepseek, "softsign_") and not hasattr(deepseek, "squared_relu_")
x = deepseek.randn(3, 5)
assert deepseek.allclose(_C.op_composite("l2_normalize", x), deepseek.l2_normalize(x))
"""
    example.python("-c", program.replace("{names!r}", repr(NEW_OPS)))


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- what the pages name --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http", "#", "mailto"))]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_files_exist(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:csrc|python|pytests|tests|docs|benchmarks|examples|notebooks|\.ci)/[\w./-]*)`", text)
    missing = sorted({name for name in named if not (ROOT / name).exists()})
    assert not missing, f"{page.name} names {missing}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8")))
    assert named <= targets, f"{page.name} names make targets {sorted(named - targets)}"


@pytest.mark.parametrize(("root", "layers"), [("csrc", LAYERS), ("csrc/kernels", KERNEL_LAYERS)])
def test_the_layer_picture_is_the_tested_one(root: str, layers: list[list[str]]) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    present = [[f for f in layer if (ROOT / root / f).is_dir()] for layer in layers]
    picture = " -> ".join("{" + ", ".join(p) + "}" if len(p) > 1 else p[0] for p in present if p)
    assert picture in text, f"docs/architecture.md should show: {picture}"


# --- what is stored ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=page_id)
def test_notebooks_show_what_they_print(notebook: Path) -> None:
    """A reader who runs nothing sees numbers and plots; `make notebooks` stores them."""
    cells = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert notebook.stat().st_size < 200_000


def test_tables_show_figures_a_reader_can_use() -> None:
    """Durations have a unit that suits them, and a goal that was missed says why."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\de[+-]\d\d µs|\d,\d{3} µs", text), page.name
        assert not re.search(r"\(missed\)|missed: *\|", text), page.name
        assert "not yet known why" not in text, page.name
