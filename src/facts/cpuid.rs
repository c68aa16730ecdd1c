//! What the CPU says of itself by its CPUID instruction.

use std::collections::BTreeMap;

/// Flags by their names in `/proc/cpuinfo`, and whether the CPU has them and the operating system enabled them.
pub(super) type CpuId = BTreeMap<&'static str, bool>;

/// Asks the CPU that this process runs on; empty on other architectures than x86-64.
///
/// All flags of the levels above the first are asked for.
#[cfg(target_arch = "x86_64")]
pub(super) fn ask() -> CpuId {
    use std::arch::is_x86_feature_detected as has;
    BTreeMap::from([
        ("cx16", has!("cmpxchg16b")),
        ("lahf_lm", has_lahf()),
        ("popcnt", has!("popcnt")),
        ("pni", has!("sse3")),
        ("sse4_1", has!("sse4.1")),
        ("sse4_2", has!("sse4.2")),
        ("ssse3", has!("ssse3")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("bmi1", has!("bmi1")),
        ("bmi2", has!("bmi2")),
        ("f16c", has!("f16c")),
        ("fma", has!("fma")),
        ("abm", has!("lzcnt")),
        ("movbe", has!("movbe")),
        ("xsave", has!("xsave")),
        ("avx512f", has!("avx512f")),
        ("avx512bw", has!("avx512bw")),
        ("avx512cd", has!("avx512cd")),
        ("avx512dq", has!("avx512dq")),
        ("avx512vl", has!("avx512vl")),
    ])
}

/// LAHF and SAHF in 64-bit mode, which the standard library has no name for: bit 0 of ECX in the leaf of AMD's extensions.
#[cfg(target_arch = "x86_64")]
fn has_lahf() -> bool {
    use std::arch::x86_64::{__cpuid, __get_cpuid_max};
    const EXTENDED: u32 = 0x8000_0000;
    const FEATURES: u32 = EXTENDED + 1;
    __get_cpuid_max(EXTENDED).0 >= FEATURES && __cpuid(FEATURES).ecx & 1 == 1
}

/// Asks the CPU that this process runs on; empty on other architectures than x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ask() -> CpuId {
    BTreeMap::new()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facts::CpuLevel;

    #[test]
    fn every_flag_of_a_level_is_asked_for() {
        let wanted: BTreeSet<&str> = CpuLevel::ALL.into_iter().skip(1).flat_map(CpuLevel::flags).copied().collect();
        assert_eq!(ask().into_keys().collect::<BTreeSet<_>>(), wanted);
    }
}
