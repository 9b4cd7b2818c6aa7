//! Memory in amounts that a caller chooses: where there is none left, that is an error and not the process's end.

use crate::error::{Error, Result};

/// Room for `length` values, none of them there yet.
///
/// # Errors
/// [`Error::Memory`].
pub fn room<T>(length: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| Error::Memory { bytes: length.saturating_mul(size_of::<T>()) })?;
    Ok(values)
}

/// `length` times `value`.
///
/// # Errors
/// [`Error::Memory`].
pub fn filled<T: Clone>(length: usize, value: T) -> Result<Vec<T>> {
    let mut values = room(length)?;
    values.resize(length, value);
    Ok(values)
}

/// A copy of `values`.
///
/// # Errors
/// [`Error::Memory`].
pub fn copied<T: Copy>(values: &[T]) -> Result<Vec<T>> {
    let mut copy = room(values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// All that `values` gives.
///
/// # Errors
/// [`Error::Memory`].
pub fn collected<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut all = room(values.len())?;
    all.extend(values);
    Ok(all)
}

/// `length` bytes, those of `pattern` over and over; none where it has none.
///
/// # Errors
/// [`Error::Memory`].
pub fn cycled(pattern: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut bytes = room(length)?;
    bytes.extend(pattern.iter().cycle().take(length));
    Ok(bytes)
}

/// How many numbers `count` samples of `elements` are.
///
/// # Errors
/// [`Error::Memory`] where no memory could hold them.
pub fn numbers(count: usize, elements: usize) -> Result<usize> {
    count.checked_mul(elements).ok_or(Error::Memory { bytes: usize::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert!(matches!(room::<f64>(usize::MAX / 8), Err(Error::Memory { .. })));
        assert!(matches!(room::<f64>(usize::MAX), Err(Error::Memory { bytes: usize::MAX })));
        assert!(matches!(filled(usize::MAX / 2, 0u8), Err(Error::Memory { bytes }) if bytes == usize::MAX / 2));
        assert!(matches!(numbers(usize::MAX, 2), Err(Error::Memory { .. })));
        assert_eq!(numbers(3, 4).unwrap(), 12);
        assert_eq!(filled(2, 7).unwrap(), [7, 7]);
        assert_eq!(copied(&[1, 2]).unwrap(), [1, 2]);
        assert_eq!(cycled(&[1, 2, 3], 7).unwrap(), [1, 2, 3, 1, 2, 3, 1]);
        assert!(matches!(cycled(&[0], usize::MAX), Err(Error::Memory { .. })));
        assert_eq!(collected((0..3).map(|i| 2 * i)).unwrap(), [0, 2, 4]);
    }
}
