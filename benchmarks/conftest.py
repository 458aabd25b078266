from pathlib import Path

# The others are run by themselves, and import what pytest does without.
collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]


def pytest_benchmark_update_machine_info(config, machine_info):
    from importlib.metadata import distributions

    machine_info["packages"] = {d.name: d.version for d in distributions()}
