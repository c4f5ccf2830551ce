//! Names under which tensors and columns are found without being told.

/// Names under which features are found without being told, in order of preference.
pub(super) const FEATURE_NAMES: [&str; 7] =
    ["features", "feature", "penultimate", "embeddings", "embedding", "feats", "h"];

/// Names under which labels are found.
pub(super) const LABEL_NAMES: [&str; 6] = ["labels", "label", "targets", "target", "y", "class"];

/// Names under which ids of inputs are found, in order of preference; so is what ends in `_id`, `_uuid`, `_key`, `_path` or
/// `_name`, and last the index of a table: `index`, `idx`, `row`, or the nameless first column that pandas writes.
pub(super) const ID_NAMES: [&str; 16] = [
    "id",
    "ids",
    "uuid",
    "guid",
    "uid",
    "path",
    "filepath",
    "file",
    "filename",
    "name",
    "image_id",
    "sample_id",
    "user_id",
    "key",
    "image",
    "sample",
];

/// What tables call the numbers of their rows: ids where there are no others.
pub(super) const INDEX_NAMES: [&str; 8] =
    ["index", "idx", "row", "rowid", "", "unnamed: 0", "__index_level_0__", "level_0"];

/// Where tensor files keep the names of inputs: UTF-8, one a line.
pub(super) const IDS: &str = "ids";

/// Names under which scores are found.
pub const SCORE_NAMES: [&str; 4] = ["score", "scores", "ood_score", "confidence"];
