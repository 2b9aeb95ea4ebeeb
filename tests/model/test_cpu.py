"""Decisions that depend on the CPU, for CPUs that this machine need not have."""

import pytest

from av2tsam_cli.model.cpu import can_pack, has_fast_bf16, supports_packing

pytestmark = pytest.mark.cpu

AVX512 = {"avx2": True, "avx512_f": True, "avx512_bw": True, "avx512_vl": True, "avx512_dq": True}
CPUS = {
    "too old a PyTorch to tell": {},
    "Haswell, Zen 3": {"avx2": True, "avx512_f": False, "avx512_bf16": False},
    "Skylake-SP": AVX512 | {"avx512_bf16": False},
    "Knights Landing": {"avx2": True, "avx512_f": True},
    "Sierra Forest": {"avx2": True, "avx_ne_convert": True},
    "Zen 4": AVX512 | {"avx512_bf16": True},
    "Sapphire Rapids": AVX512 | {"avx512_bf16": True, "amx_bf16": True},
    "Apple M2": {"neon": True, "bf16": True, "architecture": "aarch64"},
}
FAST = {"Zen 4", "Sapphire Rapids"}
PACKING = FAST | {"Skylake-SP", "Sierra Forest"}


@pytest.mark.parametrize("cpu", CPUS)
def test_bf16_is_fast_only_with_instructions_for_it(cpu: str) -> None:
    assert has_fast_bf16(CPUS[cpu]) == (cpu in FAST)


@pytest.mark.parametrize("cpu", CPUS)
def test_weights_are_packed_only_where_onednn_handles_bf16(cpu: str) -> None:
    assert supports_packing(CPUS[cpu]) == (cpu in PACKING)
    if cpu not in PACKING:
        assert not can_pack(CPUS[cpu])
