//! The dtypes that host memory can hold, and the loops over them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Numbers that are summed at a time, in registers.
pub(super) const LANES: usize = 64;

/// A dtype that host memory can hold, with the type its sums are accumulated in.
///
/// Every loop is inlined into its caller: where the caller is compiled for wider vectors, so are the loops.
/// Sums are never reordered, and only bf16 fuses products into them: every machine gives the same bits.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// f32, or f64 for f64.
    type Accumulator: Copy + Send + Sync;

    /// Its bits, as a number: those of a float without its sign grow with it, up to infinity's and NaNs'.
    type Bits: Copy;

    /// The bits of zeros.
    const ZEROS: [Self::Bits; LANES];

    /// Sums of nothing. They are -0.0, which changes no number that is added.
    const NOTHING: [Self::Accumulator; LANES];

    /// A coefficient in the type of the sums.
    fn coefficient(coefficient: f64) -> Self::Accumulator;

    /// `sums + coefficient * values`; the sums may be in an order of their own, which [`Element::round`] undoes.
    fn add(
        sums: [Self::Accumulator; LANES],
        coefficient: Self::Accumulator,
        values: [Self; LANES],
    ) -> [Self::Accumulator; LANES];

    /// Rounds the sums into this dtype.
    fn round(sums: [Self::Accumulator; LANES]) -> [Self; LANES];

    /// Lane by lane the larger of `largest` and the magnitudes' bits.
    fn larger(largest: [Self::Bits; LANES], values: [Self; LANES]) -> [Self::Bits; LANES];

    /// Whether these are the bits of finite magnitudes.
    fn all_finite(largest: [Self::Bits; LANES]) -> bool;

    /// Whether all numbers are finite.
    fn finite(values: &[Self]) -> bool;

    /// As f64.
    fn to_f64(self) -> f64;

    /// Rounded from f64.
    fn from_f64(value: f64) -> Self;
}

/// No early exit: the loops vectorise, and values are finite but for failures.
macro_rules! finite {
    ($bits:ty, $infinity:expr) => {
        type Bits = $bits;

        const ZEROS: [$bits; LANES] = [0; LANES];

        #[inline(always)]
        fn larger(mut largest: [$bits; LANES], values: [Self; LANES]) -> [$bits; LANES] {
            for i in 0..LANES {
                largest[i] = largest[i].max(values[i].to_bits() & (<$bits>::MAX >> 1));
            }
            largest
        }

        #[inline(always)]
        fn all_finite(largest: [$bits; LANES]) -> bool {
            largest.iter().fold(0, |all, bits| <$bits>::max(all, *bits)) < $infinity
        }

        fn finite(values: &[Self]) -> bool {
            values.iter().fold(0, |all, value| <$bits>::max(all, value.to_bits() & (<$bits>::MAX >> 1))) < $infinity
        }
    };
}

macro_rules! native_element {
    ($float:ty, $bits:ty, $infinity:expr) => {
        impl Element for $float {
            type Accumulator = $float;

            const NOTHING: [$float; LANES] = [-0.0; LANES];

            #[inline(always)]
            fn coefficient(coefficient: f64) -> $float {
                coefficient as $float
            }

            #[inline(always)]
            fn add(mut sums: [$float; LANES], coefficient: $float, values: [Self; LANES]) -> [$float; LANES] {
                for i in 0..LANES {
                    sums[i] += coefficient * values[i];
                }
                sums
            }

            #[inline(always)]
            fn round(sums: [$float; LANES]) -> [Self; LANES] {
                sums
            }

            finite!($bits, $infinity);

            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn from_f64(value: f64) -> Self {
                value as $float
            }
        }
    };
}

native_element!(f32, u32, 0x7f80_0000);
native_element!(f64, u64, 0x7ff0_0000_0000_0000);

/// The bits of `x` moved so that their upper half is `x` rounded to the nearest bf16, ties to even: a lower half above
/// 0x8000 carries into the upper one, and 0x8000 itself carries only where the upper one is odd.
///
/// A NaN whose lower half is zero stays a NaN. Sums of bf16 make no others: an operation gives one of its operands'
/// NaNs or the default one, and all of these have zeros there.
#[inline(always)]
fn rounded_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    (bits | (bits >> 16 & 1)).wrapping_add(0x7fff)
}

/// A bf16 is the upper half of an f32, so the loops take words of two numbers, for half the work. The sums of
/// all lower halves come first, then those of all upper halves.
impl Element for bf16 {
    type Accumulator = f32;

    const NOTHING: [f32; LANES] = f32::NOTHING;

    #[inline(always)]
    fn coefficient(coefficient: f64) -> f32 {
        coefficient as f32
    }

    #[inline(always)]
    fn add(mut sums: [f32; LANES], coefficient: f32, values: [Self; LANES]) -> [f32; LANES] {
        // SAFETY: as many bytes, and any four are a u32.
        let words: [u32; LANES / 2] = unsafe { std::mem::transmute(values) };
        for i in 0..LANES / 2 {
            sums[i] = coefficient.mul_add(f32::from_bits(words[i] << 16), sums[i]);
        }
        for i in 0..LANES / 2 {
            let upper = f32::from_bits(words[i] & 0xffff_0000);
            sums[LANES / 2 + i] = coefficient.mul_add(upper, sums[LANES / 2 + i]);
        }
        sums
    }

    #[inline(always)]
    fn round(sums: [f32; LANES]) -> [Self; LANES] {
        let mut words = [0u32; LANES / 2];
        for i in 0..LANES / 2 {
            words[i] = (rounded_bf16(sums[i]) >> 16) | (rounded_bf16(sums[LANES / 2 + i]) & 0xffff_0000);
        }
        // SAFETY: as many bytes, and any two are a bf16.
        unsafe { std::mem::transmute(words) }
    }

    finite!(u16, 0x7f80);

    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }

    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
}

impl Element for f16 {
    type Accumulator = f32;

    const NOTHING: [f32; LANES] = f32::NOTHING;

    #[inline(always)]
    fn coefficient(coefficient: f64) -> f32 {
        coefficient as f32
    }

    /// The processor's own conversions, which the crate `half` picks at run time, work on slices.
    #[inline(always)]
    fn add(sums: [f32; LANES], coefficient: f32, values: [Self; LANES]) -> [f32; LANES] {
        let mut wide = [0.0; LANES];
        values.convert_to_f32_slice(&mut wide);
        f32::add(sums, coefficient, wide)
    }

    #[inline(always)]
    fn round(sums: [f32; LANES]) -> [Self; LANES] {
        let mut rounded = [f16::ZERO; LANES];
        rounded.convert_from_f32_slice(&sums);
        rounded
    }

    finite!(u16, 0x7c00);

    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }

    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
}
