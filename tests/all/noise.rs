//! Noise depends on seed, purpose and index alone.

use bespoke::noise::{Purpose, normal};

#[test]
fn a_sample_is_the_same_in_any_batch() {
    let whole = normal(7, Purpose::Sample, 0..10, 6).unwrap();
    let parts = [normal(7, Purpose::Sample, 0..3, 6).unwrap(), normal(7, Purpose::Sample, 3..10, 6).unwrap()].concat();
    assert_eq!(whole, parts);
    // Fewer numbers a sample are a prefix: the stream belongs to the index.
    assert_eq!(normal(7, Purpose::Sample, 4..5, 2).unwrap(), whole[24..26]);
}

#[test]
fn seed_purpose_and_index_each_change_it() {
    let reference = normal(7, Purpose::Sample, 0..1, 8).unwrap();
    assert_ne!(reference, normal(8, Purpose::Sample, 0..1, 8).unwrap());
    assert_ne!(reference, normal(7, Purpose::Train, 0..1, 8).unwrap());
    assert_ne!(reference, normal(7, Purpose::Validation, 0..1, 8).unwrap());
    assert_ne!(reference, normal(7, Purpose::Sample, 1..2, 8).unwrap());
}

#[test]
fn it_is_standard_normal_and_its_samples_are_uncorrelated() {
    let (samples, elements) = (20_000, 4);
    let values = normal(1, Purpose::Train, 0..samples, elements).unwrap();
    let n = values.len() as f64;
    let moment = |p: i32| values.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n;
    // Five standard errors of each moment.
    assert!(moment(1).abs() < 5.0 / n.sqrt(), "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {}", moment(2));
    assert!(moment(3).abs() < 5.0 * (15.0 / n).sqrt(), "third moment {}", moment(3));
    assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "fourth moment {}", moment(4));
    let neighbours = values.windows(elements + 1).map(|w| f64::from(w[0]) * f64::from(w[elements])).sum::<f64>() / n;
    assert!(neighbours.abs() < 5.0 / n.sqrt(), "correlation of neighbouring samples {neighbours}");
}
