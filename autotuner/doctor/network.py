"""What processes on several GPUs or machines talk over: RDMA or TCP, over which interface, and what is in the way.

NCCL's own rules: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html and troubleshooting.html; the order
in which it takes interfaces: NCCL 2.27, src/misc/socket.cc, ncclFindInterfaces.
"""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuner.doctor.cpu import ROOT, read
from autotuner.doctor.finding import Finding, Level
from autotuner.metrics import format_quantity

RANK_SHARED_BYTES = 2**30  # of /dev/shm: a rank's loader hands its batches over there, and NCCL keeps buffers in it
LOCKED_BYTES = 2**30  # every buffer that an adapter reads or writes by itself is locked in memory
_IPC_LOCK = 14  # linux/capability.h: who has it may lock as much as there is
_FIRST, _LAST = "ib", ("docker", "lo", "virbr")  # interfaces that NCCL takes before, and after, all others
_VERBS = ("usr/lib*/libibverbs.so.1", "usr/lib/*-linux-gnu/libibverbs.so.1", "lib/*-linux-gnu/libibverbs.so.1")
_OWN_LAYERS = ("InfiniBand", "Ethernet", "")
_PASS_IN = "docker run --device=/dev/infiniband --cap-add IPC_LOCK --ulimit memlock=-1"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of an RDMA adapter.

    Attributes:
        device: As NCCL_IB_HCA names it.
        number: From 1.
        is_up: It may carry data.
        rate: As the driver tells it, "400 Gb/sec (4X NDR)".
        layer: "InfiniBand", "Ethernet" (RoCE), or what only a plugin of NCCL can use, as AWS' EFA.
    """

    device: str
    number: str
    is_up: bool
    rate: str
    layer: str

    def __str__(self) -> str:
        return f"{self.device}:{self.number} ({self.rate or 'of unknown rate'})"


def address_of(name: str) -> str | None:
    """The address that a host name resolves to; None if it does not."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def preflight(
    environ: Mapping[str, str],
    gpus: int,
    shared_bytes: int | None,
    root: Path = ROOT,
    resolve: Callable[[str], str | None] = address_of,
) -> Iterator[Finding]:
    """What training in several processes will run over, and what is wrong with it.

    Args:
        environ: The environment's variables; `etc/nccl.conf` adds what they do not say, as NCCL does.
        gpus: That this process may see. Without one only misspelt names are worth a word.
        shared_bytes: Of /dev/shm; None if there is none.
        root: Where `proc`, `sys`, `dev`, `etc` and `usr` are.
        resolve: A host name to its address; None if it has none.
    """
    wishes = {**_nccl_file(root), **environ}
    yield from names(wishes, root)
    yield from hostname(wishes, root, resolve)
    yield from shared_memory(shared_bytes, gpus)
    ports = rdma_ports(root)
    if gpus < 2 and not (gpus and ports):
        return
    yield from transport(wishes, root)
    if _is_wanted(wishes) and any(port.is_up for port in ports):
        yield from libraries(wishes, root)
        yield from locked_memory(root)
        yield from direct(wishes, root)


def names(environ: Mapping[str, str], root: Path = ROOT) -> Iterator[Finding]:
    """Variables that name what is not there."""
    devices, here = {port.device for port in rdma_ports(root)}, interfaces(root)
    hca = environ.get("NCCL_IB_HCA", "")
    if hca and not hca.startswith("^") and not any(_chosen(device, hca) for device in devices):
        there = f"there are {', '.join(sorted(devices))}" if devices else "there is no RDMA adapter"
        yield Finding(
            Level.ADVICE, "nccl_ib_hca", f"NCCL_IB_HCA={hca} names no adapter: {there}", "correct or unset it"
        )
    nccl, gloo = environ.get("NCCL_SOCKET_IFNAME", ""), environ.get("GLOO_SOCKET_IFNAME", "")
    missing = {
        "NCCL_SOCKET_IFNAME": nccl if nccl and not any(_chosen(name, nccl) for name in here) else "",
        "GLOO_SOCKET_IFNAME": ",".join(name for name in gloo.split(",") if name and name not in here),
    }
    for variable, name in missing.items():
        if name:
            text = f"{variable}: {name} is no network interface that is up; there are {', '.join(here) or 'none'}"
            yield Finding(Level.ADVICE, variable.lower(), text, f"correct it, or unset {variable}")


def transport(environ: Mapping[str, str], root: Path = ROOT) -> Iterator[Finding]:
    """In one sentence: RDMA, or TCP and why."""
    ports, interface = rdma_ports(root), nccl_interface(environ, root)
    tcp = f"NCCL uses TCP over {interface}" if interface else "NCCL finds no network interface either"
    up = [port for port in ports if port.is_up]
    taken = [port for port in up if _takes(environ.get("NCCL_IB_HCA", ""), port)]
    listed = ", ".join(map(str, up))
    if not ports:
        text, mend = f"RDMA is not there: between machines {tcp}", ""
    elif not up:
        dark = ", ".join(f"{port.device}:{port.number}" for port in ports)
        text, mend = f"RDMA is there, but no port is up ({dark}): {tcp}", "ibstat; check cable and subnet manager"
    elif not _is_wanted(environ):
        name = "NCCL_IB_DISABLE" if _is_disabled(environ) else "NCCL_NET"
        text = f"RDMA is available ({listed}) but switched off by {name}={environ[name]}: {tcp}"
        mend = f"unset {name}, unless you know why it is set"
    elif not taken:
        hca = environ["NCCL_IB_HCA"]
        text, mend = f"RDMA is available ({listed}), but NCCL_IB_HCA={hca} takes none of it: {tcp}", "correct it"
    elif not any((root / "dev/infiniband").glob("uverbs*")):
        text, mend = f"RDMA is there ({listed}), but /dev/infiniband/uverbs* is not: {tcp}", _PASS_IN
    else:
        plugin = "" if any(port.layer in _OWN_LAYERS for port in taken) else ", with its plugin (aws-ofi-nccl) only"
        text, mend = f"RDMA is in use between machines: NCCL takes {', '.join(map(str, taken))}{plugin}", ""
    yield Finding(Level.ADVICE if mend else Level.INFO, "nccl_transport", text, mend)


def libraries(environ: Mapping[str, str], root: Path = ROOT) -> Iterator[Finding]:
    """The library that NCCL opens for RDMA; without it, it falls back to TCP without a word."""
    own = [folder.strip("/") for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    if not any(any(root.glob(pattern)) for pattern in (*_VERBS, *(f"{folder}/libibverbs.so.1" for folder in own))):
        text = "libibverbs.so.1 is in none of the usual folders: without it NCCL uses TCP"
        yield Finding(Level.ADVICE, "libibverbs", text, "apt install libibverbs1 ibverbs-providers")


def locked_memory(root: Path = ROOT) -> Iterator[Finding]:
    """A limit on locked memory that is too small for RDMA."""
    limit = re.search(r"^Max locked memory\s+(\d+)\s", read(root / "proc/self/limits"), re.MULTILINE)
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", read(root / "proc/self/status"), re.MULTILINE)
    unlimited = capabilities is not None and bool(int(capabilities[1], 16) >> _IPC_LOCK & 1)
    if limit and int(limit[1]) < LOCKED_BYTES and not unlimited:
        size = format_quantity(int(limit[1]), "bytes")
        text = f"a process may lock {size} of memory (ulimit -l): RDMA locks its buffers, and fails or falls back"
        yield Finding(Level.ADVICE, "locked_memory", text, "ulimit -l unlimited, or docker run --ulimit memlock=-1")


def direct(environ: Mapping[str, str], root: Path = ROOT) -> Iterator[Finding]:
    """GPUDirect RDMA: whether adapters read the GPU's memory themselves, or through the host's.

    By nvidia_peermem, or by DMA-BUF: Linux 5.12 and NVIDIA's open kernel modules.
    """
    if environ.get("NCCL_NET_GDR_LEVEL", "") in ("LOC", "0"):
        text = f"GPUDirect RDMA is switched off by NCCL_NET_GDR_LEVEL={environ['NCCL_NET_GDR_LEVEL']}"
        yield Finding(Level.ADVICE, "gpudirect", text, "unset NCCL_NET_GDR_LEVEL, unless you know why it is set")
        return
    loaded = [name for name in ("nvidia_peermem", "nv_peer_mem") if (root / "sys/module" / name).is_dir()]
    kernel = re.match(r"(\d+)\.(\d+)", read(root / "proc/sys/kernel/osrelease"))
    recent = kernel is not None and (int(kernel[1]), int(kernel[2])) >= (5, 12)
    has_buffers = recent and "Open Kernel Module" in read(root / "proc/driver/nvidia/version")
    if loaded or has_buffers:
        way = loaded[0] if loaded else "DMA-BUF"
        yield Finding(Level.INFO, "gpudirect", f"GPUDirect RDMA is there, by {way}")
        return
    text = "GPUDirect RDMA is not there: what GPUs send to other machines is copied to the host's memory first"
    yield Finding(Level.ADVICE, "gpudirect", text, "sudo modprobe nvidia_peermem, or install NVIDIA's open modules")


def shared_memory(size_bytes: int | None, gpus: int) -> Iterator[Finding]:
    """A /dev/shm that suffices for one process, and not for one on each GPU.

    Args:
        size_bytes: Of /dev/shm; None if there is none, of which `memory.shared_memory` speaks.
        gpus: That this process may see.
    """
    if gpus > 1 and size_bytes is not None and RANK_SHARED_BYTES <= size_bytes < gpus * RANK_SHARED_BYTES:
        size = format_quantity(size_bytes, "bytes")
        text = f"/dev/shm holds {size} for {gpus} GPUs: NCCL and every rank's DataLoader workers die when it is full"
        yield Finding(Level.ADVICE, "shared_memory", text, f"docker run --shm-size={2 * gpus}g, or --ipc=host")


def hostname(
    environ: Mapping[str, str], root: Path = ROOT, resolve: Callable[[str], str | None] = address_of
) -> Iterator[Finding]:
    """A host name that gloo cannot turn into an address: then it takes the loopback, which no other machine reaches.

    torch/csrc/distributed/c10d/ProcessGroupGloo.cpp, createDefaultDevice; older ones failed.
    """
    name = read(root / "proc/sys/kernel/hostname")
    if name and not environ.get("GLOO_SOCKET_IFNAME") and resolve(name) is None:
        text = f"the host name {name} does not resolve: gloo takes the loopback, which other machines cannot reach"
        yield Finding(Level.INFO, "gloo_hostname", text, "name it in /etc/hosts, or set GLOO_SOCKET_IFNAME")


def rdma_ports(root: Path = ROOT) -> tuple[Port, ...]:
    """Every port of every InfiniBand or RoCE adapter."""
    found = []
    for folder in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        is_up = read(folder / "state").endswith("ACTIVE")
        device = folder.parent.parent.name
        found.append(Port(device, folder.name, is_up, read(folder / "rate"), read(folder / "link_layer")))
    return tuple(found)


def interfaces(root: Path = ROOT) -> tuple[str, ...]:
    """Network interfaces that are not down and have an address, in the kernel's order."""
    routed = {line.split()[0] for line in read(root / "proc/net/route").splitlines()[1:] if line.strip()}
    routed |= {line.split()[-1] for line in read(root / "proc/net/if_inet6").splitlines() if line.strip()}
    places = sorted((root / "sys/class/net").glob("*"), key=lambda path: (int(read(path / "ifindex") or 0), path.name))
    usable = [path.name for path in places if read(path / "operstate") != "down"]
    return tuple(name for name in usable if name == "lo" or name in routed)


def nccl_interface(environ: Mapping[str, str], root: Path = ROOT) -> str | None:
    """The interface that NCCL would take for TCP, and to meet the others; None if there is none."""
    here = interfaces(root)
    if wanted := environ.get("NCCL_SOCKET_IFNAME", ""):
        return next((name for name in here if _chosen(name, wanted)), None)
    ranked = [_FIRST, "", *_LAST]
    ranks = [ranked.index(_prefix(name)) for name in here]
    return here[ranks.index(min(ranks))] if here else None


def _prefix(name: str) -> str:
    """Of those that NCCL treats apart; empty for an ordinary interface."""
    return next((prefix for prefix in (_FIRST, *_LAST) if name.startswith(prefix)), "")


def _chosen(name: str, wish: str) -> bool:
    """Whether NCCL's list chooses a name: prefixes; `=` exact names; `^` all but these; a port after a colon."""
    excludes = wish.startswith("^")
    exact = wish.lstrip("^").startswith("=")
    listed = [each.partition(":")[0] for each in wish.lstrip("^").lstrip("=").split(",") if each]
    return any(name == each if exact else name.startswith(each) for each in listed) != excludes


def _takes(wish: str, port: Port) -> bool:
    """Whether NCCL_IB_HCA leaves a port in."""
    if not wish:
        return True
    sign = re.match(r"\^?=?", wish)
    assert sign is not None, "it matches nothing, too"
    others = [each for each in wish[sign.end() :].split(",") if each.partition(":")[2] in ("", port.number)]
    return _chosen(port.device, sign[0] + ",".join(others))


def _is_disabled(environ: Mapping[str, str]) -> bool:
    return environ.get("NCCL_IB_DISABLE", "0") not in ("", "0")


def _is_wanted(environ: Mapping[str, str]) -> bool:
    return not _is_disabled(environ) and environ.get("NCCL_NET", "").lower() != "socket"


def _nccl_file(root: Path) -> dict[str, str]:
    """What an administrator has set for every process."""
    pairs = [line.partition("=") for line in read(root / "etc/nccl.conf").splitlines() if not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs if value}
