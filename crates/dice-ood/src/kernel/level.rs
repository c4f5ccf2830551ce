//! Instruction-set levels, and the one door to code that is compiled for a level.
#![allow(unsafe_code, reason = "code compiled for an instruction set may run only where the processor has that set")]

use std::fmt;
use std::sync::OnceLock;

use super::isa::{Isa, Portable, Work};
#[cfg(target_arch = "x86_64")]
use super::x86::{self, Avx2, Avx512};
use crate::error::{Error, ErrorKind, Result};

/// An instruction-set level. Levels other than the portable one are made by [`Level::available`] alone, which looks
/// for their features on this processor: condition (1) of [`generic`](super::generic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Known);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// What the compiler's target guarantees.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels this machine runs, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self(Known::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self(Known::Avx2));
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self(Known::Avx512));
                }
            }
        }
        levels
    }

    /// The fastest available level, or the one that `DICE_SIMD` names.
    pub(super) fn choose() -> Result<Self> {
        let levels = Self::available();
        let fastest = levels[levels.len() - 1];
        let Ok(wanted) = std::env::var("DICE_SIMD") else { return Ok(fastest) };
        levels.iter().copied().find(|level| level.to_string() == wanted).ok_or_else(|| {
            let names: Vec<String> = levels.iter().map(Self::to_string).collect();
            Error::new(ErrorKind::Argument, format!("`{wanted}`"))
                .argument("DICE_SIMD")
                .expected(format!("a level this machine runs: {}", names.join(", ")))
        })
    }

    /// What [`Level::choose`] says, asked once: for work that has no kernel which was built for a level.
    pub(super) fn of_process() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| Self::choose().unwrap_or(Self(Known::Portable)))
    }

    /// Does `work` with the instructions of this level.
    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            // SAFETY: (1): the compiler's target has what the portable level uses.
            Known::Portable => unsafe { work.run::<Portable>() },
            // SAFETY: (1): `available` found the features before it made this value.
            #[cfg(target_arch = "x86_64")]
            Known::Avx2 => unsafe { x86::run_avx2(work) },
            // SAFETY: (1): as for AVX2.
            #[cfg(target_arch = "x86_64")]
            Known::Avx512 => unsafe { x86::run_avx512(work) },
        }
    }

    /// Inputs of a wide block.
    #[inline]
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            Known::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Known::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Known::Avx512 => Avx512::LANES,
        }
    }

    /// Values of a vector along the units, and classes that share a load of features, in the layout by rows.
    pub(super) fn row_shape(self) -> (usize, usize) {
        match self.0 {
            Known::Portable => (Portable::WIDTH, Portable::ROW_GROUP),
            #[cfg(target_arch = "x86_64")]
            Known::Avx2 => (Avx2::WIDTH, Avx2::ROW_GROUP),
            #[cfg(target_arch = "x86_64")]
            Known::Avx512 => (Avx512::WIDTH, Avx512::ROW_GROUP),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Known::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Known::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Known::Avx512 => "avx512",
        })
    }
}
