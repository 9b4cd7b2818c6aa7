//! The operations on tensors: one body for host memory and, with libtorch, for its tensors.

use bespoke::error::{Error, Result};
use bespoke::tensor::{Host, Operand, PerRow, Register, Tensor, Update};
use half::bf16;

fn values(seed: u64, batch: usize, elements: usize) -> Vec<f32> {
    bespoke::noise::normal(seed, bespoke::noise::Purpose::Choice, 0..batch, elements).unwrap()
}

#[track_caller]
fn close<T: Tensor>(tensor: &T, shape: (usize, usize), expected: impl Fn(usize, usize) -> f64, what: &str) {
    assert_eq!((tensor.batch(), tensor.elements()), shape, "{what}");
    for (i, v) in tensor.to_f32().unwrap().into_iter().enumerate() {
        let expected = expected(i / shape.1, i % shape.1);
        assert!((f64::from(v) - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{what}[{i}]: {v}, not {expected}");
    }
}

/// All operations on batches of `batch` samples of `elements` numbers, against plain loops.
fn check<T: Tensor>(make: &dyn Fn(&[f32], usize) -> Result<T>, batch: usize, elements: usize) {
    let (va, vb, vc) = (values(1, batch, elements), values(2, batch, elements), values(3, batch, elements));
    let at = |v: &[f32], row: usize, i: usize| f64::from(v[row * elements + i]);
    let [a, b, c] = [&va, &vb, &vc].map(|v| make(v, elements).unwrap());
    let shape = (batch, elements);
    assert_eq!(a.to_f32().unwrap(), va);

    let per_row: Vec<f64> = (0..batch).map(|row| 0.1 * row as f64 - 1.0).collect();
    let each = PerRow::Each(&per_row);
    let sum = T::linear_combination(&[(PerRow::All(0.5), &a), (each, &b), (PerRow::All(1.0), &c)]).unwrap();
    let expected = |r, i| 0.5 * at(&va, r, i) + per_row[r] * at(&vb, r, i) + at(&vc, r, i);
    close(&sum, shape, expected, "linear_combination");
    let sum = T::linear_combination(&[(each, &a), (PerRow::All(0.0), &b)]).unwrap();
    close(&sum, shape, |r, i| per_row[r] * at(&va, r, i), "linear_combination of a per-row and a zero term");
    assert!(T::linear_combination(&[]).is_err());
    assert!(
        T::linear_combination(&[(PerRow::All(1.0), &a), (PerRow::All(1.0), &a.zeros_like(batch + 1).unwrap())])
            .is_err()
    );
    assert!(T::linear_combination(&[(PerRow::Each(&per_row[1..]), &a), (PerRow::All(1.0), &b)]).is_err() || batch <= 2);
    close(&a.zeros_like(batch + 2).unwrap(), (batch + 2, elements), |_, _| 0.0, "zeros_like");

    let dot = |x: &[f32], y: &[f32], row| (0..elements).map(|i| at(x, row, i) * at(y, row, i)).sum::<f64>();
    close(&a.dot(&b).unwrap(), (batch, 1), |r, _| dot(&va, &vb, r), "dot");
    let columns = T::fetch(&[&a.dot(&b).unwrap(), &a.dot(&a).unwrap()]).unwrap();
    assert_eq!((columns.len(), columns[0].len(), columns[1].len()), (2, batch, batch));
    for (row, (ab, aa)) in columns[0].iter().zip(&columns[1]).enumerate() {
        assert!((ab - dot(&va, &vb, row)).abs() < 1e-4 && (aa - dot(&va, &va, row)).abs() < 1e-4);
    }
    assert!(T::fetch(&[]).unwrap().is_empty());
    let rmse = a.rmse(&b).unwrap();
    let ratio = T::error_ratio(&a, &b, &c, 0.3, 0.2).unwrap();
    for row in 0..batch {
        let mean =
            |f: &dyn Fn(usize) -> f64| ((0..elements).map(|i| f(i).powi(2)).sum::<f64>() / elements as f64).sqrt();
        let difference = mean(&|i| at(&va, row, i) - at(&vb, row, i));
        assert!((rmse[row] - difference).abs() < 1e-5, "rmse {} {difference}", rmse[row]);
        let scaled = mean(&|i| at(&va, row, i) / (0.2 + 0.3 * at(&vb, row, i).abs().max(at(&vc, row, i).abs())));
        assert!((ratio[row] / scaled - 1.0).abs() < 1e-5, "error_ratio {} {scaled}", ratio[row]);
    }

    let rows = [batch - 1, 0, batch / 2, 0];
    close(&a.select(&rows).unwrap(), (4, elements), |r, i| at(&va, rows[r], i), "select");
    close(&a.select(&[]).unwrap(), (0, elements), |_, _| 0.0, "select nothing");
    assert!(a.select(&[batch]).is_err());
    let joined = T::concatenate(&[&a, &b]).unwrap();
    let expected = |r, i| if r < batch { at(&va, r, i) } else { at(&vb, r - batch, i) };
    close(&joined, (2 * batch, elements), expected, "concatenate");
    close(&joined.narrow(batch..2 * batch).unwrap(), shape, |r, i| at(&vb, r, i), "narrow");
    assert!(a.narrow(0..batch + 1).is_err());

    let mut copy = a.duplicate().unwrap();
    copy.copy_rows(b.view(), batch - 1..batch).unwrap();
    close(&copy, shape, |r, i| at(if r + 1 < batch { &va } else { &vb }, r, i), "copy_rows");
    close(&a, shape, |r, i| at(&va, r, i), "the source of a duplicate");
    assert!(copy.copy_rows(b.view(), 0..batch + 1).is_err());

    assert!(a.is_finite().unwrap());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = va.clone();
        broken[batch * elements - 1] = bad;
        assert!(!make(&broken, elements).unwrap().is_finite().unwrap());
    }
    check_advance(make, batch, elements);
    assert!(matches!(make(&va[1..], elements), Err(Error::Invalid { .. })) || elements == 1);
}

/// Updates read everything before they write, and leave other rows alone.
fn check_advance<T: Tensor>(make: &dyn Fn(&[f32], usize) -> Result<T>, batch: usize, elements: usize) {
    let all: Vec<Vec<f32>> = (4..8).map(|seed| values(seed, batch, elements)).collect();
    let mut buffers: Vec<T> = all[..3].iter().map(|v| make(v, elements).unwrap()).collect();
    let at = |k: usize, row: usize, i: usize| f64::from(all[k][row * elements + i]);
    let update = |out, terms: &[(Operand, f64)]| Update { out, terms: terms.to_vec() };
    // 0 and 1 swap, scaled; 2 keeps the velocity.
    let updates = [
        update(0, &[(Operand::Buffer(1), 2.0), (Operand::Velocity, -0.5)]),
        update(1, &[(Operand::Buffer(0), 1.0), (Operand::Buffer(2), 0.25)]),
        update(2, &[(Operand::Velocity, 1.0)]),
    ];
    let mut velocity = make(&all[3], elements).unwrap();
    assert!(T::advance(&mut buffers, velocity.view(), 1..batch, &updates, None).unwrap());
    let row_of = |updated: &dyn Fn(usize, usize) -> f64, k: usize, r: usize, i: usize| {
        if r == 0 { at(k, r, i) } else { updated(r, i) }
    };
    close(
        &buffers[0],
        (batch, elements),
        |r, i| row_of(&|r, i| 2.0 * at(1, r, i) - 0.5 * at(3, r, i), 0, r, i),
        "advance 0",
    );
    close(
        &buffers[1],
        (batch, elements),
        |r, i| row_of(&|r, i| at(0, r, i) + 0.25 * at(2, r, i), 1, r, i),
        "advance 1",
    );
    close(&buffers[2], (batch, elements), |r, i| row_of(&|r, i| at(3, r, i), 2, r, i), "advance 2");
    // What was kept is a copy.
    velocity.copy_rows(make(&all[0], elements).unwrap().view(), 0..batch).unwrap();
    close(&buffers[2], (batch, elements), |r, i| row_of(&|r, i| at(3, r, i), 2, r, i), "a kept velocity");

    assert!(T::advance(&mut buffers, velocity.view(), 0..batch, &updates[2..], None).unwrap());
    close(&buffers[2], (batch, elements), |r, i| at(0, r, i), "a velocity that is all of the update");
    assert!(T::advance(&mut buffers, velocity.view(), 0..batch, &[], None).unwrap(), "no update");

    let mut broken = all[3].clone();
    broken[batch * elements - 1] = f32::NAN;
    let broken = make(&broken, elements).unwrap();
    for updates in [&updates[..], &updates[..1], &updates[2..], &[]] {
        let finite = T::advance(&mut buffers, broken.view(), 1..batch, updates, None).unwrap();
        assert!(!finite, "NaN in the rows read by {} updates", updates.len());
    }
    assert!(T::advance(&mut buffers, broken.view(), 0..1, &updates, None).unwrap(), "NaN in another row");
    assert!(T::advance(&mut buffers, velocity.view(), 0..batch + 1, &updates, None).is_err());
}

#[test]
fn host_memory() {
    for (batch, elements) in [(2, 1), (3, 5), (7, 600), (2, 1024)] {
        check::<Host<f32>>(&|v, elements| Host::from_f32(v, elements), batch, elements);
        check::<Host<f64>>(&|v, elements| Host::from_f32(v, elements), batch, elements);
    }
}

#[test]
fn host_memory_of_more_than_one_thread() {
    // Over 2^18 numbers, where the work is shared out.
    check::<Host<f32>>(&|v, elements| Host::from_f32(v, elements), 300, 1000);
}

#[cfg(feature = "torch")]
#[test]
fn libtorch() {
    use bespoke::tensor::Device;
    use bespoke::torch::TorchTensor;
    for (batch, elements) in [(2, 1), (3, 5), (7, 600), (2, 1024)] {
        check::<TorchTensor>(&|v, elements| TorchTensor::from_f32(v, elements, Device::Cpu), batch, elements);
    }
}

#[test]
fn what_is_no_batch_is_refused() {
    assert!(Host::<f32>::new(vec![1.0; 5], 2).is_err());
    assert!(Host::<f32>::new(Vec::new(), 0).is_err());
    assert!(Host::<f32>::new(Vec::new(), 3).is_ok());
    let message = Host::<f32>::new(vec![1.0; 5], 2).unwrap_err().to_string();
    assert!(message.contains('5') && message.contains("multiple of 2"), "{message}");
}

#[test]
fn every_bf16_is_widened_and_rounded_as_the_crate_half_does() {
    // In a mixed order, so that tiny and large numbers meet in a block; three more, so that the last is not a whole one.
    let bits = (0..=u16::MAX).map(|i| i.wrapping_mul(40503)).chain(0x3f80..0x3f83);
    let values: Vec<bf16> = bits.map(bf16::from_bits).collect();
    let x = Host::new(values.clone(), values.len()).unwrap();
    let check = |found: &Host<bf16>, coefficient: f32, what: &str| {
        for (x, found) in values.iter().zip(found.data()) {
            let expected = bf16::from_f32(coefficient * x.to_f32());
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(same, "{what}: {coefficient} * {x} is {found}, expected {expected}");
        }
    };
    // 1.5 makes ties.
    for coefficient in [1.0, 1.5, -0.3, 1e-3, 3e30] {
        let scaled = f64::from(coefficient);
        check(&Host::linear_combination(&[(PerRow::All(scaled), &x)]).unwrap(), coefficient, "linear_combination");
        let mut buffers = [x.clone(), x.zeros_like(1).unwrap(), x.zeros_like(1).unwrap()];
        let updates = [
            Update { out: 0, terms: vec![(Operand::Buffer(0), scaled)] },
            Update { out: 1, terms: vec![(Operand::Velocity, scaled)] },
            Update { out: 2, terms: vec![(Operand::Velocity, 1.0)] },
        ];
        let finite = Host::advance(&mut buffers, x.view(), 0..1, &updates, None).unwrap();
        assert!(!finite, "there are infinities and NaNs");
        check(&buffers[0], coefficient, "advance");
        check(&buffers[1], coefficient, "advance of the velocity");
        check(&buffers[2], 1.0, "a kept velocity");
    }
}

/// A null or a scale that became an infinity, or another number, would be answered without an error.
#[test]
fn a_type_refuses_numbers_that_it_does_not_hold() {
    use bespoke::tensor::Dtype;
    for (dtype, most, beyond) in [
        (Dtype::Float32, 3e38, 1e39),
        (Dtype::Float16, 65504.0, 1e5),
        (Dtype::Bfloat16, 3e38, 1e39),
        (Dtype::Int64, 9_007_199_254_740_991.0, 9_007_199_254_740_992.0),
        (Dtype::Int32, 2_147_483_647.0, 2_147_483_648.0),
        (Dtype::Bool, 1.0, 2.0),
    ] {
        assert!(dtype.encode(most).is_ok(), "{dtype} {most}");
        let error = dtype.encode(beyond).unwrap_err().to_string();
        assert!(error.contains(&format!("one that {dtype} holds")), "{error}");
    }
    assert_eq!(Dtype::Float32.encode(f64::NEG_INFINITY).unwrap(), f32::NEG_INFINITY.to_le_bytes());
}
