"""`autotune space schema`."""


def print_schema() -> None:
    """Print the JSON schema of study files, for editors."""
    import json

    from autotuner.spec.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
