"""The house rules: import direction, lazy imports, the set of assets, module sizes."""

import ast
import subprocess
import sys
from datetime import UTC
from pathlib import Path

import pytest

from tests.conftest import REPO

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


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_imports_point_inwards(path: Path) -> None:
    package = path.relative_to(REPO).parts[0]
    found = imports(path)
    assert not (found & set(ALLOWED)) - ALLOWED[package]
    for name, homes in HOME_OF.items():
        if name in found:
            assert any(path.is_relative_to(REPO / h) for h in homes), f"{name} may be imported in {homes} only"


STAGES = ("ingest", "standardize", "embed", "augment", "finetune", "features", "search", "train", "score", "evaluate")


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "standardize"])
def test_stages_meet_in_tables_only(stage: str) -> None:
    tree = ast.parse((REPO / "pipelines" / f"{stage}.py").read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not modules & {f"pipelines.{s}" for s in STAGES}


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
        "std_interactions", "std_items", "std_user_content", "std_media", "quarantine", "ingest_files",
        "emb_text", "emb_image", "emb_audio", "emb_video", "model_aligner", "feat_items", "feat_users",
        "model_popularity", "model_user_cf", "model_item_cf", "model_ease", "model_als",
        "model_graph", "model_lightgcn", "model_content", "model_multimodal", "model_sequential",
        "model_transfer", "model_hybrid",
        "reco_candidates", "recommendations", "eval_offline",
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
    assert [r.partition_key for r in requests] == ["2026-03-05"]
