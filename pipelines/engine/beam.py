"""The only Beam set-up: runner by name, pipeline options, running to completion, counters.

Stages build transforms and hand them to ``run``; none of them chooses a runner. Elements are file names,
shards or Arrow blocks, never rows.
"""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apache_beam as beam

log = logging.getLogger(__name__)

# DaskRunner reports DONE with wrong results for tagged outputs and finish_bundle, so it is not offered.
RUNNERS = ("FnApiRunner", "PrismRunner", "PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")


def check(runner: str, device: str) -> list[str]:
    """Problems of the compute settings; loads neither Beam nor torch unless CUDA is asked for."""
    problems = []
    if runner not in RUNNERS:
        problems.append(f"compute.runner = '{runner}': expected one of {', '.join(RUNNERS)}")
    if importlib.util.find_spec("apache_beam") is None:
        problems.append("compute.runner: apache-beam is not installed; run `pip install nightloom`")
    if device.startswith("cuda"):
        from encoders.device import choose_device
        from encoders.errors import DeviceError

        try:
            choose_device(device)
        except DeviceError as e:
            problems.append(str(e))
    return problems


def run(
    build: "Callable[[beam.Pipeline], Any]", runner: str, options: Sequence[str] = (), name: str = "pipeline"
) -> dict[str, int]:
    """Build and run a pipeline to its end.

    Args:
        build: adds transforms to the pipeline.
        runner: a name from ``RUNNERS``.
        options: Beam pipeline options, passed on as they are.
        name: for the log.

    Returns:
        Sum of each user counter, by name.

    Raises:
        RuntimeError: the pipeline did not end in state DONE.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    parsed = PipelineOptions([f"--job_name={name.replace('_', '-')}", *options])
    pipeline = beam.Pipeline(runner=FnApiRunner() if runner == "FnApiRunner" else runner, options=parsed)
    build(pipeline)
    result = pipeline.run()
    state = result.wait_until_finish()
    if (state or result.state) != "DONE":
        raise RuntimeError(f"Beam pipeline '{name}' ended in state {state or result.state} on {runner}, expected DONE")
    counters: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        key = counter.key.metric.name
        counters[key] = counters.get(key, 0) + int(counter.committed or counter.attempted or 0)
    return counters
