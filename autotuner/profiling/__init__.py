"""Running one configuration and showing where its time goes.

`profile` starts the workload in a process of its own, as a trial would, and looks at it in turn with nothing, with
torch.profiler, with py-spy and, on a GPU, with nsys and ncu. What they say is put together by `autotuner.analyze` and
written by `autotuner.report`.
"""

from autotuner.analyze.profile import CpuUse, Pattern, Profile, Thread
from autotuner.profiling.choose import choose, split
from autotuner.profiling.run import default_folder, profile

__all__ = ["CpuUse", "Pattern", "Profile", "Thread", "choose", "default_folder", "profile", "split"]
