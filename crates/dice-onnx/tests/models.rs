//! Classifiers that others trained and exported: the head of each, or the reason why there is none.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::PathBuf;

use dice_onnx::{FeatureLayout, FoundHead, HeadOptions, Model, Nonnegative};
use dice_ood::ErrorKind;

/// The file, where the data is at hand.
fn file(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

fn find(name: &str) -> Option<dice_ood::Result<FoundHead>> {
    Some(Model::open(file(name)?).and_then(|model| model.find_head(&HeadOptions::default())))
}

/// C, D, features, logits, sign (`+` never negative, `-` can be negative).
fn check(name: &str, shape: (usize, usize), features: &str, logits: &str, sign: char) {
    let Some(found) = find(name) else { return };
    let found = found.unwrap();
    assert_eq!((found.classes(), found.units()), shape, "{found}");
    assert_eq!((found.features.as_str(), found.logits.as_str()), (features, logits), "{found}");
    let found_sign = match found.nonnegative {
        Nonnegative::Yes(_) => '+',
        Nonnegative::No(_) => '-',
        Nonnegative::Unknown(_) => '?',
    };
    assert_eq!(found_sign, sign, "{found}");
    let expected =
        if name.contains("squeezenet") { FeatureLayout::Channels { exact: false } } else { FeatureLayout::Rows };
    assert_eq!(found.layout, expected);
}

#[test]
fn floating_point_models() {
    check("cifar10-densenet101.onnx", (10, 342), "/Reshape_output_0", "logits", '+');
    check("onnc_resnet20.onnx", (10, 64), "207", "208", '+');
    check("vit_cifar10_pgd_2_3_16.onnx", (10, 48), "/2/2.1/BatchNormalization_output_0", "output", '-');
    check("onnxzoo_mnist-8.onnx", (10, 256), "Pooling160_Output_0_reshape0", "Plus214_Output_0", '+');
    check("tribuo_pytorch_cnn_mnist.onnx", (10, 50), "18", "19", '+');
    check("onnx2c_mnist_pytorch.onnx", (10, 64), "19", "network_output", '-');
}

#[test]
fn a_head_as_a_convolution() {
    check(
        "conv_st_mobilenet_v1_0.25_224.onnx",
        (1000, 256),
        "mobilenet_0.25_224/conv_preds/BiasAdd__319:0",
        "mobilenet_0.25_224/conv_preds/BiasAdd:0",
        '+',
    );
    check("winml_squeezenet_fp16.onnx", (1000, 512), "fire9/concat_2", "conv10_1", '+');
}

#[test]
fn quantised_models() {
    check("onnxzoo_mobilenetv2-12-qdq.onnx", (1000, 1280), "472_Gemm_104_MatMul_dequantized", "output", '+');
    check("diablo_mobilenetv2_quant.onnx", (1000, 1280), "/Flatten_output_0", "output", '+');
}

#[test]
fn weights_in_another_file() {
    check("edge/rten_mnist_external/mnist.onnx", (10, 64), "view", "logits", '+');
    let Some(found) = find("edge/b07_mobilenet_v2_fp32_missing_external_data.onnx") else { return };
    let error = found.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    for part in ["classifier.1.weight", "mobilenet_v2_fp32.onnx.data", "fetch"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn refusals_say_why() {
    for (name, kind, part) in [
        ("akuras_dogs_vs_cats.onnx", ErrorKind::Unsupported, "one class"),
        ("tribuo_skl_lr_mnist.onnx", ErrorKind::Unsupported, "classical model"),
        ("edge/bennu_resnet18_lfs_pointer.onnx", ErrorKind::Malformed, "Git-LFS pointer"),
        ("edge/sangeeta_mobilenetv2-7.onnx", ErrorKind::Malformed, "web page"),
    ] {
        let Some(found) = find(name) else { continue };
        let error = found.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn the_head_of_the_paper_s_network_is_the_one_stored_beside_it() {
    let Some(found) = find("cifar10-densenet101.onnx") else { return };
    let stored = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/data/cifar10-densenet101/head.safetensors"
    ));
    if !stored.exists() {
        println!("skipped: no {}", stored.display());
        return;
    }
    let stored = dice_ood::io::Location::parse(&stored.display().to_string());
    assert_eq!(found.unwrap().head, dice_ood::io::read_head(&stored, None).unwrap());
}

#[test]
fn a_damaged_real_model_is_an_error_or_a_head() {
    let Some(path) = file("onnxzoo_mnist-8.onnx") else { return };
    let bytes = std::fs::read(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.onnx");
    for step in 1..200 {
        let end = bytes.len() * step / 200;
        let mut flipped = bytes.clone();
        flipped[end] ^= 1 << (step % 8);
        for content in [&bytes[..end], &flipped] {
            std::fs::write(&damaged, content).unwrap();
            if let Ok(model) = Model::open(&damaged) {
                let _ = model.describe();
            }
        }
    }
}
