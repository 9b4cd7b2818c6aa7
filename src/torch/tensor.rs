//! Samples in a libtorch tensor, on any device.

use crate::error::{Error, Result};
use crate::inputs::Column;
use crate::tensor::{Crew, Device, Dtype, Operand, PerRow, Register, Tensor, Update, check_length};
use std::ops::Range;
use tch::Kind;

/// A batch as a float32 tensor `[batch, elements]`. One thread at a time.
#[derive(Debug)]
pub struct TorchTensor(tch::Tensor);

fn size(n: usize) -> i64 {
    // A tensor of more than i64::MAX numbers cannot have been made.
    n as i64
}

impl TorchTensor {
    /// Wraps a float tensor of any shape with the batch first, as `[batch, elements]`.
    pub(crate) fn new(tensor: tch::Tensor) -> Result<Self> {
        let batch = *tensor.size().first().ok_or_else(|| Error::Torch("a tensor without a batch dimension".into()))?;
        let elements = if batch == 0 { -1 } else { tensor.numel() as i64 / batch };
        Ok(Self(tensor.f_reshape([batch, elements])?))
    }

    /// `values` as samples of `elements` numbers each, on `device`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `values` is no whole number of samples; [`Error::Unsupported`] where
    /// the device cannot be had.
    pub fn from_f32(values: &[f32], elements: usize, device: Device) -> Result<Self> {
        Self::upload(values, elements, super::device::prepare(device)?)
    }

    pub(crate) fn upload(values: &[f32], elements: usize, device: tch::Device) -> Result<Self> {
        check_length(values.len(), elements)?;
        let shape = [size(values.len() / elements), size(elements)];
        Ok(Self(tch::Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device)?))
    }

    pub(crate) fn inner(&self) -> &tch::Tensor {
        &self.0
    }

    fn zeros(&self, batch: usize, elements: usize) -> Result<Self> {
        Ok(Self(tch::Tensor::f_zeros([size(batch), size(elements)], (self.0.kind(), self.0.device()))?))
    }

    fn rows(&self, rows: &Range<usize>) -> Result<tch::Tensor> {
        Ok(self.0.f_narrow(0, size(rows.start), size(rows.len()))?)
    }
}

/// libtorch's word for a type.
pub(crate) fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Float64 => Kind::Double,
        Dtype::Float32 => Kind::Float,
        Dtype::Float16 => Kind::Half,
        Dtype::Bfloat16 => Kind::BFloat16,
        Dtype::Int64 => Kind::Int64,
        Dtype::Int32 => Kind::Int,
        Dtype::Bool => Kind::Bool,
    }
}

/// An input as a tensor `[batch, shape...]` of its own dtype.
pub(crate) fn column(input: &Column, device: tch::Device) -> Result<tch::Tensor> {
    let sizes: Vec<i64> = [input.batch()].iter().chain(input.shape()).map(|n| size(*n)).collect();
    Ok(tch::Tensor::f_from_data_size(input.bytes(), &sizes, kind_of(input.dtype()))?.f_to_device(device)?)
}

/// A coefficient as something a tensor can be multiplied by.
fn coefficients(values: &[f64], like: &tch::Tensor) -> Result<tch::Tensor> {
    let narrow: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Ok(tch::Tensor::f_from_slice(&narrow)?.f_to_device(like.device())?.f_reshape([-1, 1])?)
}

fn scaled(coefficient: PerRow<'_>, tensor: &tch::Tensor) -> Result<tch::Tensor> {
    Ok(match coefficient {
        PerRow::All(1.0) => tensor.shallow_clone(),
        PerRow::All(value) => tensor.f_mul_scalar(value)?,
        PerRow::Each(values) => tensor.f_mul(&coefficients(values, tensor)?)?,
    })
}

/// `sum_j c_j x_j`, newly allocated.
fn sum(terms: &[(PerRow<'_>, tch::Tensor)]) -> Result<tch::Tensor> {
    let mut terms = terms.iter();
    let Some((coefficient, tensor)) = terms.next() else {
        return Err(Error::State("a linear combination of nothing".into()));
    };
    // `+ 0`-free copy: a lone term of coefficient 1 must not alias its source.
    let mut out = match coefficient {
        PerRow::All(1.0) => tensor.f_detach_copy()?,
        other => scaled(*other, tensor)?,
    };
    for (coefficient, tensor) in terms {
        out = out.f_add(&scaled(*coefficient, tensor)?)?;
    }
    Ok(out)
}

impl Register for TorchTensor {
    type View<'a> = &'a TorchTensor;

    fn view(&self) -> &TorchTensor {
        self
    }

    fn batch(&self) -> usize {
        self.0.size()[0] as usize
    }

    fn elements(&self) -> usize {
        self.0.size()[1] as usize
    }

    fn beside(&self, _place: usize, batch: usize, elements: usize) -> Result<Self> {
        self.zeros(batch, elements)
    }

    fn resize(&mut self, batch: usize) -> Result<()> {
        let _guard = tch::no_grad_guard();
        *self = match batch.checked_sub(self.batch()) {
            None => self.narrow(0..batch)?,
            Some(more) => Self::concatenate(&[self, &self.zeros(more, self.elements())?])?,
        };
        Ok(())
    }

    fn advance(
        buffers: &mut [Self],
        velocity: &Self,
        rows: Range<usize>,
        updates: &[Update],
        _crew: Option<&mut Crew>,
    ) -> Result<bool> {
        let _guard = tch::no_grad_guard();
        let u = velocity.rows(&rows)?;
        let value = |update: &Update| {
            let read = |(operand, c): &(Operand, f64)| {
                let tensor = match operand {
                    Operand::Velocity => u.shallow_clone(),
                    Operand::Buffer(i) => buffers[*i].rows(&rows)?,
                };
                Ok((PerRow::All(*c), tensor))
            };
            sum(&update.terms.iter().map(read).collect::<Result<Vec<_>>>()?)
        };
        let values = updates.iter().map(value).collect::<Result<Vec<_>>>()?;
        for (update, value) in updates.iter().zip(values) {
            buffers[update.out].rows(&rows)?.f_copy_(&value)?;
        }
        // On a GPU the answer would stall the queue: the caller checks the end of the solve.
        if u.device() != tch::Device::Cpu {
            return Ok(true);
        }
        Ok(u.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
    }

    fn finite_row(&self, batch: &Self, row: usize) -> Result<bool> {
        batch.narrow(row..row + 1)?.is_finite()
    }

    fn copy_rows(&mut self, source: &Self, rows: Range<usize>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.rows(&rows)?.f_copy_(&source.rows(&rows)?)?;
        Ok(())
    }

    fn move_row(&mut self, from: usize, to: usize) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.rows(&(to..to + 1))?.f_copy_(&self.rows(&(from..from + 1))?)?;
        Ok(())
    }
}

impl Tensor for TorchTensor {
    fn zeros_like(&self, batch: usize) -> Result<Self> {
        self.zeros(batch, self.elements())
    }

    fn linear_combination(terms: &[(PerRow<'_>, &Self)]) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let terms: Vec<_> = terms.iter().map(|(c, tensor)| (*c, tensor.0.shallow_clone())).collect();
        Ok(Self(sum(&terms)?))
    }

    fn dot(&self, other: &Self) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let product = self.0.f_mul(&other.0)?;
        Ok(Self(product.f_sum_dim_intlist(&[1i64][..], true, None)?))
    }

    fn fetch(columns: &[&Self]) -> Result<Vec<Vec<f64>>> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let parts: Vec<&tch::Tensor> = columns.iter().map(|column| &column.0).collect();
        let joined = tch::Tensor::f_cat(&parts, 0)?.f_flatten(0, 1)?;
        let values = Vec::<f64>::try_from(joined.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?)?;
        let mut rest = values.as_slice();
        Ok(columns
            .iter()
            .map(|column| {
                let (own, others) = rest.split_at(column.0.numel());
                rest = others;
                own.to_vec()
            })
            .collect())
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        let flat = self.0.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_flatten(0, 1)?;
        Ok(Vec::<f32>::try_from(flat.f_to_kind(Kind::Float)?)?)
    }

    fn error_ratio(error: &Self, a: &Self, b: &Self, rtol: f64, atol: f64) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let scale = a.0.f_abs()?.f_maximum(&b.0.f_abs()?)?.f_mul_scalar(rtol)?.f_add_scalar(atol)?;
        let ratio = error.0.f_div(&scale)?;
        let mean = ratio.f_mul(&ratio)?.f_mean_dim(&[1i64][..], true, None)?;
        let mut columns = Self::fetch(&[&Self(mean.f_sqrt()?)])?;
        Ok(columns.swap_remove(0))
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let rows: Vec<i64> = rows.iter().map(|row| size(*row)).collect();
        let index = tch::Tensor::f_from_slice(&rows)?.f_to_device(self.0.device())?;
        Ok(Self(self.0.f_index_select(0, &index)?))
    }

    fn concatenate(parts: &[&Self]) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let parts: Vec<&tch::Tensor> = parts.iter().map(|part| &part.0).collect();
        Ok(Self(tch::Tensor::f_cat(&parts, 0)?))
    }

    fn narrow(&self, rows: Range<usize>) -> Result<Self> {
        Ok(Self(self.rows(&rows)?))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.0.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
    }
}
