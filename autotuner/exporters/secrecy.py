"""What may leave of a study file: no secret, and of the variables that it sets only known ones.

Too much is hidden rather than too little: what is withheld is named, so that nobody misses it.
"""

import re

SECRET = "it looks like a secret"

_NAME = re.compile(
    r"(?i)(^|[-_.])((api|access|auth|private|secret)?keys?|secrets?|passw(or)?ds?|passphrases?|credentials?|cookies?|"
    r"auth(orization)?|(pass|pwd|sig|signature)$)($|[-_.])"
)
_TOKEN = re.compile(r"(?i)(^|[-_.])(access|auth)?tokens?($|[-_.])")
_COUNTED = re.compile(  # tokens of a text
    r"(?i)(^|[-_.])((max|min|num)([-_][a-z]+)*|new|batch|batched|prefill|draft|output|input|prompt|total|speculative)"
    r"[-_]tokens$|[-_]tokens?[-_](threshold|budget|limit|ratio|details|ids?)$"
)
_VALUE = re.compile(
    r"(?i:\b(bearer|basic)\s+\S)|://[^/\s@]*@|-----BEGIN|"
    r"(?<![A-Za-z0-9])((hf_|sk[-_]|gh[opsur]_|github_pat_|glpat-|nvapi-|gsk_|pypi-)[\w-]{8,}|xox[a-z]-[\w-]{3,}|"
    r"(AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|eyJ[\w-]{7,})"
)
_ASSIGNED = re.compile(r"(?<![\w.-])([\w.-]+)[\"']?\s*[:=]\s*[\"']?[^\s\"']")  # of JSON, headers, queries, properties
_KNOWN = re.compile(
    r"(NCCL|OMP|MKL|KMP|GOMP|OPENBLAS|NUMEXPR|MALLOC|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|CUDA|CUBLAS|VLLM|"
    r"SGLANG|GGML|LLAMA_ARG|ROCR|HIP|GLIBC|LD_PRELOAD|TOKENIZERS|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE)(_.*)?"
)


def is_secret(name: str, value: str = "") -> bool:
    """Whether an option or variable looks like one that must not leave: by its name, or by its value.

    >>> is_secret("admin-api-key"), is_secret("max-num-batched-tokens"), is_secret("HF_TOKEN")
    (True, False, True)
    >>> is_secret("h", "Bearer x"), is_secret("java-options", "-DkeyStorePassword=x"), is_secret("model", "h/?token=x")
    (True, True, True)
    """
    return _names_one(name) or bool(_VALUE.search(value)) or any(_names_one(it[1]) for it in _ASSIGNED.finditer(value))


def is_known_variable(name: str) -> bool:
    """Whether a variable is one that libraries, allocators and servers read to be faster, and that holds no secret.

    >>> is_known_variable("NCCL_BUFFSIZE"), is_known_variable("HOME"), is_known_variable("VLLM_API_KEY")
    (True, False, False)
    """
    return bool(_KNOWN.fullmatch(name)) and not is_secret(name)


def _names_one(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)  # keyStorePassword
    return bool(_NAME.search(words) or (_TOKEN.search(words) and not _COUNTED.search(words)))
