//! What a package says of its inputs.
//!
//! A compiled network reads the memory that it is given as what it was compiled for, whatever it is: to call it with
//! anything else ends in wrong numbers or in the process's end. Its C interface does not tell; the source of its
//! wrapper, which PyTorch puts into every package, does, in the checks that it makes where a variable of the
//! environment asks for them. They are read here and made by this library.

use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// An input of a package.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Port {
    /// The type of its numbers; what it is, where it is none that this library has.
    pub dtype: Result<Dtype, String>,
    /// Of each dimension, where it is the same for every call.
    sizes: Vec<Option<i64>>,
    strides: Vec<Option<i64>>,
}

const DTYPES: [Dtype; 7] =
    [Dtype::Float64, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Int64, Dtype::Int32, Dtype::Bool];

/// The inputs of a wrapper, in order; none where it says nothing of them.
pub(super) fn of(wrapper: &str) -> Vec<Port> {
    (0..).map_while(|i| port(wrapper, i)).collect()
}

/// The input at `index`, where there is one.
fn port(wrapper: &str, index: usize) -> Option<Port> {
    let (_, check) = wrapper.split_once(&format!("static void check_input_{index}("))?;
    let end = check.find("static void check_input_").or_else(|| check.find("static bool ")).unwrap_or(check.len());
    let check = &check[..end];
    let (_, dtype) = check.split_once("= aoti_torch_dtype_")?;
    let (dtype, _) = dtype.split_once('(')?;
    let known = DTYPES.into_iter().find(|known| known.name() == dtype);
    let mut port =
        Port { dtype: known.ok_or_else(|| format!("a tensor of {dtype}")), sizes: Vec::new(), strides: Vec::new() };
    for line in check.lines() {
        if let Some(condition) = line.trim().strip_prefix("if (").and_then(|line| line.strip_suffix(") {")) {
            port.take(condition);
        }
    }
    Some(port)
}

impl Port {
    /// Takes what a wrapper refuses, as in `4 != x_size[1]` and `1 != x_stride[1]`.
    ///
    /// `x_size[0] < 2` and `x_size[0] > 15` say that there is a dimension, and no more: PyTorch supposes of every size
    /// that it is 2 at least, and where it chooses by a size, as it does of convolutions by batches of 16, that it stays
    /// on the side of the example. What it compiles is right on the other side, too: its loader holds no call to these,
    /// and exports are checked on both.
    fn take(&mut self, condition: &str) {
        let words: Vec<&str> = condition.split_whitespace().collect();
        let [a, comparison, b] = words.as_slice() else { return };
        match (*comparison, index(a, "_size["), index(b, "_size["), index(b, "_stride[")) {
            ("!=", _, Some(at), _) => *self.at(at).0 = a.parse().ok(),
            ("!=", _, _, Some(at)) => *self.at(at).1 = a.parse().ok(),
            ("<" | ">", Some(at), ..) => {
                self.at(at);
            }
            _ => {}
        }
    }

    /// Size and stride of the dimension `index`, which is there from then on.
    fn at(&mut self, index: usize) -> (&mut Option<i64>, &mut Option<i64>) {
        if index >= self.sizes.len() {
            self.sizes.resize(index + 1, None);
            self.strides.resize(index + 1, None);
        }
        (&mut self.sizes[index], &mut self.strides[index])
    }

    /// Its fixed sizes, and `None` for the others.
    pub fn shape(&self) -> Vec<Option<usize>> {
        self.sizes.iter().map(|size| size.and_then(|n| usize::try_from(n).ok())).collect()
    }

    /// Whether it takes dense tensors, row after row, and how not.
    pub fn layout_problem(&self) -> Option<String> {
        let mut dense = Some(1);
        for (at, (size, stride)) in self.sizes.iter().zip(&self.strides).enumerate().rev() {
            if let (Some(dense), Some(stride)) = (dense, *stride)
                && dense != stride
                && *size != Some(1)
            {
                let expected = format!("of stride {dense}, as in memory row after row");
                return Some(format!(
                    "is of stride {stride} in dimension {at} of the package, expected one {expected}"
                ));
            }
            dense = dense.zip(*size).and_then(|(dense, n): (i64, i64)| dense.checked_mul(n));
        }
        None
    }

    /// Checks a tensor of the right type, dense, that is given for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the size that it does not take.
    pub fn check(&self, name: &str, tensor: &tch::Tensor) -> Result<()> {
        let found = tensor.size();
        let agrees = |(size, own): (&i64, &Option<i64>)| own.is_none_or(|own| own == *size);
        if found.len() == self.sizes.len() && found.iter().zip(&self.sizes).all(agrees) {
            return Ok(());
        }
        let shown = |size: &Option<i64>| size.map_or_else(|| "any".into(), |n| n.to_string());
        let own: Vec<String> = self.sizes.iter().map(shown).collect();
        let expected = format!("[{}], as the package says", own.join(", "));
        Err(Error::invalid(format!("{name}.shape"), format!("{found:?}, with the batch first"), expected))
    }
}

/// The number in brackets that `text` ends in, after `name`.
fn index(text: &str, name: &str) -> Option<usize> {
    let (_, rest) = text.split_once(name)?;
    // Tensors of PyTorch have 64 dimensions at most.
    rest.strip_suffix(']')?.parse().ok().filter(|at| *at < 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRAPPER: &str = "
AOTI_NOINLINE static void check_input_0(
    AtenTensorHandle* input_handles
) {
    int32_t arg5_1_expected_dtype = aoti_torch_dtype_float32();
    if (arg5_1_expected_dtype != arg5_1_dtype) {
    }
    if (arg5_1_size[0] < 2) {
    }
    if (arg5_1_size[0] > 64) {
    }
    if (4 != arg5_1_size[1]) {
    }
    if (4 != arg5_1_stride[0]) {
    }
    if (1 != arg5_1_stride[1]) {
    }
}

AOTI_NOINLINE static void check_input_1(
    AtenTensorHandle* input_handles
) {
    int32_t arg6_1_expected_dtype = aoti_torch_dtype_float8_e5m2();
    if (1 != arg6_1_stride[0]) {
    }
}

static bool _check_aoti_runtime_check_inputs_env() {
    if (7 != arg6_1_size[0]) {
";

    #[test]
    fn a_wrapper_says_what_its_inputs_are() {
        let ports = of(WRAPPER);
        let x = Port { dtype: Ok(Dtype::Float32), sizes: vec![None, Some(4)], strides: vec![Some(4), Some(1)] };
        let odd = Port { dtype: Err("a tensor of float8_e5m2".into()), sizes: vec![None], strides: vec![Some(1)] };
        assert_eq!(ports, [x, odd]);
        assert_eq!(ports[0].shape(), [None, Some(4)]);
        assert_eq!(ports[0].layout_problem(), None);
        let options = (tch::Kind::Float, tch::Device::Cpu);
        for batch in [1, 65] {
            assert!(ports[0].check("x", &tch::Tensor::zeros([batch, 4], options)).is_ok());
        }
        for sizes in [&[2, 5][..], &[4], &[2, 4, 1]] {
            let error = ports[0].check("x", &tch::Tensor::zeros(sizes, options)).unwrap_err().to_string();
            assert!(error.contains("x.shape") && error.contains("[any, 4]"), "{error}");
        }
    }

    #[test]
    fn a_layout_other_than_row_after_row_is_named() {
        let wrapper = WRAPPER.replace("4 != arg5_1_stride[0]", "1 != arg5_1_stride[0]");
        let problem = of(&wrapper)[0].layout_problem().unwrap();
        assert!(problem.contains("stride 1 in dimension 0") && problem.contains("stride 4"), "{problem}");
    }

    #[test]
    fn a_wrapper_that_says_nothing_has_no_inputs() {
        for wrapper in ["", "static void check_input_0(", "static void check_input_0( = aoti_torch_dtype_float32"] {
            assert!(of(wrapper).is_empty(), "{wrapper}");
        }
    }
}
