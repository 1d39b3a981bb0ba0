"""Chrome traces written by hand, in the form that torch.profiler (Kineto) exports. Nothing here was recorded."""

from itertools import count

HOST, MAIN, AUTOGRAD = 100, 100, 101


class Trace:
    """Collects events; all times in microseconds since the start."""

    def __init__(self, base_us=4_557_055_006_343.453):
        self.base_us = base_us
        self.rows = [
            {"ph": "M", "name": "process_name", "pid": HOST, "tid": 0, "ts": base_us, "args": {"name": "python"}}
        ]
        self.ids = count(1)

    def add(self, category, name, start_us, end_us, pid=HOST, tid=MAIN, **args):
        self.rows.append({
            "ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": self.base_us + start_us,
            "dur": end_us - start_us, "args": args,
        })  # fmt: skip
        return self

    def steps(self, *spans):
        self.add("user_annotation", "autotune#steps", spans[0][0], spans[-1][1])
        for start_us, end_us in spans:
            self.add("user_annotation", "autotune#step", start_us, end_us)
        return self

    def op(self, name, start_us, end_us, tid=MAIN):
        return self.add("cpu_op", name, start_us, end_us, tid=tid)

    def call(self, name, start_us, end_us, correlation=None):
        return self.add("cuda_runtime", name, start_us, end_us, correlation=correlation or next(self.ids))

    def kernel(self, name, launch_us, start_us, end_us, stream=7, call_us=3, device=0, **more):
        """A kernel with its launch on the main thread."""
        number = next(self.ids)
        self.call("cudaLaunchKernel", launch_us, launch_us + call_us, number)
        more = {"device": device, "stream": stream, "correlation": number, **more}
        return self.add("kernel", name, start_us, end_us, pid=device, tid=stream, **more)

    def copy(self, name, launch_us, start_us, end_us, size=0, stream=7):
        number = next(self.ids)
        self.call("cudaMemcpyAsync", launch_us, launch_us + 2, number)
        args = {"device": 0, "stream": stream, "correlation": number, "bytes": size}
        return self.add("gpu_memcpy", name, start_us, end_us, pid=0, tid=stream, **args)

    def json(self):
        return {"schemaVersion": 1, "traceEvents": self.rows}
