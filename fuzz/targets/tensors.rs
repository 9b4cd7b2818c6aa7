//! `DLTensor` descriptors: those that tell the truth about a small arena are gathered and scattered
//! as an index-by-index reference does it; all others are refused. None is misread.
#![no_main]

use bespoke::capi::*;
use bespoke::theta::{Family, Knots, Theta};
use libfuzzer_sys::fuzz_target;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Numbers of the arena, each of 8 bytes.
const ARENA: usize = 512;
/// Samples bigger than this are refused by the target: it is about descriptors.
const LARGEST: i128 = 2048;

/// Reads the input piece by piece; zeros when it is used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let count = N.min(self.0.len());
        out[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        out
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// Mostly small, sometimes anything.
    fn number(&mut self) -> i64 {
        match self.byte() {
            0xff => i64::from_le_bytes(self.take()),
            0xfe => i64::from(i16::from_le_bytes(self.take())),
            small => i64::from(small as i8),
        }
    }
}

struct Handles(*mut bespoke_theta, *mut bespoke_sampler);

// SAFETY: libFuzzer calls from one thread.
unsafe impl Send for Handles {}
unsafe impl Sync for Handles {}

fn handles() -> &'static Handles {
    static HANDLES: OnceLock<Handles> = OnceLock::new();
    HANDLES.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("bespoke-fuzz-{}.json", std::process::id()));
        Theta::new(Family::Rk1(Knots::identity(1))).and_then(|theta| theta.save(&path)).expect("a theta");
        let name = CString::new(path.to_string_lossy().into_owned()).expect("a path");
        let (mut theta, mut sampler) = (null_mut(), null_mut());
        // SAFETY: as the header asks.
        unsafe {
            assert_eq!(bespoke_load_theta(name.as_ptr(), &mut theta), BESPOKE_OK);
            assert_eq!(bespoke_sampler_new(theta, std::ptr::null(), &mut sampler), BESPOKE_OK);
        }
        let _ = std::fs::remove_file(path);
        Handles(theta, sampler)
    })
}

/// The velocity 1, so that an Euler step of 1 adds 1 to every number; in every dtype.
unsafe extern "C-unwind" fn one(_: *mut c_void, _: *const DLTensor, x: *const DLTensor, u: *mut DLTensor) -> i32 {
    unsafe {
        let shape = std::slice::from_raw_parts((*x).shape, (*x).ndim as usize);
        let count = shape.iter().product::<i64>() as usize;
        let bits: u64 = match ((*x).dtype.code, (*x).dtype.bits) {
            (2, 32) => 1.0f32.to_bits().into(),
            (2, 64) => 1.0f64.to_bits(),
            (2, 16) => 0x3c00,
            _ => 0x3f80,
        };
        let bytes = (*x).dtype.bits as usize / 8;
        for i in 0..count {
            let to = (*u).data.cast::<u8>().add(i * bytes);
            std::ptr::copy_nonoverlapping(bits.to_ne_bytes().as_ptr(), to, bytes);
        }
    }
    0
}

/// What is known of a descriptor by plain reasoning in wide integers.
#[derive(PartialEq, Debug)]
enum Verdict {
    /// Acceptable, and these are the byte offsets of its numbers in the arena, in row-major order.
    Good(Vec<usize>),
    /// Must be refused.
    Bad,
    /// Acceptable in itself, but it lies about the arena: not to be tried.
    Lie,
}

struct Case {
    dtype: DLDataType,
    device: i32,
    ndim: i32,
    shape: Vec<i64>,
    strides: Option<Vec<i64>>,
    byte_offset: u64,
}

impl Case {
    fn read(input: &[u8]) -> Self {
        let mut bytes = Bytes(input);
        let dtype = match bytes.byte() % 8 {
            0 | 1 => DLDataType { code: 2, bits: 32, lanes: 1 },
            2 => DLDataType { code: 2, bits: 64, lanes: 1 },
            3 => DLDataType { code: 2, bits: 16, lanes: 1 },
            4 => DLDataType { code: 4, bits: 16, lanes: 1 },
            _ => DLDataType { code: bytes.byte(), bits: bytes.byte(), lanes: u16::from_le_bytes(bytes.take()) },
        };
        let device = if bytes.byte() < 0xf0 { 1 } else { i32::from(bytes.byte()) };
        let rank = match bytes.byte() {
            0xff => usize::from(bytes.byte()) % 40,
            rank => usize::from(rank) % 6,
        };
        let shape = (0..rank).map(|_| bytes.number()).collect();
        let strides = (bytes.byte() % 3 != 0).then(|| (0..rank).map(|_| bytes.number()).collect());
        let byte_offset = match bytes.byte() {
            0xff => u64::from_le_bytes(bytes.take()),
            _ => u64::from(u16::from_le_bytes(bytes.take())) % (8 * ARENA as u64),
        };
        Self { dtype, device, ndim: rank as i32, shape, strides, byte_offset }
    }

    fn verdict(&self, writable: bool) -> Verdict {
        let DLDataType { code, bits, lanes } = self.dtype;
        let known = matches!((code, bits, lanes), (2, 16 | 32 | 64, 1) | (4, 16, 1));
        if !known || ![1, 3, 11].contains(&self.device) || !(1..=32).contains(&self.ndim) {
            return Verdict::Bad;
        }
        let bytes = i128::from(bits) / 8;
        if self.shape.iter().any(|n| *n <= 0) {
            return Verdict::Bad;
        }
        let count = self.shape.iter().try_fold(1i128, |product, n| product.checked_mul(i128::from(*n)));
        let fits = |count: &i128| count.checked_mul(bytes).is_some_and(|bytes| bytes <= isize::MAX as i128);
        let Some(count) = count.filter(fits) else { return Verdict::Bad };
        if i128::from(self.byte_offset) % bytes != 0 {
            return Verdict::Bad;
        }
        let strides = self
            .strides
            .clone()
            .unwrap_or_else(|| (0..self.shape.len()).map(|i| self.shape[i + 1..].iter().product()).collect());
        let (mut low, mut high) = (i128::from(self.byte_offset), i128::from(self.byte_offset) + bytes);
        for (n, stride) in self.shape.iter().zip(&strides) {
            let reach = i128::from(n - 1) * i128::from(*stride) * bytes;
            if reach < 0 { low += reach } else { high += reach }
        }
        if low < 0 || high > 8 * ARENA as i128 || count > LARGEST {
            return Verdict::Lie;
        }
        let mut places = vec![self.byte_offset as i128];
        for (n, stride) in self.shape.iter().zip(&strides) {
            places = places
                .iter()
                .flat_map(|at| (0..*n).map(move |i| at + i128::from(i) * i128::from(*stride) * bytes))
                .collect();
        }
        let places: Vec<usize> = places.into_iter().map(|at| at as usize).collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if writable && sorted.len() < places.len() {
            return Verdict::Bad;
        }
        Verdict::Good(places)
    }
}

fuzz_target!(|input: &[u8]| {
    let mut case = Case::read(input);
    let mut arena = vec![0u64; ARENA];
    // Finite in every dtype: no exponent is all ones.
    let bytes: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(arena.as_mut_ptr().cast(), 8 * ARENA) };
    bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 61) as u8);
    let before = bytes.to_vec();
    let mut tensor = DLTensor {
        data: bytes.as_mut_ptr().cast(),
        device: DLDevice { device_type: case.device, device_id: 0 },
        ndim: case.ndim,
        dtype: case.dtype,
        shape: case.shape.as_mut_ptr(),
        strides: case.strides.as_mut().map_or(null_mut(), |strides| strides.as_mut_ptr()),
        byte_offset: case.byte_offset,
    };
    let Handles(theta, sampler) = handles();
    match case.verdict(true) {
        Verdict::Lie => {}
        Verdict::Bad => {
            let status = unsafe { bespoke_step(*theta, *sampler, 0, &mut tensor, Some(one), null_mut()) };
            assert_eq!(status, BESPOKE_ERROR_INVALID);
            assert_eq!(bytes, before);
        }
        Verdict::Good(places) => {
            let status = unsafe { bespoke_step(*theta, *sampler, 0, &mut tensor, Some(one), null_mut()) };
            if status == BESPOKE_ERROR_INVALID {
                // Dimensions that interleave without meeting are refused too: see docs/abi.md.
                assert!(case.strides.is_some());
                assert_eq!(bytes, before);
                return;
            }
            assert_eq!(status, BESPOKE_OK);
            let size = usize::from(case.dtype.bits) / 8;
            let mut expected = before;
            for at in places {
                let number = &mut expected[at..at + size];
                plus_one(number, case.dtype);
            }
            assert_eq!(bytes, expected);
        }
    }
});

/// x + 1 in a dtype, rounded as the library rounds: the sum in float32, or float64 for float64.
fn plus_one(number: &mut [u8], dtype: DLDataType) {
    match (dtype.code, dtype.bits) {
        (2, 64) => {
            let sum = f64::from_ne_bytes(number.try_into().unwrap_or_default()) + 1.0;
            number.copy_from_slice(&sum.to_ne_bytes());
        }
        (2, 32) => {
            let sum = f32::from_ne_bytes(number.try_into().unwrap_or_default()) + 1.0;
            number.copy_from_slice(&sum.to_ne_bytes());
        }
        (2, 16) => {
            let half = half::f16::from_ne_bytes(number.try_into().unwrap_or_default());
            number.copy_from_slice(&half::f16::from_f32(half.to_f32() + 1.0).to_ne_bytes());
        }
        _ => {
            let half = half::bf16::from_ne_bytes(number.try_into().unwrap_or_default());
            number.copy_from_slice(&half::bf16::from_f32(half.to_f32() + 1.0).to_ne_bytes());
        }
    }
}
