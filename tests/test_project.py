"""What the project promises about itself: its documents, its commands, its layout."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import __version__, models, runfile

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "server", "edge_client", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTS = sorted(p for p in ROOT.rglob("*.md") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def marked(name: str) -> str:
    """The command between `<!-- name -->` and `<!-- /name -->` in the README."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(rf"<!-- {name} -->(.*?)<!-- /{name} -->", text, re.DOTALL)
    (line,) = block.strip().splitlines()
    return str(line).strip()


def test_readme_has_two_commands_of_one_line_from_bare_python() -> None:
    for name, ends in (("quickstart", "fed-bench quickstart"), ("tests", "pytest -n auto")):
        command = marked(name)
        assert command.startswith("python3.11 -m venv .venv && .venv/bin/pip install ")
        assert command.endswith(ends)


def test_ci_runs_the_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    sed = next(line for line in script.splitlines() if line.startswith("command="))
    ran = subprocess.run(
        ["bash", "-c", f'{sed}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == marked("tests")
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_plain_install_has_no_torch_and_extras_bound_it() -> None:
    plain = [re.split(r"[<>=~! ]", d)[0] for d in PROJECT["project"]["dependencies"]]
    assert not {"torch", "torchvision", "scikit-learn", "matplotlib", "rich"} & set(plain)
    extras = PROJECT["project"]["optional-dependencies"]
    (torch,) = (d for d in extras["torch"] if re.match(r"torch[<>]", d))
    assert "<" in torch
    assert "torch" in extras["all"][0]
    assert "bench" in extras["all"][0]


def test_experiments_are_part_of_the_wheel() -> None:
    assert "benchmarks" in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert list((ROOT / "benchmarks" / "experiments").glob("*.toml"))


def test_proto_is_no_package_of_ours() -> None:
    assert not (ROOT / "proto" / "__init__.py").exists()


def test_licence_is_apache_2_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["fed-server", "edge-agent", "fed-bench"])
def test_every_program_has_help_with_examples_and_exit_codes(name: str) -> None:
    module, _, function = PROJECT["project"]["scripts"][name].partition(":")
    assert function == "main"
    ran = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "examples:" in ran.stdout
    assert "exit codes:" in ran.stdout


def test_commands_that_the_readme_shows_exist() -> None:
    text = (ROOT / "README.md").read_text()
    shown = set(re.findall(r"^ {4}(fed-server|fed-bench|edge-agent)((?: [a-z]+)?)", text, re.MULTILINE))
    assert len(shown) > 5
    for program, command in shown:
        module = PROJECT["project"]["scripts"][program].partition(":")[0]
        words = [sys.executable, "-m", module, *command.split(), "--help"]
        ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{program}{command}: {ran.stderr}"


def test_the_run_file_of_the_readme_is_one() -> None:
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"<!-- run file -->\s*```toml\n(.*?)```\s*<!-- /run file -->", text, re.DOTALL)
    file = runfile.parse(block, "birds.toml")
    assert (file.run.method, file.agents.min, file.data.classes) == ("fedavg", 3, ("robin", "wren"))
    assert models.shape_of(str(file.model.options["input"])) == (32, 32, 3)


def test_only_one_module_makes_things_durable() -> None:
    """A test can record the order of fsync and rename only if nobody goes past common/files.py."""
    wrong = []
    for path in modules():
        if path.relative_to(ROOT).parts[:2] in (("common", "files.py"), ("benchmarks", "overhead")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(ast.Name("os"), "fsync" | "fdatasync" | "replace" | "rename"):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def test_every_module_says_what_it_is_for() -> None:
    public = [path for path in modules() if not path.name.startswith("_") or path.name == "__main__.py"]
    assert not [str(path.relative_to(ROOT)) for path in public if not ast.get_docstring(ast.parse(path.read_text()))]


def test_versions_agree() -> None:
    try:
        installed = importlib.metadata.version("edgefed")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("edgefed is not installed here; it runs from the source tree")
    assert installed == __version__
