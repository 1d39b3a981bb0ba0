"""What every refusal owes a user, whatever was wrong: one line that helps, an honest exit code, nothing else."""

import json


def assert_refused(code, stdout, stderr, *, expected, words, as_json=False):
    """One `error:` line with the words in it, the exit code, no traceback; with --json the same as an object."""
    assert code == expected, stderr
    assert "Traceback" not in stderr + stdout
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert len(lines[0]) < 1000
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    if as_json:
        told = json.loads(stdout)
        assert told["exit_code"] == expected
        assert lines[0] == " ".join(f"error: {told['error']}{' — ' * bool(told['hint'])}{told['hint']}".split())
    else:
        assert stdout == ""
