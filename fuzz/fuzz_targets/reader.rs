//! Any bytes as a model: read and described, or refused.
//!
//!     cargo +nightly fuzz run -D -s none reader fuzz/corpus/reader fuzz/seeds -- -rss_limit_mb=1024 -max_len=65536
#![no_main]

use std::path::Path;

use dice_onnx::Model;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // External data, if it names any, would lie in a folder that does not exist.
    let Ok(model) = Model::from_bytes(bytes.to_vec(), Path::new("no-such-folder/model.onnx")) else { return };
    let _ = model.describe();
    let _ = (model.inputs(), model.outputs(), model.images(), model.metadata().count());
    let _ = model.fingerprint();
});
