//! Classifiers that others trained, run: features and head are the model's own logits, in either runtime.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::PathBuf;

use dice_onnx::{Backbone, Element, FeatureLayout, FoundHead, HeadOptions, Model, PixelLayout, Runtime};
use dice_ood::LinearHead;

fn open(name: &str) -> Option<(Model, FoundHead)> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    let model = Model::open(&path).unwrap();
    let found = model.find_head(&HeadOptions::default()).unwrap();
    Some((model, found))
}

/// The ONNX Runtime that `DICE_ONNXRUNTIME` names.
fn onnxruntime() -> Option<Runtime> {
    let path = std::env::var_os("DICE_ONNXRUNTIME");
    if path.is_none() {
        println!("skipped: DICE_ONNXRUNTIME names no ONNX Runtime");
    }
    Some(Runtime::onnx_runtime(path?))
}

/// Two made-up images `[2, C, H, W]` with their size, of normalised pixels or of levels.
fn images(backbone: &Backbone) -> (Vec<f32>, [usize; 2]) {
    let input = backbone.input().unwrap();
    let [height, width] = [input.size[0].unwrap_or(1), input.size[1].unwrap_or(1)];
    let each = input.flat.unwrap_or(input.channels.unwrap_or(3) * height * width);
    assert!(matches!(input.layout, PixelLayout::Nchw | PixelLayout::Nhwc));
    let (scale, shift) = if input.element == Element::Uint8 { (1.0, 0.0) } else { (1.0 / 255.0, 0.5) };
    let level = |i: usize| ((i * 7919) % 255) as f32 * scale - if i < each { shift } else { 0.0 };
    ((0..2 * each).map(level).collect(), [height, width])
}

/// The logits as features of a head that changes nothing.
fn up_to_logits(found: &FoundHead) -> FoundHead {
    let classes = found.classes();
    let mut logits = found.clone();
    logits.features = found.logits.clone();
    if !matches!(found.layout, FeatureLayout::Channels { .. }) {
        logits.layout = FeatureLayout::Rows;
    }
    logits.quantization = None;
    let identity = (0..classes * classes).map(|i| if i % (classes + 1) == 0 { 1.0 } else { 0.0 }).collect();
    logits.head = LinearHead::from_rows(identity, vec![0.0; classes], classes).unwrap();
    logits
}

/// Runs two images through the model up to its features and up to its logits. `tolerance` is relative to the largest
/// logit: that of the sums, or half the step of the model's own rounding.
fn check(name: &str, runtime: &Runtime, tolerance: f32) {
    let Some((model, found)) = open(name) else { return };
    let backbone = Backbone::new(&model, &found, runtime).unwrap();
    let to_logits = Backbone::new(&model, &up_to_logits(&found), runtime).unwrap();
    let (pixels, size) = images(&backbone);
    let features = backbone.run(pixels.clone(), 2, size).unwrap();
    let expected = to_logits.run(pixels, 2, size).unwrap();
    let largest = expected.iter().fold(1.0f32, |largest, logit| largest.max(logit.abs()));
    let mut furthest = 0.0f32;
    for (features, expected) in features.chunks(found.units()).zip(expected.chunks(found.classes())) {
        for (class, expected) in expected.iter().enumerate() {
            let weights = found.head.weight().row(class).to_vec();
            let logit = weights.iter().zip(features).map(|(w, h)| w * h).sum::<f32>() + found.head.bias()[class];
            furthest = furthest.max((logit - expected).abs() / largest);
        }
    }
    println!("{name}, {}: {furthest:e} of the largest logit", runtime.name());
    assert!(furthest <= tolerance, "{name}, {}: {furthest} of the largest logit", runtime.name());
}

/// Models that compute in f32.
const FLOATS: [&str; 8] = [
    "cifar10-densenet101.onnx",
    "onnc_resnet20.onnx",
    "vit_cifar10_pgd_2_3_16.onnx",
    "onnxzoo_mnist-8.onnx",
    "tribuo_pytorch_cnn_mnist.onnx",
    "onnx2c_mnist_pytorch.onnx",
    "conv_st_mobilenet_v1_0.25_224.onnx",
    "edge/rten_mnist_external/mnist.onnx",
];

#[test]
fn features_and_head_are_the_logits() {
    for name in FLOATS {
        check(name, &Runtime::BuiltIn, 1e-5);
    }
    check("onnxzoo_mobilenetv2-12-qdq.onnx", &Runtime::BuiltIn, 0.02);
    check("diablo_mobilenetv2_quant.onnx", &Runtime::BuiltIn, 0.05);
}

#[test]
fn features_and_head_are_the_logits_in_onnx_runtime() {
    let Some(runtime) = onnxruntime() else { return };
    for name in FLOATS {
        check(name, &runtime, 1e-5);
    }
    check("onnxzoo_mobilenetv2-12-qdq.onnx", &runtime, 0.02);
    check("diablo_mobilenetv2_quant.onnx", &runtime, 0.05);
    // Sixteen bits, which the built-in runtime does not take.
    check("winml_squeezenet_fp16.onnx", &runtime, 2e-3);
}

#[test]
fn features_do_not_depend_on_the_images_beside_them() {
    for runtime in [Some(Runtime::BuiltIn), onnxruntime()].into_iter().flatten() {
        for name in ["onnc_resnet20.onnx", "vit_cifar10_pgd_2_3_16.onnx", "diablo_mobilenetv2_quant.onnx"] {
            let Some((model, found)) = open(name) else { continue };
            let backbone = Backbone::new(&model, &found, &runtime).unwrap();
            let (pixels, size) = images(&backbone);
            let alone = |place: usize| {
                let each = pixels.len() / 2;
                backbone.run(pixels[place * each..(place + 1) * each].to_vec(), 1, size).unwrap()
            };
            let apart = [alone(0), alone(1)].concat();
            let largest = apart.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (together, apart) in backbone.run(pixels.clone(), 2, size).unwrap().iter().zip(&apart) {
                assert!((together - apart).abs() <= 1e-5 * largest, "{name}, {runtime}: {together} for {apart}");
            }
        }
    }
}

#[test]
fn both_runtimes_make_the_same_features() {
    let Some(runtime) = onnxruntime() else { return };
    let quantised = [("onnxzoo_mobilenetv2-12-qdq.onnx", 0.2), ("diablo_mobilenetv2_quant.onnx", 0.2)];
    for (name, tolerance) in FLOATS.map(|name| (name, 1e-4)).into_iter().chain(quantised) {
        let Some((model, found)) = open(name) else { continue };
        let [ours, theirs] = [&Runtime::BuiltIn, &runtime].map(|runtime| {
            let backbone = Backbone::new(&model, &found, runtime).unwrap();
            let (pixels, size) = images(&backbone);
            backbone.run(pixels, 2, size).unwrap()
        });
        let largest = theirs.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let furthest = ours.iter().zip(&theirs).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest;
        println!("{name}: {furthest:e} of the largest feature");
        assert!(ours.len() == theirs.len() && furthest <= tolerance, "{name}: {furthest} of the largest feature");
    }
}

#[test]
fn sixteen_bits_are_for_onnx_runtime() {
    let Some((model, found)) = open("winml_squeezenet_fp16.onnx") else { return };
    let error = Backbone::new(&model, &found, &Runtime::BuiltIn).err().unwrap().to_string();
    assert!(error.contains("float16") && error.contains("ONNX Runtime"), "{error}");
}
