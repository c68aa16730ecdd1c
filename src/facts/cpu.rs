//! CPU architecture and x86-64 level, read from the text of `/proc/cpuinfo`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cpuid::CpuId;

/// A micro-architecture level of the x86-64 psABI. Each level includes those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CpuLevel {
    /// Every 64-bit x86 CPU.
    #[serde(rename = "x86-64-v1")]
    V1,
    /// About Nehalem (2008): SSE4.2, POPCNT, CMPXCHG16B, LAHF/SAHF.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// About Haswell (2013): AVX2, BMI, FMA.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// AVX-512 with the F, BW, CD, DQ and VL parts.
    #[serde(rename = "x86-64-v4")]
    V4,
}

impl CpuLevel {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];

    /// The name used everywhere: `x86-64-v1` … `x86-64-v4`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    /// The flags that this level adds to the one below, by their names in `/proc/cpuinfo`.
    ///
    /// From the psABI's table (commit 77566eb0). The kernel writes SSE3 as `pni`, LZCNT as `abm` and LAHF/SAHF as
    /// `lahf_lm`; it does not list OSXSAVE, but lists `avx` only where the operating system enabled it.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"],
            Self::V2 => &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"],
            Self::V3 => &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"],
            Self::V4 => &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
        }
    }

    /// The highest level whose flags, and those of all levels below, are present. A 64-bit CPU is at least
    /// [`CpuLevel::V1`], whatever an emulator leaves out of its list.
    fn of_flags(flags: &BTreeSet<String>) -> Self {
        Self::ALL
            .into_iter()
            .skip(1)
            .take_while(|level| level.flags().iter().all(|flag| flags.contains(*flag)))
            .last()
            .unwrap_or(Self::V1)
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no CPU level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a CPU level: x86-64-v1, x86-64-v2, x86-64-v3 or x86-64-v4")]
pub struct ParseCpuLevelError(String);

impl FromStr for CpuLevel {
    type Err = ParseCpuLevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| ParseCpuLevelError(text.to_owned()))
    }
}

/// What a machine's CPUs can do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuFacts {
    /// `amd64`, `arm64`, or the empty string where the text does not tell.
    pub architecture: String,
    /// The x86-64 level; `None` on other architectures.
    pub level: Option<CpuLevel>,
    /// The model's name, such as `AMD EPYC`; empty where there is none (arm64).
    pub model: String,
    /// Number of logical CPUs.
    pub cpus: u32,
    /// Whether the CPU says that it is a virtual machine's.
    pub hypervisor: bool,
    /// Flags (`Features` on arm64) that every CPU has, sorted.
    pub flags: BTreeSet<String>,
}

impl CpuFacts {
    /// The flags that are missing for `level`, levels below included; empty where it is reached.
    pub fn missing_for(&self, level: CpuLevel) -> Vec<&'static str> {
        CpuLevel::ALL
            .into_iter()
            .filter(|step| *step > CpuLevel::V1 && *step <= level)
            .flat_map(CpuLevel::flags)
            .copied()
            .filter(|flag| !self.flags.contains(*flag))
            .collect()
    }

    /// Whether a binary for `level` runs here. Always `false` on other architectures.
    pub fn runs(&self, level: CpuLevel) -> bool {
        self.level.is_some_and(|own| own >= level)
    }
}

impl CpuFacts {
    /// What CPUID leaves of what the kernel lists. The instruction is what programs and their libraries go by: a
    /// user-mode emulator shows the list of the CPU below it, which may have more. A flag that the kernel does not list
    /// for every processor stays absent.
    ///
    /// Where the kernel lists nothing of this architecture, CPUID alone counts.
    pub(super) fn corrected_by(mut self, cpuid: &CpuId) -> Self {
        if cpuid.is_empty() {
            return self;
        }
        if self.architecture == "amd64" && !self.flags.is_empty() {
            self.flags.retain(|flag| cpuid.get(flag.as_str()) != Some(&false));
        } else {
            "amd64".clone_into(&mut self.architecture);
            self.flags = cpuid.iter().filter(|(_, has)| **has).map(|(flag, _)| (*flag).to_owned()).collect();
        }
        self.level = Some(CpuLevel::of_flags(&self.flags));
        self
    }
}

/// Reads the text of `/proc/cpuinfo`. Flags are those that all processors share, so a mixed machine gets the level of
/// its weakest CPU.
pub fn level_of_cpuinfo(text: &str) -> CpuFacts {
    let mut facts = CpuFacts::default();
    let mut shared: Option<BTreeSet<String>> = None;
    let mut arm = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let (key, value) = (key.trim(), value.trim());
        match key {
            "processor" => facts.cpus += 1,
            "model name" if facts.model.is_empty() => value.clone_into(&mut facts.model),
            "CPU implementer" => arm = true,
            "flags" | "Features" => {
                arm |= key == "Features";
                let flags: BTreeSet<String> = value.split_whitespace().map(str::to_owned).collect();
                shared = Some(match shared {
                    Some(common) => common.intersection(&flags).cloned().collect(),
                    None => flags,
                });
            }
            _ => {}
        }
    }
    facts.flags = shared.unwrap_or_default();
    facts.hypervisor = facts.flags.contains("hypervisor");
    if arm {
        "arm64".clone_into(&mut facts.architecture);
    } else if facts.flags.contains("lm") {
        "amd64".clone_into(&mut facts.architecture);
        facts.level = Some(CpuLevel::of_flags(&facts.flags));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> CpuFacts {
        let path = format!("{}/tests/facts/cpuinfo/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        level_of_cpuinfo(&std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn levels_of_known_machines() {
        let (amd64, arm64) = ("amd64", "arm64");
        let (v1, v2, v3, v4) = (Some(CpuLevel::V1), Some(CpuLevel::V2), Some(CpuLevel::V3), Some(CpuLevel::V4));
        let table = [
            ("qemu64", amd64, v1, true),
            ("qemu-1.5.3", amd64, v1, true),
            ("kvm64", amd64, v1, true),
            ("core2", amd64, v1, false),
            ("phenom-ii", amd64, v1, false),
            ("wsl1-without-lahf", amd64, v1, true),
            ("virtualbox-hidden-flags", amd64, v1, true),
            ("virtualbox-7.2.8", amd64, v2, true),
            ("nehalem", amd64, v2, true),
            ("sandy-bridge", amd64, v2, false),
            ("docker-desktop-intel-mac", amd64, v2, true),
            ("rosetta", amd64, v2, false),
            ("mixed", amd64, v2, true),
            ("haswell", amd64, v3, true),
            ("virtualbox-7.2.4", amd64, v3, true),
            ("wsl2", amd64, v3, true),
            ("epyc-firecracker", amd64, v3, true),
            ("hybrid-avx512", amd64, v3, false),
            ("avx512", amd64, v4, false),
            ("avx512-nutanix", amd64, v4, true),
            ("avx512-workstation", amd64, v4, false),
            ("apple-silicon-vm", arm64, None, false),
            ("docker-desktop-apple-m1", arm64, None, false),
            ("cloud-arm64", arm64, None, false),
        ];
        for (name, architecture, level, hypervisor) in table {
            let facts = fixture(name);
            assert_eq!(facts.architecture, architecture, "{name}");
            assert_eq!(facts.level, level, "{name}");
            assert_eq!(facts.hypervisor, hypervisor, "{name}");
            assert!(facts.cpus > 0, "{name}");
        }
        let dir = format!("{}/tests/facts/cpuinfo", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(table.iter().any(|(known, ..)| *known == name), "nothing is said of {name}");
            let text = std::fs::read_to_string(&path).unwrap();
            let origins = ["# source: https://", "# synthetic: ", "# read on "];
            assert!(origins.iter().any(|origin| text.starts_with(origin)), "{name} does not say where it is from");
        }
    }

    #[test]
    fn one_missing_flag_lowers_the_level() {
        let full: BTreeSet<String> =
            CpuLevel::ALL.into_iter().flat_map(CpuLevel::flags).map(|flag| (*flag).to_owned()).collect();
        assert_eq!(CpuLevel::of_flags(&full), CpuLevel::V4);
        for (index, level) in CpuLevel::ALL.into_iter().enumerate().skip(1) {
            for flag in level.flags() {
                let mut flags = full.clone();
                flags.remove(*flag);
                assert_eq!(CpuLevel::of_flags(&flags), CpuLevel::ALL[index - 1], "without {flag}");
            }
        }
    }

    #[test]
    fn missing_flags_are_named() {
        assert_eq!(
            fixture("virtualbox-hidden-flags").missing_for(CpuLevel::V2),
            ["popcnt", "sse4_1", "sse4_2"],
            "what the evidence of cpu.x86-64-level prints"
        );
        assert!(fixture("haswell").missing_for(CpuLevel::V3).is_empty());
        assert!(fixture("haswell").runs(CpuLevel::V2));
        assert!(!fixture("haswell").runs(CpuLevel::V4));
        assert!(!fixture("apple-silicon-vm").runs(CpuLevel::V1));
    }

    #[test]
    fn cpuid_counts_where_the_list_is_of_another_cpu() {
        let cpuid = |level: CpuLevel| -> CpuId {
            let all = CpuLevel::ALL.into_iter().skip(1);
            all.flat_map(|of| of.flags().iter().map(move |flag| (*flag, of <= level))).collect()
        };
        // An emulator on a newer CPU, and a newer CPU of which the kernel hides a part.
        let haswell = fixture("haswell");
        assert_eq!(haswell.clone().corrected_by(&cpuid(CpuLevel::V1)).level, Some(CpuLevel::V1));
        assert_eq!(haswell.clone().corrected_by(&cpuid(CpuLevel::V2)).missing_for(CpuLevel::V3).len(), 9);
        assert_eq!(haswell.clone().corrected_by(&cpuid(CpuLevel::V4)), haswell);
        assert_eq!(haswell.clone().corrected_by(&CpuId::new()), haswell);
        // No list: macOS, or an emulator on another architecture.
        for none in [CpuFacts::default(), fixture("apple-silicon-vm")] {
            let seen = none.corrected_by(&cpuid(CpuLevel::V3));
            assert_eq!((seen.architecture.as_str(), seen.level), ("amd64", Some(CpuLevel::V3)));
        }
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(level_of_cpuinfo(""), CpuFacts::default());
        assert_eq!(level_of_cpuinfo("garbage\n\u{0}: :\n").level, None);
    }

    #[test]
    fn names_round_trip() {
        for level in CpuLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        assert!("v2".parse::<CpuLevel>().is_err());
    }
}
