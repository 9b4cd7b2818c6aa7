//! Samplers that take a model's output in place of the velocity, and evaluations one at a time.

use bespoke::capi::*;
use bespoke::path::GaussianPath;
use bespoke::scheduler::Output;
use bespoke::theta::{Family, Knots, Theta};
use std::ffi::{CStr, CString};
use std::ptr::null_mut;

const OUTPUTS: [&str; 5] = ["velocity", "epsilon", "x1", "v", "flow"];

/// u_t(x) = cos(3 t) - (1 + t) x, element by element.
fn u(t: f64, x: f64) -> f64 {
    (3.0 * t).cos() - (1.0 + t) * x
}

static SHAPE: [i64; 2] = [2, 2];

fn tensor(data: &mut [f64; 4]) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: 2,
        dtype: DLDataType { code: 2, bits: 64, lanes: 1 },
        shape: SHAPE.as_ptr().cast_mut(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn message() -> String {
    unsafe { CStr::from_ptr(bespoke_last_error_message()) }.to_str().unwrap().to_owned()
}

fn check(status: bespoke_status) {
    assert_eq!(status, BESPOKE_OK, "{}", message());
}

fn parse(theta: &Theta) -> *mut bespoke_theta {
    let (text, mut out) = (CString::new(theta.to_json().unwrap()).unwrap(), null_mut());
    check(unsafe { bespoke_theta_parse(text.as_ptr(), &mut out) });
    out
}

fn named(name: &str, nfe: u32, scheduler: &str) -> *mut bespoke_theta {
    let (name, scheduler, mut out) = (CString::new(name).unwrap(), CString::new(scheduler).unwrap(), null_mut());
    check(unsafe { bespoke_theta_solver(name.as_ptr(), nfe, scheduler.as_ptr(), &mut out) });
    out
}

fn bent() -> Theta {
    let mut knots = Knots::<f64>::identity(6);
    knots.t[1] *= 0.8;
    knots.t_dot[2] *= 1.2;
    knots.s.iter_mut().skip(1).for_each(|s| *s *= 1.1);
    knots.s_dot[1] = 0.3;
    Theta::new(Family::Rk2(knots)).unwrap()
}

fn info(theta: *const bespoke_theta) -> bespoke_theta_properties {
    let mut info: bespoke_theta_properties = unsafe { std::mem::zeroed() };
    info.struct_size = size_of::<bespoke_theta_properties>() as u32;
    check(unsafe { bespoke_theta_info(theta, &mut info) });
    info
}

fn scalars(scheduler: &str, output: &str, t: f64) -> bespoke_velocity_scalars {
    let (scheduler, output) = (CString::new(scheduler).unwrap(), CString::new(output).unwrap());
    let mut out: bespoke_velocity_scalars = unsafe { std::mem::zeroed() };
    check(unsafe { bespoke_output_velocity(scheduler.as_ptr(), output.as_ptr(), 1, &t, &mut out) });
    out
}

/// Times of a theta's evaluations, and the states after each, the host giving what `give` makes of time,
/// state and velocity.
fn solve(theta: *const bespoke_theta, x0: [f64; 4], give: impl Fn(f64, f64) -> f64) -> Vec<[f64; 4]> {
    let (mut sampler, mut x, mut states) = (null_mut(), x0, Vec::new());
    check(unsafe { bespoke_sampler_new(theta, std::ptr::null(), &mut sampler) });
    for k in 0..info(theta).nfe {
        let t = time(theta, k);
        let mut given = x.map(|x| give(t, x));
        let mut next = [0.0; 4];
        let x_in = tensor(&mut x);
        let (given, mut out) = (tensor(&mut given), tensor(&mut next));
        check(unsafe { bespoke_sampler_advance(sampler, k, &x_in, &given, &mut out) });
        x = next;
        states.push(x);
    }
    unsafe { bespoke_sampler_free(sampler) };
    states
}

fn time(theta: *const bespoke_theta, k: u32) -> f64 {
    let mut stage: bespoke_stage = unsafe { std::mem::zeroed() };
    stage.struct_size = size_of::<bespoke_stage>() as u32;
    check(unsafe { bespoke_theta_stage(theta, k, &mut stage) });
    stage.t
}

#[test]
fn outputs_and_velocities_give_the_same_states() {
    let x0 = [0.3, -0.4, 1.1, -2.0];
    for scheduler in [r#"{"name": "cosine"}"#, r#"{"name": "vp", "end": 0.999}"#, r#"{"name": "fm-ot", "end": 0.9}"#] {
        let thetas = [parse(&bent()), named("dpm++2m", 6, scheduler), named("unipc", 7, scheduler)];
        for theta in thetas {
            let expected = solve(theta, x0, u);
            for output in OUTPUTS {
                let (name, path) = (CString::new(output).unwrap(), CString::new(scheduler).unwrap());
                let mut taking = null_mut();
                check(unsafe { bespoke_theta_for_output(theta, path.as_ptr(), name.as_ptr(), &mut taking) });
                // What a model would predict whose velocity is u, at the regular time and as if at this one.
                let found = solve(taking, x0, |t, x| {
                    let c = scalars(scheduler, output, t);
                    (u(t, x) - c.x * x) / c.output
                });
                // Where the time had to move, by 1e-4, so does the velocity.
                let regular =
                    (0..info(theta).nfe).all(|k| scalars(scheduler, output, time(theta, k)).t == time(theta, k));
                let tolerance = if regular { 1e-9 } else { 1e-3 };
                for (k, (a, b)) in expected.iter().zip(&found).enumerate() {
                    for (a, b) in a.iter().zip(b) {
                        assert!((a - b).abs() < tolerance, "{scheduler} {output} evaluation {k}: {a} {b}");
                    }
                }
                unsafe { bespoke_theta_free(taking) };
            }
            unsafe { bespoke_theta_free(theta) };
        }
    }
}

#[test]
fn scalars_are_those_of_the_path_and_their_derivatives_its_differences() {
    let scheduler = r#"{"name": "vp", "beta_max": 15, "end": 0.99}"#;
    let path: GaussianPath = scheduler.parse().unwrap();
    for name in OUTPUTS {
        let output: Output = name.parse().unwrap();
        for t in [0.2, 0.5, 0.9] {
            let at = scalars(scheduler, name, t);
            let (x, scale) = path.velocity_coefficients(output, t);
            assert!((at.x - x).abs() < 1e-12 && (at.output - scale).abs() < 1e-12);
            assert!((at.alpha.powi(2) + at.sigma.powi(2) - 1.0).abs() < 1e-12);
            let (after, before) = (scalars(scheduler, name, t + 1e-6), scalars(scheduler, name, t - 1e-6));
            let off = [(after.x - before.x) / 2e-6 - at.x_dot, (after.output - before.output) / 2e-6 - at.output_dot];
            assert!(
                off.iter().all(|off| off.abs() < 1e-6 * (1.0 + at.x_dot.abs() + at.output_dot.abs())),
                "{name} {off:?}"
            );
        }
    }
    assert_eq!(scalars("cosine", "epsilon", 0.0).t, 1e-4);
    let (scheduler, output, t) = (c"vp", c"noise", 0.5);
    let mut out: bespoke_velocity_scalars = unsafe { std::mem::zeroed() };
    let status = unsafe { bespoke_output_velocity(scheduler.as_ptr(), output.as_ptr(), 1, &t, &mut out) };
    assert_eq!((status, message().contains("\"noise\"")), (BESPOKE_ERROR_INVALID, true));
    let status = unsafe { bespoke_output_velocity(scheduler.as_ptr(), c"v".as_ptr(), 1, &1.5, &mut out) };
    assert_eq!((status, message().contains("1.5")), (BESPOKE_ERROR_INVALID, true));
}

#[test]
fn a_solve_may_begin_where_a_step_does_and_nowhere_else() {
    let theta = parse(&bent());
    let all = solve(theta, [0.3, -0.4, 1.1, -2.0], u);
    let mut sampler = null_mut();
    check(unsafe { bespoke_sampler_new(theta, std::ptr::null(), &mut sampler) });
    let advance = |k: u32, mut x: [f64; 4]| {
        let t = if k < 6 { time(theta, k) } else { 0.0 };
        let mut velocity = x.map(|x| u(t, x));
        let velocity = tensor(&mut velocity);
        // In place.
        let x_in = tensor(&mut x);
        let mut next = x_in;
        (unsafe { bespoke_sampler_advance(sampler, k, &x_in, &velocity, &mut next) }, x)
    };
    let (status, x) = advance(3, all[2]);
    assert_eq!((status, x), (BESPOKE_ERROR_STATE, all[2]));
    let (status, x) = advance(2, all[1]);
    assert_eq!((status, x), (BESPOKE_OK, all[2]));
    let (status, x) = advance(3, x);
    assert_eq!((status, x), (BESPOKE_OK, all[3]));
    assert_eq!(advance(6, x).0, BESPOKE_ERROR_INVALID);
    assert_eq!(advance(4, [f64::NAN; 4]).0, BESPOKE_ERROR_NON_FINITE);
    unsafe {
        bespoke_sampler_free(sampler);
        bespoke_theta_free(theta);
    }
}

#[test]
fn a_theta_is_parsed_from_its_own_document() {
    let theta = parse(&bent());
    let text = unsafe { CStr::from_ptr(info(theta).document) }.to_str().unwrap();
    assert_eq!(Theta::parse(text, "document").unwrap(), bent());
    let mut out = theta;
    let status = unsafe { bespoke_theta_parse(c"{\"format\": \"bespoke-theta\"}".as_ptr(), &mut out) };
    assert_eq!((status, out), (BESPOKE_ERROR_FORMAT, null_mut()));
    unsafe { bespoke_theta_free(theta) };
}
