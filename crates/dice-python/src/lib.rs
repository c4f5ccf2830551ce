//! The engine of the Python package `dice_ood`, which imports this as `dice_ood._native`.
//!
//! Everything that computes is here, detached from the interpreter; what data can be given as, and the habits of scikit-learn, are in
//! the Python files beside. Every class is frozen, so that threads share it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod chances;
mod choosing;
mod data;
mod error;
mod evaluating;
mod fitted;
mod fitting;
mod head;
mod running;
mod statistics;

/// The engine behind `import dice_ood`.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::chances::{benjamini_hochberg, methods, parse};
    #[pymodule_export]
    use crate::choosing::{diagnose, tune};
    #[pymodule_export]
    use crate::evaluating::{evaluate, evaluate_scores};
    #[pymodule_export]
    use crate::fitted::Fitted;
    #[pymodule_export]
    use crate::fitting::{fit, fit_statistics};
    #[pymodule_export]
    use crate::head::Head;
    #[pymodule_export]
    use crate::statistics::Statistics;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python looks for")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
