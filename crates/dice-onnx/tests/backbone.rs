//! Classifiers that others trained, run: features and head are the model's own logits.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::PathBuf;

use dice_onnx::{Backbone, HeadOptions, Layout, Model, PixelLayout};
use dice_ood::LinearHead;

/// Runs two made-up images through the model up to its features and up to its logits. `tolerance` is relative to the
/// largest logit: that of f32 sums, or half the step of the model's own rounding.
fn check(name: &str, tolerance: f32) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return;
    }
    let model = Model::open(&path).unwrap();
    let found = model.find_head(&HeadOptions::default()).unwrap();
    let backbone = Backbone::new(&model, &found).unwrap();
    // The logits are features of a head that changes nothing.
    let classes = found.classes();
    let mut up_to_logits = found.clone();
    up_to_logits.features = found.logits.clone();
    up_to_logits.layout = Layout::Rows;
    up_to_logits.quantization = None;
    let identity = (0..classes * classes).map(|i| if i % (classes + 1) == 0 { 1.0 } else { 0.0 }).collect();
    up_to_logits.head = LinearHead::from_rows(identity, vec![0.0; classes], classes).unwrap();
    let to_logits = Backbone::new(&model, &up_to_logits).unwrap();

    let input = backbone.input();
    let [height, width] = [input.size[0].unwrap_or(1), input.size[1].unwrap_or(1)];
    let each = input.flat.unwrap_or(input.channels.unwrap_or(3) * height * width);
    assert!(matches!(input.layout, PixelLayout::Nchw | PixelLayout::Nhwc));
    let pixels: Vec<f32> =
        (0..2 * each).map(|i| ((i * 7919) % 255) as f32 / 255.0 - if i < each { 0.5 } else { 0.0 }).collect();
    let features = backbone.run(pixels.clone(), 2, [height, width]).unwrap();
    let expected = to_logits.run(pixels, 2, [height, width]).unwrap();
    let size = expected.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
    for (features, expected) in features.chunks(found.units()).zip(expected.chunks(classes)) {
        for (class, expected) in expected.iter().enumerate() {
            let weights = found.head.weight().row(class).to_vec();
            let logit = weights.iter().zip(features).map(|(w, h)| w * h).sum::<f32>() + found.head.bias()[class];
            assert!(
                (logit - expected).abs() <= tolerance * size.max(1.0),
                "{name}, class {class}: {logit} for {expected}"
            );
        }
    }
}

#[test]
fn features_and_head_are_the_logits_of_floating_point_models() {
    for name in [
        "cifar10-densenet101.onnx",
        "onnc_resnet20.onnx",
        "vit_cifar10_pgd_2_3_16.onnx",
        "onnxzoo_mnist-8.onnx",
        "tribuo_pytorch_cnn_mnist.onnx",
        "onnx2c_mnist_pytorch.onnx",
        "conv_st_mobilenet_v1_0.25_224.onnx",
        "edge/rten_mnist_external/mnist.onnx",
    ] {
        check(name, 1e-5);
    }
}

#[test]
fn features_and_head_are_the_logits_of_a_quantised_model_up_to_its_rounding() {
    // Not of diablo_mobilenetv2_quant.onnx: this runtime's own MatMulInteger differs there from ONNX Runtime's by far more
    // than rounding (2.2 for -1.9), so that its logits are no reference. Features do not pass through it.
    check("onnxzoo_mobilenetv2-12-qdq.onnx", 0.02);
}
