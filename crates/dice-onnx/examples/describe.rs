//! Describes models: `cargo run -p dice-onnx --example describe MODEL.onnx...`; with `DUMP=FOLDER` heads are written there as raw f32.

use std::io::Write;
use std::path::Path;

use dice_onnx::{HeadOptions, Model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dump = std::env::var_os("DUMP");
    for path in std::env::args().skip(1) {
        let model = match Model::open(&path) {
            Ok(model) => model,
            Err(error) => {
                println!("{error}\n");
                continue;
            }
        };
        println!("{path}\n{}", model.describe());
        println!("SHA-256   {}\n", model.fingerprint().unwrap_or_else(|error| error.to_string()));
        let (Some(folder), Ok(found)) = (&dump, model.find_head(&HeadOptions::default())) else { continue };
        let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
        let file = Path::new(folder).join(format!("{name}.head"));
        let mut file = std::fs::File::create(file)?;
        writeln!(
            file,
            "{}\t{}\t{}\t{}\t{:?}",
            found.classes(),
            found.units(),
            found.features,
            found.logits,
            found.layout
        )?;
        for value in found.head.weight().iter().chain(found.head.bias()) {
            file.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}
