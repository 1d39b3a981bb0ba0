"""The network that processes on several GPUs share, on machines made of files."""

import pytest

from autotuner.doctor import Level, network

GIB = 2**30
ALL_CAPABILITIES, NONE = "CapEff:\t000001ffffffffff\n", "CapEff:\t0000000000000000\n"
ROUTES = "Iface\tDestination\tGateway\n"


def tree(root, files):
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def cards(*names, down=(), silent=()):
    """Interfaces in the kernel's order; `silent` ones have no address."""
    files = {"proc/net/route": ROUTES + "".join(f"{name}\t00\t00\n" for name in names if name not in silent)}
    for place, name in enumerate(names):
        state = "down" if name in down else "unknown" if name == "lo" else "up"
        files |= {f"sys/class/net/{name}/ifindex": f"{place + 1}\n", f"sys/class/net/{name}/operstate": f"{state}\n"}
    return files


def port(device, number=1, state="4: ACTIVE", layer="InfiniBand"):
    folder = f"sys/class/infiniband/{device}/ports/{number}"
    return {f"{folder}/state": f"{state}\n", f"{folder}/rate": "400 Gb/sec (4X NDR)\n",
            f"{folder}/link_layer": f"{layer}\n"}  # fmt: skip


ETHERNET = cards("lo", "eth0")
USABLE = {
    "dev/infiniband/uverbs0": "", "usr/lib/x86_64-linux-gnu/libibverbs.so.1": "", "sys/module/nvidia_peermem/x": "",
    "proc/self/limits": "Max locked memory         unlimited            unlimited            bytes     \n",
}  # fmt: skip
FABRIC = {**ETHERNET, **port("mlx5_0"), **USABLE}


def look(root, environ, files, gpus=8, shared_bytes=64 * GIB, address="10.0.0.1"):
    """Findings by name."""
    tree(root, files)
    found = list(network.preflight(environ, gpus, shared_bytes, root, lambda name: address))
    assert all("\n" not in each.sentence + each.mend for each in found)
    assert all(each.mend or each.level is Level.INFO for each in found), "what is wrong has a mend"
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


@pytest.mark.parametrize(
    ("environ", "files", "words", "level"),
    [
        ({}, FABRIC, "RDMA is in use between machines: NCCL takes mlx5_0:1 (400 Gb/sec (4X NDR))", Level.INFO),
        ({"NCCL_IB_DISABLE": "0"}, FABRIC, "RDMA is in use", Level.INFO),
        ({"NCCL_IB_DISABLE": "1"}, FABRIC, "switched off by NCCL_IB_DISABLE=1: NCCL uses TCP over eth0", Level.ADVICE),
        ({"NCCL_NET": "Socket"}, FABRIC, "switched off by NCCL_NET=Socket: NCCL uses TCP over eth0", Level.ADVICE),
        ({}, {**FABRIC, "etc/nccl.conf": "# x\nNCCL_IB_DISABLE=1\n"}, "switched off by NCCL_IB", Level.ADVICE),
        ({"NCCL_IB_DISABLE": "0"}, {**FABRIC, "etc/nccl.conf": "NCCL_IB_DISABLE=1\n"}, "is in use", Level.INFO),
        ({}, ETHERNET, "RDMA is not there: between machines NCCL uses TCP over eth0", Level.INFO),
        ({}, {}, "RDMA is not there: between machines NCCL finds no network interface either", Level.INFO),
        ({}, {**FABRIC, **port("mlx5_0", state="1: DOWN")}, "no port is up (mlx5_0:1): NCCL uses TCP", Level.ADVICE),
        ({"NCCL_IB_HCA": "mlx5_1"}, {**FABRIC, **port("mlx5_1", state="1: DOWN")}, "takes none of it", Level.ADVICE),
        ({"NCCL_IB_HCA": "mlx5_0:2"}, FABRIC, "takes none of it", Level.ADVICE),
        ({"NCCL_IB_HCA": "^mlx5_0"}, FABRIC, "takes none of it", Level.ADVICE),
        ({"NCCL_IB_HCA": "^mlx5_0:2"}, FABRIC, "RDMA is in use", Level.INFO),
        ({"NCCL_IB_HCA": "=mlx5_1,mlx5_0:1"}, FABRIC, "RDMA is in use", Level.INFO),
        ({"NCCL_IB_HCA": "mlx5"}, {**FABRIC, **port("mlx5_1")}, "mlx5_0:1 (400 Gb/sec (4X NDR)), mlx5_1:1", Level.INFO),
        ({}, {**ETHERNET, **port("mlx5_0")}, "/dev/infiniband/uverbs* is not: NCCL uses TCP over eth0", Level.ADVICE),
        ({}, {**FABRIC, **port("mlx5_0", layer="Unspecified")}, "with its plugin", Level.INFO),
    ],
)  # fmt: skip
def test_one_sentence_says_what_nccl_talks_over(environ, files, words, level, tmp_path):
    found = look(tmp_path / "root", environ, files)["nccl_transport"]
    assert words in found.sentence
    assert found.level is level


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, cards("lo", "eth0", "eth1"), "eth0"),
        ({}, cards("lo", "eth0", "ib0"), "ib0"),
        ({}, cards("lo", "eth0", "ib0", silent=["ib0"]), "eth0"),
        ({}, cards("lo", "docker0", "virbr0", "eno1"), "eno1"),
        ({}, cards("lo", "docker0", "eno1", down=["eno1"]), "docker0"),
        ({}, cards("lo"), "lo"),
        ({}, cards("lo", "virbr0"), "lo"),
        ({"NCCL_SOCKET_IFNAME": "eth"}, cards("lo", "ib0", "eth1", "eth0"), "eth1"),
        ({"NCCL_SOCKET_IFNAME": "=eth0"}, cards("lo", "eth01", "eth0"), "eth0"),
        ({"NCCL_SOCKET_IFNAME": "^docker,lo"}, cards("lo", "docker0", "eth0"), "eth0"),
        ({"NCCL_SOCKET_IFNAME": "^=eth0"}, cards("eth0", "eth01"), "eth01"),
        ({"NCCL_SOCKET_IFNAME": "enp"}, cards("lo", "eth0"), None),
        ({}, {}, None),
    ],
)
def test_the_interface_that_nccl_takes(environ, files, expected, tmp_path):
    assert network.nccl_interface(environ, tree(tmp_path / "root", files)) == expected


def test_an_interface_with_an_ipv6_address_alone_will_do(tmp_path):
    files = {**cards("lo", "eth0", silent=["eth0", "lo"]), "proc/net/if_inet6": "fd00 02 40 00 80     eth0\n"}
    assert network.interfaces(tree(tmp_path / "root", files)) == ("lo", "eth0")


@pytest.mark.parametrize(
    ("environ", "name", "words"),
    [
        ({"NCCL_SOCKET_IFNAME": "enp"}, "nccl_socket_ifname", "enp is no network interface that is up; there are lo"),
        ({"NCCL_SOCKET_IFNAME": "eth"}, None, ""),
        ({"GLOO_SOCKET_IFNAME": "eth"}, "gloo_socket_ifname", "eth is no network interface"),  # no prefixes here
        ({"GLOO_SOCKET_IFNAME": "eth0,eth7"}, "gloo_socket_ifname", "eth7 is no network interface"),
        ({"GLOO_SOCKET_IFNAME": "lo"}, None, ""),
        ({"NCCL_IB_HCA": "mlx4"}, "nccl_ib_hca", "NCCL_IB_HCA=mlx4 names no adapter: there are mlx5_0"),
        ({"NCCL_IB_HCA": "mlx5_0:1"}, None, ""),
        ({"NCCL_IB_HCA": "^mlx4"}, None, ""),
    ],
)
@pytest.mark.parametrize("gpus", [0, 8])
def test_variables_that_name_what_is_not_there(environ, name, words, gpus, tmp_path):
    found = look(tmp_path / "root", environ, FABRIC, gpus=gpus)
    named = {"nccl_socket_ifname", "gloo_socket_ifname", "nccl_ib_hca"} & set(found)
    assert named == ({name} if name else set())
    assert not name or words in found[name].sentence


def test_an_adapter_is_named_where_there_is_none(tmp_path):
    found = look(tmp_path / "root", {"NCCL_IB_HCA": "mlx5"}, ETHERNET)
    assert found["nccl_ib_hca"].sentence == "NCCL_IB_HCA=mlx5 names no adapter: there is no RDMA adapter"


@pytest.mark.parametrize(
    ("limit", "capabilities", "bad"),
    [("8388608", NONE, True), ("8388608", ALL_CAPABILITIES, False), ("unlimited", NONE, False),
     (str(64 * GIB), NONE, False), ("65536", "", True)],
)  # fmt: skip
def test_locked_memory(limit, capabilities, bad, tmp_path):
    limits = f"Max processes 5 5 processes\nMax locked memory         {limit}   {limit}   bytes     \n"
    files = {**FABRIC, "proc/self/limits": limits, "proc/self/status": capabilities}
    found = look(tmp_path / "root", {}, files)
    assert ("locked_memory" in found) is bad
    assert not bad or "ulimit -l" in found["locked_memory"].sentence


OPEN = {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86\n"}
CLOSED = {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86\n"}
KERNEL = "proc/sys/kernel/osrelease"


@pytest.mark.parametrize(
    ("environ", "files", "words", "level"),
    [
        ({}, {"sys/module/nvidia_peermem/x": ""}, "by nvidia_peermem", Level.INFO),
        ({}, {"sys/module/nv_peer_mem/x": ""}, "by nv_peer_mem", Level.INFO),
        ({}, {KERNEL: "6.8.0-45-generic\n", **OPEN}, "by DMA-BUF", Level.INFO),
        ({}, {KERNEL: "5.4.0\n", **OPEN}, "is not there", Level.ADVICE),
        ({}, {KERNEL: "6.8.0\n", **CLOSED}, "is not there", Level.ADVICE),
        ({}, {}, "is not there", Level.ADVICE),
        ({"NCCL_NET_GDR_LEVEL": "LOC"}, {"sys/module/nvidia_peermem/x": ""}, "switched off by", Level.ADVICE),
    ],
)
def test_gpudirect(environ, files, words, level, tmp_path):
    (found,) = network.direct(environ, tree(tmp_path / "root", files))
    assert words in found.sentence
    assert found.level is level


def test_nccl_s_library_for_rdma(tmp_path):
    without = {name: text for name, text in FABRIC.items() if "libibverbs" not in name}
    assert "libibverbs" in look(tmp_path / "a", {}, without)
    assert "libibverbs" not in look(tmp_path / "b", {}, FABRIC)
    own = {**without, "opt/ofed/lib/libibverbs.so.1": ""}
    assert "libibverbs" not in look(tmp_path / "c", {"LD_LIBRARY_PATH": "/usr/local/cuda/lib64:/opt/ofed/lib/"}, own)


def test_what_rdma_needs_is_not_asked_where_it_is_not_used(tmp_path):
    files = {**ETHERNET, **port("mlx5_0")}
    assert set(look(tmp_path / "a", {"NCCL_IB_DISABLE": "1"}, files)) == {"nccl_transport"}
    assert set(look(tmp_path / "b", {}, ETHERNET)) == {"nccl_transport"}


def test_one_gpu_or_none_needs_no_network(tmp_path):
    assert look(tmp_path / "a", {}, ETHERNET, gpus=1) == {}
    assert look(tmp_path / "b", {}, FABRIC, gpus=0) == {}
    assert "nccl_transport" in look(tmp_path / "c", {}, FABRIC, gpus=1), "one GPU in each of several machines"
    assert look(tmp_path / "d", {}, {}, gpus=0, shared_bytes=None) == {}


@pytest.mark.parametrize(("size", "gpus", "bad"), [(4 * GIB, 8, True), (8 * GIB, 8, False), (4 * GIB, 1, False),
                                                   (None, 8, False), (GIB // 16, 8, False)])  # fmt: skip
def test_shared_memory_for_every_rank(size, gpus, bad, tmp_path):
    """Less than a gibibyte is said of every machine, by another check."""
    found = look(tmp_path / "root", {}, ETHERNET, gpus=gpus, shared_bytes=size)
    assert ("shared_memory" in found) is bad
    assert not bad or "4.00 GiB for 8 GPUs" in found["shared_memory"].sentence


def test_a_host_name_that_does_not_resolve(tmp_path):
    files = {**ETHERNET, "proc/sys/kernel/hostname": "node-7\n"}
    assert "node-7 does not resolve" in look(tmp_path / "a", {}, files, 0, address=None)["gloo_hostname"].sentence
    assert look(tmp_path / "b", {"GLOO_SOCKET_IFNAME": "eth0"}, files, 0, address=None) == {}
    assert look(tmp_path / "c", {}, files, 0) == {}
    assert network.address_of("localhost") == "127.0.0.1"
    assert network.address_of("no-such-host.invalid") is None


def test_this_machine_can_be_looked_at():
    found = list(network.preflight({}, 8, 64 * GIB))
    assert [each.name for each in found if each.name == "nccl_transport"] == ["nccl_transport"]
    assert not [each for each in found if each.level is Level.STOPS]
