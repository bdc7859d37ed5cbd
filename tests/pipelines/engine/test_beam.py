"""The only Beam set-up: runners by name, options that arrive, counters, the portability protocol."""

import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipelines.engine.beam import RUNNERS, check, run
from tests.nights import lake_at, run_job
from tests.shop import FIRST, parquet_bytes


class Count(beam.DoFn):
    def process(self, element: int) -> list[int]:
        beam.metrics.Metrics.counter("test", "seen").inc(element)
        beam.metrics.Metrics.counter("other", "seen").inc()
        return [element]


def test_counters_are_added_up_by_name() -> None:
    assert run(lambda p: p | beam.Create([1, 2, 4]) | beam.ParDo(Count()), "FnApiRunner") == {"seen": 10}


def test_options_reach_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PipelineOptions] = []
    real = beam.Pipeline

    def pipeline(runner: object, options: PipelineOptions) -> beam.Pipeline:
        seen.append(options)
        return real(runner=runner, options=options)

    monkeypatch.setattr(beam, "Pipeline", pipeline)
    options = ["--direct_num_workers=3", "--temp_location=/somewhere"]
    run(lambda p: p | beam.Create([1]), "FnApiRunner", options, "a_name")
    assert seen[0].view_as(DirectOptions).direct_num_workers == 3
    assert seen[0].get_all_options()["temp_location"] == "/somewhere"
    assert seen[0].get_all_options()["job_name"] == "a-name"


def test_a_pipeline_that_does_not_end_well_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        state = "FAILED"

        def wait_until_finish(self) -> str:
            return "FAILED"

    monkeypatch.setattr(beam.Pipeline, "run", lambda self: Ended())
    with pytest.raises(RuntimeError, match="'night' ended in state FAILED on FnApiRunner, expected DONE"):
        run(lambda p: p | beam.Create([1]), "FnApiRunner", name="night")


def test_only_runners_that_keep_their_word_are_offered() -> None:
    assert check("FnApiRunner", "cpu") == []
    assert all(check(r, "cpu") == [] for r in RUNNERS)
    assert "expected one of FnApiRunner" in check("DaskRunner", "cpu")[0]


@pytest.mark.slow
def test_a_night_by_the_portability_protocol_has_the_same_bytes(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are processes of their own that get elements over the wire, as those of Flink and Spark do."""
    own, small = shop.read_text(), "\n[compute]\nshard_rows = 20\n"
    shop.write_text(own + small)
    assert run_job(shop, FIRST).success
    here = parquet_bytes(lake_at(shop).root)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")  # workers are started as `python`
    other = tmp_path / "other" / shop.name
    other.parent.mkdir()
    options = '"--job_endpoint=embed", "--environment_type=LOOPBACK", "--experiments=use_loopback_process_worker=true"'
    other.write_text(f'{own}{small}runner = "PortableRunner"\nrunner_options = [{options}]\n')
    assert run_job(other, FIRST).success
    there = parquet_bytes(lake_at(other).root)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
