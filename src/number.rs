//! What formulas are written over: f64, or a dual number that carries an exact derivative along.

use num_dual::DualNum;

/// f64, or a dual number over it.
pub trait Number: DualNum<Primitive = f64> + Copy {}
impl<D: DualNum<Primitive = f64> + Copy> Number for D {}
