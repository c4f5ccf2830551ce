//! What is asked of a file of features.

/// Which columns of tables (CSV, Parquet, Arrow IPC) hold what, where the user says so. Tensor files have no columns, and
/// take no notice of this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The features: one column of lists, or one a unit; names, or patterns such as `f*`. Found by names and types where
    /// empty.
    pub features: Vec<String>,
    /// The names of the inputs.
    pub id: Option<String>,
    /// The class labels.
    pub label: Option<String>,
    /// Columns with none of these roles: names or patterns. A table need not have them.
    pub drop: Vec<String>,
}

/// What a table is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) columns: &'a Columns,
    /// The `name` of `FILE#name`.
    pub(crate) name: Option<&'a str>,
    /// Names of the units in the order they are wanted in; empty where they are not known.
    pub(crate) units: &'a [String],
    /// How many units there have to be, where that is known.
    pub(crate) width: Option<usize>,
    pub(crate) labels: bool,
    pub(crate) ids: bool,
}
