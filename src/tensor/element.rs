//! The dtypes that host memory can hold, and the loops over them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Numbers per block: the accumulators of all outputs stay in the first-level cache.
pub(super) const BLOCK: usize = 1024;

/// Sources that are summed in one pass.
pub(super) const PASS: usize = 4;

/// A dtype that host memory can hold, with the type its sums are accumulated in.
///
/// All loops are inlined into their caller, so that one compiled for wider vectors gets them in all
/// of it. No sum is fused or reordered: every machine gives the same bits.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// f32, or f64 for f64.
    type Accumulator: Copy + Default + Send + Sync;

    /// `accumulator = sum_j coefficient_j * source_j`, or `+=` where it is not `fresh`; at most
    /// [`PASS`] terms, summed in their order.
    fn combine(accumulator: &mut [Self::Accumulator], terms: &[(f64, &[Self])], fresh: bool);

    /// `out = own * out + sum_j coefficient_j * source_j`, without the first where there is no
    /// `own`; at most [`PASS`] terms, `own` first, each number rounded once.
    fn write(out: &mut [Self], own: Option<f64>, terms: &[(f64, &[Self])]);

    /// Rounds the accumulator into `out`.
    fn store(accumulator: &[Self::Accumulator], out: &mut [Self]);

    /// Whether all numbers are finite.
    fn finite(values: &[Self]) -> bool;

    /// As f64.
    fn to_f64(self) -> f64;

    /// Rounded from f64.
    fn from_f64(value: f64) -> Self;
}

/// [`Element::combine`] for a number of terms that the compiler knows.
macro_rules! pass {
    ($terms:ident, $accumulator:ident, $fresh:ident, $float:ty, $widen:expr, $($j:literal),+) => {{
        let length = $accumulator.len();
        let c = [$($terms[$j].0 as $float),+];
        let s = [$(&$terms[$j].1[..length]),+];
        if $fresh {
            for i in 0..length {
                let mut sum = c[0] * $widen(s[0][i]);
                for j in 1..c.len() {
                    sum += c[j] * $widen(s[j][i]);
                }
                $accumulator[i] = sum;
            }
        } else {
            for i in 0..length {
                let mut sum = $accumulator[i];
                for j in 0..c.len() {
                    sum += c[j] * $widen(s[j][i]);
                }
                $accumulator[i] = sum;
            }
        }
    }};
}

macro_rules! combine {
    ($float:ty, $widen:expr) => {
        #[inline(always)]
        fn combine(accumulator: &mut [$float], terms: &[(f64, &[Self])], fresh: bool) {
            match terms.len() {
                1 => pass!(terms, accumulator, fresh, $float, $widen, 0),
                2 => pass!(terms, accumulator, fresh, $float, $widen, 0, 1),
                3 => pass!(terms, accumulator, fresh, $float, $widen, 0, 1, 2),
                _ => pass!(terms, accumulator, fresh, $float, $widen, 0, 1, 2, 3),
            }
        }
    };
}

/// [`Element::write`] for a number of terms that the compiler knows.
macro_rules! write_pass {
    ($terms:ident, $out:ident, $own:ident, $float:ty, $widen:expr, $narrow:expr, $($j:literal),*) => {{
        let length = $out.len();
        let c: [$float; 0 $(+ {let _ = $j; 1})*] = [$($terms[$j].0 as $float),*];
        let s: [&[Self]; 0 $(+ {let _ = $j; 1})*] = [$(&$terms[$j].1[..length]),*];
        match $own {
            Some(own) => {
                let own = own as $float;
                for i in 0..length {
                    let mut sum = own * $widen($out[i]);
                    for j in 0..c.len() {
                        sum += c[j] * $widen(s[j][i]);
                    }
                    $out[i] = $narrow(sum);
                }
            }
            None => {
                for i in 0..length {
                    // Neutral in every sum, and gone in the compiled loop.
                    let mut sum: $float = -0.0;
                    for j in 0..c.len() {
                        sum += c[j] * $widen(s[j][i]);
                    }
                    $out[i] = $narrow(sum);
                }
            }
        }
    }};
}

macro_rules! write {
    ($float:ty, $widen:expr, $narrow:expr) => {
        #[inline(always)]
        fn write(out: &mut [Self], own: Option<f64>, terms: &[(f64, &[Self])]) {
            match terms.len() {
                0 => write_pass!(terms, out, own, $float, $widen, $narrow,),
                1 => write_pass!(terms, out, own, $float, $widen, $narrow, 0),
                2 => write_pass!(terms, out, own, $float, $widen, $narrow, 0, 1),
                3 => write_pass!(terms, out, own, $float, $widen, $narrow, 0, 1, 2),
                _ => write_pass!(terms, out, own, $float, $widen, $narrow, 0, 1, 2, 3),
            }
        }
    };
}

/// A float whose magnitude has the bits of infinity or more is an infinity or NaN.
macro_rules! finite {
    ($bits:ty, $infinity:expr) => {
        #[inline(always)]
        fn finite(values: &[Self]) -> bool {
            // No early exit: the loop vectorises, and values are finite but for failures.
            let mut largest: $bits = 0;
            for value in values {
                largest = largest.max(value.to_bits() & (<$bits>::MAX >> 1));
            }
            largest < $infinity
        }
    };
}

macro_rules! native_element {
    ($float:ty, $bits:ty, $infinity:expr) => {
        impl Element for $float {
            type Accumulator = $float;

            combine!($float, |x: $float| x);
            write!($float, |x: $float| x, |x: $float| x);

            #[inline(always)]
            fn store(accumulator: &[$float], out: &mut [Self]) {
                out.copy_from_slice(&accumulator[..out.len()]);
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

/// bf16 is the upper half of an f32.
#[inline(always)]
fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// To the nearest, ties to even; a NaN stays one.
#[inline(always)]
fn narrow_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
}

impl Element for bf16 {
    type Accumulator = f32;

    combine!(f32, widen_bf16);
    write!(f32, widen_bf16, narrow_bf16);

    #[inline(always)]
    fn store(accumulator: &[f32], out: &mut [Self]) {
        out.iter_mut().zip(accumulator).for_each(|(out, x)| *out = narrow_bf16(*x));
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

    /// The processor's own conversions, which the crate `half` picks at run time, work on slices.
    #[inline(always)]
    fn combine(accumulator: &mut [f32], terms: &[(f64, &[Self])], fresh: bool) {
        let mut wide = [0.0f32; BLOCK];
        let wide = &mut wide[..accumulator.len()];
        for (j, (coefficient, source)) in terms.iter().enumerate() {
            source[..wide.len()].convert_to_f32_slice(wide);
            f32::combine(accumulator, &[(*coefficient, &*wide)], fresh && j == 0);
        }
    }

    #[inline(always)]
    fn write(out: &mut [Self], own: Option<f64>, terms: &[(f64, &[Self])]) {
        let mut sum = [0.0f32; BLOCK];
        let sum = &mut sum[..out.len()];
        if let Some(own) = own {
            Self::combine(sum, &[(own, &*out)], true);
        }
        if own.is_none() || !terms.is_empty() {
            Self::combine(sum, terms, own.is_none());
        }
        Self::store(sum, out);
    }

    #[inline(always)]
    fn store(accumulator: &[f32], out: &mut [Self]) {
        let length = out.len();
        out.convert_from_f32_slice(&accumulator[..length]);
    }

    finite!(u16, 0x7c00);

    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }

    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
}
