"""The house rules: import direction, lazy imports, the set of assets, module sizes."""

import ast
import re
import subprocess
import sys
from datetime import UTC
from pathlib import Path

import pytest

from tests.shop import REPO

ALLOWED = {
    "encoders": {"encoders"},
    "pipelines": {"pipelines", "encoders"},
    "assets": {"assets", "pipelines", "encoders"},
}
HOME_OF = {
    "dagster": {"assets"},
    "apache_beam": {"pipelines"},
    "transformers": {"encoders"},
    "librosa": {"encoders"},
    "peft": {"encoders"},
    "soundfile": {"encoders"},
    "av": {"encoders"},
    "PIL": {"encoders"},
    "torch": {"encoders", "pipelines/recommenders"},
}
SOURCES = sorted(p for package in ALLOWED for p in (REPO / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, inside functions too: modules, and what is taken from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return names


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_imports_point_inwards(path: Path) -> None:
    package = path.relative_to(REPO).parts[0]
    found = {name.split(".")[0] for name in imported(path)}
    assert not (found & set(ALLOWED)) - ALLOWED[package]
    for name, homes in HOME_OF.items():
        if name in found:
            assert any(path.is_relative_to(REPO / h) for h in homes), f"{name} may be imported in {homes} only"


def import_circles(graph: dict[str, set[str]]) -> list[str]:
    """Chains of modules that import each other, one for each module that can be reached from itself."""
    circles = []
    for start in sorted(graph):
        came_from, waiting = {start: ""}, [start]
        while waiting:
            here = waiting.pop()
            for there in sorted(graph[here]):
                if there == start:
                    chain = [here]
                    while came_from[chain[-1]]:
                        chain.append(came_from[chain[-1]])
                    circles.append(" -> ".join([*reversed(chain), start]))
                    waiting = []
                    break
                if there not in came_from:
                    came_from[there] = here
                    waiting.append(there)
    return circles


def test_a_circle_would_be_found() -> None:
    assert import_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [
        "a -> b -> c -> a",
        "b -> c -> a -> b",
        "c -> a -> b -> c",
    ]
    assert import_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other() -> None:
    names = {module_name(p) for p in SOURCES if p.name != "__init__.py"}
    graph = {module_name(p): imported(p) & names for p in SOURCES if p.name != "__init__.py"}
    assert graph["pipelines.embed"], "the graph has no edges; the test looks at nothing"
    assert import_circles(graph) == []


STAGES = [
    p.stem
    for p in (REPO / "pipelines").glob("*.py")
    if p.stem not in ("__init__", "beyond", "config", "operation", "sections", "verify")
]


@pytest.mark.parametrize("stage", STAGES)
def test_stages_meet_in_tables_only(stage: str) -> None:
    assert not imported(REPO / "pipelines" / f"{stage}.py") & {f"pipelines.{s}" for s in STAGES}


def test_readme_shows_the_rooms_as_they_are() -> None:
    """The tree in README names every folder and every module of the three packages, and nothing else."""
    tree = (REPO / "README.md").read_text().split("<!-- rooms -->\n```\n")[1].split("```")[0]
    shown, package = set(), ""
    for line in tree.splitlines():
        folder, names = "", re.split(r"\s{2,}", line.strip())[0].split()
        if names[0].endswith("/"):
            folder, *names = names
        package, folder = (package, folder) if line.startswith(" ") else (folder, "")
        shown |= {f"{package}{folder}{name}" for name in names}
    assert shown == {str(p.relative_to(REPO).with_suffix("")) for p in SOURCES if p.name != "__init__.py"}


def test_definitions_load_without_heavy_imports() -> None:
    heavy = ("torch", "transformers", "apache_beam", "librosa", "matplotlib", "scipy")
    code = f"import sys, assets.definitions; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_modules_say_what_they_hold_and_stay_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module needs a docstring"
    assert text.count("\n") <= 400


def test_asset_keys_are_stable() -> None:
    from assets.definitions import defs

    keys = {k.to_user_string() for k in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {
        "raw_interactions", "raw_items", "raw_user_content", "raw_media",
        "std_interactions", "std_items", "std_user_content", "std_users", "std_controls", "std_media",
        "raw_users", "raw_controls", "quarantine", "ingest_files",
        "emb_text", "emb_image", "emb_audio", "emb_video", "model_aligner",
            "feat_items", "item_codes", "code_centres", "feat_users",
        "model_popularity", "model_user_cf", "model_item_cf", "model_ease", "model_als",
        "model_graph", "model_lightgcn", "model_content", "model_multimodal", "model_sequential",
        "model_transfer", "model_hybrid",
        "reco_candidates", "recommendations", "similar_items", "feedback", "eval_offline", "eval_users",
        "eval_gaps", "eval_experiments", "night_health",
        "list_health", "floor_prices", "reports",
    }  # fmt: skip


def test_every_asset_of_the_job_is_on_the_one_partitions_definition() -> None:
    from assets.definitions import defs

    graph = defs.resolve_asset_graph()
    made = [graph.get(k) for k in graph.get_all_asset_keys() if not k.to_user_string().startswith("raw_")]
    assert len({str(n.partitions_def) for n in made}) == 1
    assert all(n.description and n.owners and n.kinds and n.group_name != "default" for n in made)
    job = defs.resolve_job_def("nightly")
    assert {k for k in job.asset_layer.selected_asset_keys} == {n.key for n in made}


def test_schedule_asks_for_yesterday() -> None:
    from datetime import datetime

    import dagster as dg

    from assets.definitions import defs

    schedule = defs.resolve_schedule_def("nightly_schedule")
    when = datetime(2026, 3, 6, 2, 30, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=when, repository_def=defs.get_repository_def()
        )
        requests = schedule.evaluate_tick(context).run_requests
    assert requests is not None
    assert [r.partition_key for r in requests] == ["2026-03-05"]
