//! Working memory.
#![allow(unsafe_code, reason = "memory aligned to cache lines is looked at as floats")]

/// Working memory for one thread; grows on first use and is then reused without allocation.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Transposed tiles, a line of lanes a unit; or partial sums, a vector a class and row.
    pub(super) tile: AlignedLines,
    /// A line of lanes a class.
    pub(super) logits: AlignedLines,
    /// Results as rows, where a caller takes a slab of them.
    pub(super) rows: Vec<f32>,
}

/// Floats that begin at a cache line.
#[derive(Debug, Default)]
pub(super) struct AlignedLines(Vec<Aligned>);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Aligned([f32; 16]);

impl AlignedLines {
    /// The first `values` floats, of whatever value the last use has left.
    #[inline]
    pub(super) fn take(&mut self, values: usize) -> &mut [f32] {
        let needed = values.div_ceil(16);
        if self.0.len() < needed {
            self.0.resize(needed, Aligned([0.0; 16]));
        }
        // SAFETY: `Aligned` is 16 floats without padding, and there are at least `values / 16` of them.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), values) }
    }
}
