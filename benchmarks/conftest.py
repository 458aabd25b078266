def pytest_benchmark_update_machine_info(config, machine_info):
    from importlib.metadata import distributions

    machine_info["packages"] = {d.name: d.version for d in distributions()}
