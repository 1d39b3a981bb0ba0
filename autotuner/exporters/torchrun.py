"""For torchrun: how many processes, and their environment."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from autotuner.exporters.batches import ranks
from autotuner.exporters.command_line import command_line
from autotuner.exporters.documents import as_script, spelled
from autotuner.exporters.secrecy import is_known_variable
from autotuner.exporters.settings import Settings, mention
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation

_PARSE = (
    "import shlex, sys; from torch.distributed.run import parse_args as p; "
    "text = open(sys.argv[1] + '/launch.sh').read().partition('exec torchrun')[2].replace('\\\\\\n', ' '); "
    "p([*shlex.split(text)[:-1], 'train.py'])"
)


class TorchrunExporter(Exporter):
    """A script that starts a training with torchrun: ranks, threads, NCCL's variables."""

    kind: Literal["torchrun"] = "torchrun"
    target_version: ClassVar[str] = "torch 2.11 to 2.13 (`torchrun`)"
    needs: ClassVar[str] = "a study of a training: ranks, threads, NCCL's variables"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`launch.sh`."""
        settings = Settings(config)
        processes = ranks(settings)
        environment = {
            name: spelled(value) for name, value in settings.take_all(filter(is_known_variable, config)).items()
        }
        threads = settings.take("threads", "omp_num_threads")
        if threads is not None:
            environment["OMP_NUM_THREADS"] = spelled(threads)
        if line := command_line(recommendation, config):
            environment |= line.environment
            settings.take_all(line.in_environment)
        words = ["torchrun", "--standalone", f"--nproc-per-node {processes.total}"]
        text = as_script(words, environment, [mention(recommendation)])
        left_out = settings.left_out("it is your training script's: see the targets transformers and python")
        return Draft({"launch.sh": text}, "`{bundle}/launch.sh train.py …`", left_out, line.unset if line else {})

    def checks(self) -> Sequence[Check]:
        """Torchrun's own parser."""
        return (Check("torchrun's parser", "torch", ("{python}", "-c", _PARSE, "{bundle}")),)
