//! What multistep solvers keep of their last evaluations: one register for each, used in turn.

use crate::tableau::{Combination, Keep, Operand};

/// As many registers as evaluations are read after their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    registers: usize,
}

impl History {
    /// Of the last `registers` evaluations.
    pub fn new(registers: usize) -> Self {
        Self { registers }
    }

    /// What evaluation `j`, before the present one, has left.
    pub fn before(&self, j: usize) -> Combination<f64> {
        Combination::of(Operand::Kept(j.checked_rem(self.registers).unwrap_or(0)))
    }

    /// Keeps `what` of evaluation `i`, in place of what no later one reads.
    pub fn keep(&self, i: usize, what: Combination<f64>) -> Keep<f64> {
        match i.checked_rem(self.registers) {
            None => Keep::Nothing,
            Some(slot) if what == Combination::of(Operand::Velocity) => Keep::Velocity(slot),
            Some(slot) => Keep::Combination(slot, what),
        }
    }
}
