"""Values to and from what the tables hold: JSON for what people may read, one compact blob for raw samples.

Floats survive exactly, NaN and infinity included (Python's JSON writes them as `NaN` and `Infinity`, which is why the
columns are text and not a database's own JSON type).
"""

import hashlib
import json
import math
import struct
import sys
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from autotuner.types import (
    Binding,
    Ceilings,
    Config,
    Contribution,
    Decision,
    Diagnosis,
    Equivalence,
    Estimate,
    Failure,
    FailureKind,
    Measurement,
    Outcome,
    Pair,
    Tier,
    Verdict,
    Verification,
)

_PLAIN, _ZLIB = b"\x00", b"\x01"
_MEASURED = tuple(field.name for field in fields(Measurement) if field.name not in {"samples", "environment"})


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the record is in UTC")
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} {value!r} cannot be recorded")


_encoder = json.JSONEncoder(separators=(",", ":"), default=_plain)


def encode(value: object) -> str:
    """JSON on one line of ASCII; dataclasses become objects, times ISO 8601 in UTC, the order of keys is kept."""
    return _encoder.encode(value)


def content_hash(text: str) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bits) that identify a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def orderable(value: float | None) -> float | None:
    """`value`, or None for NaN: databases disagree on how NaN sorts; infinities sort everywhere."""
    return None if value is None or math.isnan(value) else value


def encode_outcome(outcome: Outcome) -> str:
    """An outcome without samples and environment, which have places of their own."""
    if isinstance(outcome, Failure):
        return encode(outcome)
    return encode({name: getattr(outcome, name) for name in _MEASURED})


def decode_outcome(text: str, samples: bytes | None, environment: Mapping[str, str]) -> Outcome:
    """The inverse of `encode_outcome`; no `samples` give a measurement with none."""
    plain = json.loads(text)
    if "kind" in plain:
        return Failure(**{**plain, "kind": FailureKind(plain["kind"])})
    plain["started_at"] = datetime.fromisoformat(plain["started_at"])
    return Measurement(**plain, samples={} if samples is None else unpack_samples(samples), environment=environment)


def decode_verdict(text: str) -> Verdict:
    """The inverse of `encode` for a verdict."""
    plain = json.loads(text)
    diagnosis = plain["diagnosis"]
    diagnosis["binding"] = Binding(diagnosis["binding"])
    diagnosis["elasticities"] = {name: Estimate(**known) for name, known in diagnosis["elasticities"].items()}
    for names in ("try_next", "cannot_help"):
        diagnosis[names] = tuple(diagnosis.get(names, ()))
    return Verdict(**{**plain, "diagnosis": Diagnosis(**diagnosis)})


def decode_verification(text: str) -> Verification:
    """The inverse of `encode` for a verification."""
    plain = json.loads(text)
    equivalence = plain["equivalence"]
    plain["decision"] = Decision(plain["decision"])
    plain["gain_interval"] = tuple(plain["gain_interval"])
    plain["pairs"] = tuple(Pair(**pair) for pair in plain["pairs"])
    plain["equivalence"] = equivalence and Equivalence(**{**equivalence, "tier": Tier(equivalence["tier"])})
    plain["contributions"] = tuple(
        Contribution(**{**part, "gain_interval": tuple(part["gain_interval"])}) for part in plain["contributions"]
    )
    return Verification(**plain)


def decode_ceilings(text: str) -> Ceilings:
    """The inverse of `encode` for ceilings."""
    plain = json.loads(text)
    return Ceilings(
        values={name: Estimate(**known) for name, known in plain["values"].items()},
        environment=plain["environment"],
        measured_at=datetime.fromisoformat(plain["measured_at"]),
        contended=tuple(plain["contended"]),
    )


def machine_hash(environment: Mapping[str, str]) -> str:
    """Identifies what ceilings hold for, whatever the order of its entries."""
    return content_hash(encode(dict(sorted(environment.items()))))


def decode_object(text: str) -> dict[str, Any]:
    """A JSON object: a spec, a configuration, an environment, the payload of an event."""
    plain: dict[str, Any] = json.loads(text)
    return plain


def decode_config(text: str) -> Config:
    """A configuration with its parameters in the order in which they were given."""
    return decode_object(text)


def pack_samples(samples: Mapping[str, tuple[float, ...]]) -> bytes:
    """Raw samples as one blob.

    Layout: one byte (0 plain, 1 zlib); then, compressed or not: uint32 length of the header, the header (JSON object
    of sample names and counts), all values as float64 in the header's order. Numbers are little-endian.
    """
    header = encode({name: len(values) for name, values in samples.items()}).encode()
    values = array("d", [value for series in samples.values() for value in series])
    if sys.byteorder == "big":
        values.byteswap()
    body = struct.pack("<I", len(header)) + header + values.tobytes()
    compressed = zlib.compress(body, level=1)
    return _ZLIB + compressed if len(compressed) < len(body) else _PLAIN + body


def unpack_samples(blob: bytes) -> dict[str, tuple[float, ...]]:
    """The inverse of `pack_samples`."""
    body = zlib.decompress(blob[1:]) if blob[:1] == _ZLIB else blob[1:]
    (length,) = struct.unpack_from("<I", body)
    counts = json.loads(body[4 : 4 + length])
    values = array("d", body[4 + length :])
    if sys.byteorder == "big":
        values.byteswap()
    if len(values) != sum(counts.values()):
        raise ValueError(f"{len(values)} raw values instead of {sum(counts.values())}")
    samples, start = {}, 0
    for name, count in counts.items():
        samples[name] = tuple(values[start : start + count])
        start += count
    return samples
