//! Real data for tests: the paper's CIFAR-10 DenseNet-101, in a folder beside the checkout or named by `DICE_DATA`.

use std::path::PathBuf;

/// The folder `name` of the real data, or `None` with a printed reason.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let folder = std::env::var_os("DICE_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no `{name}` in the data folder; name one with DICE_DATA");
    None
}
