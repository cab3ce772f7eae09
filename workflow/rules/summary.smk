# Before and after a run: nothing starts that can't be written, and a run ends with what it took, and with what
# failed. A dry run, and one with nothing to do, say nothing.

import time

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.energy import EnergyMeter
from pipeline_lib.summary import failures, finished_jobs, summarise

BEGUN = {}


def print_summary():
    """Print what this run's jobs took, and write it to `<results>/logs/summary.txt`; a run never fails by it."""
    try:
        jobs = finished_jobs(Path(RESULTS), since=BEGUN["time"])
        if jobs and not engine.is_touching(workflow):
            text = summarise(jobs, time.monotonic() - BEGUN["monotonic"], BEGUN["energy"].joules())
            print(f"\n{text}", file=sys.stderr)
            with writing_file(Path(RESULTS, "logs", "summary.txt")) as file:
                file.write(text)
    except Exception as error:
        print(f"no summary of this run: {error}", file=sys.stderr)


onstart:
    with one_line():
        check_writable(Path(RESULTS))
    BEGUN.update(time=time.time(), monotonic=time.monotonic(), energy=EnergyMeter())


onsuccess:
    print_summary()
    page = Path(RESULTS, "report", "index.html")
    if page.exists():
        print(f"{page}: every number, table and figure", file=sys.stderr)


onerror:
    print_summary()
    print(f"\n{failures(engine.failed_jobs(workflow))}", file=sys.stderr)
