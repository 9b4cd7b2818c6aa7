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
    pub sizes: Vec<Range>,
    /// Where it is the same for every call.
    strides: Vec<Option<i64>>,
}

/// From the least to the greatest size that a dimension may have, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range(i64, i64);

impl Range {
    const ANY: Range = Range(0, i64::MAX);

    /// The size, where there is one alone.
    pub fn fixed(self) -> Option<usize> {
        (self.0 == self.1).then(|| usize::try_from(self.0).ok()).flatten()
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Range(least, most) if least == most => write!(f, "{least}"),
            Range(least, i64::MAX) => write!(f, "at least {least}"),
            Range(least, most) => write!(f, "{least} to {most}"),
        }
    }
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
    /// Takes what a wrapper refuses, as in `4 != x_size[1]`, `x_size[0] < 2` and `1 != x_stride[1]`.
    fn take(&mut self, condition: &str) {
        let words: Vec<&str> = condition.split_whitespace().collect();
        let [a, comparison, b] = words.as_slice() else { return };
        match *comparison {
            "!=" => {
                let Ok(number) = a.parse() else { return };
                if let Some(at) = index(b, "_size[") {
                    *self.size(at) = Range(number, number);
                } else if let Some(at) = index(b, "_stride[") {
                    self.size(at);
                    self.strides[at] = Some(number);
                }
            }
            // That a size is 2 or more is what PyTorch supposes of every size that is not fixed; what it compiles is
            // right for 1 too, as the check of an export and the tests hold.
            "<" => {
                let (Some(at), Ok(least)) = (index(a, "_size["), b.parse()) else { return };
                self.size(at).0 = if least <= 2 { 0 } else { least };
            }
            ">" => {
                let (Some(at), Ok(most)) = (index(a, "_size["), b.parse()) else { return };
                self.size(at).1 = most;
            }
            _ => {}
        }
    }

    /// The size at `index`, which is there from then on.
    fn size(&mut self, index: usize) -> &mut Range {
        if index >= self.sizes.len() {
            self.sizes.resize(index + 1, Range::ANY);
            self.strides.resize(index + 1, None);
        }
        &mut self.sizes[index]
    }

    /// Its fixed sizes, and `None` for the others.
    pub fn shape(&self) -> Vec<Option<usize>> {
        self.sizes.iter().map(|range| range.fixed()).collect()
    }

    /// Whether it takes dense tensors, row after row, and how not.
    pub fn layout_problem(&self) -> Option<String> {
        let mut dense = Some(1);
        for (at, (size, stride)) in self.sizes.iter().zip(&self.strides).enumerate().rev() {
            if let (Some(dense), Some(stride)) = (dense, *stride)
                && dense != stride
                && size.fixed() != Some(1)
            {
                let expected = format!("of stride {dense}, as in memory row after row");
                return Some(format!(
                    "is of stride {stride} in dimension {at} of the package, expected one {expected}"
                ));
            }
            dense = dense.zip(size.fixed()).and_then(|(dense, n)| dense.checked_mul(i64::try_from(n).ok()?));
        }
        None
    }

    /// Checks a tensor of the right type, dense, that is given for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the size that it does not take.
    pub fn check(&self, name: &str, tensor: &tch::Tensor) -> Result<()> {
        let found = tensor.size();
        let wrong = |expected: String| {
            Err(Error::invalid(format!("{name}.shape"), format!("{found:?}, with the batch first"), expected))
        };
        if found.len() != self.sizes.len() {
            return wrong(format!("{} dimensions, as the package says", self.sizes.len()));
        }
        for (at, (size, range)) in found.iter().zip(&self.sizes).enumerate() {
            if !(range.0..=range.1).contains(size) {
                return wrong(format!("{range} in dimension {at}, as the package says"));
            }
        }
        Ok(())
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
        let x =
            Port { dtype: Ok(Dtype::Float32), sizes: vec![Range(0, 64), Range(4, 4)], strides: vec![Some(4), Some(1)] };
        let odd =
            Port { dtype: Err("a tensor of float8_e5m2".into()), sizes: vec![Range::ANY], strides: vec![Some(1)] };
        assert_eq!(ports, [x, odd]);
        assert_eq!(ports[0].shape(), [None, Some(4)]);
        assert_eq!(ports[0].layout_problem(), None);
        let options = (tch::Kind::Float, tch::Device::Cpu);
        assert!(ports[0].check("x", &tch::Tensor::zeros([1, 4], options)).is_ok());
        for (sizes, said) in
            [(&[65, 4][..], "0 to 64 in dimension 0"), (&[2, 5], "4 in dimension 1"), (&[2], "2 dimensions")]
        {
            let error = ports[0].check("x", &tch::Tensor::zeros(sizes, options)).unwrap_err().to_string();
            assert!(error.contains("x.shape") && error.contains(said), "{error}");
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
