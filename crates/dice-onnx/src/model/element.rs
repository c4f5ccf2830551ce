//! Element types by their ONNX code; those not listed are named but not read.

pub(crate) const FLOAT: i32 = 1;
pub(crate) const UINT8: i32 = 2;
pub(crate) const INT8: i32 = 3;
pub(crate) const UINT16: i32 = 4;
pub(crate) const INT16: i32 = 5;
pub(crate) const INT32: i32 = 6;
pub(crate) const INT64: i32 = 7;
pub(crate) const BOOL: i32 = 9;
pub(crate) const FLOAT16: i32 = 10;
pub(crate) const DOUBLE: i32 = 11;
pub(crate) const UINT32: i32 = 12;
pub(crate) const UINT64: i32 = 13;
pub(crate) const BFLOAT16: i32 = 16;

/// Bytes of one value; `None` for types that are not read.
pub(crate) fn size(code: i32) -> Option<usize> {
    match code {
        UINT8 | INT8 | BOOL => Some(1),
        UINT16 | INT16 | FLOAT16 | BFLOAT16 => Some(2),
        FLOAT | INT32 | UINT32 => Some(4),
        INT64 | DOUBLE | UINT64 => Some(8),
        _ => None,
    }
}

/// The name, as in numpy where numpy has the type.
pub(crate) fn name(code: i32) -> String {
    let name = match code {
        FLOAT => "float32",
        UINT8 => "uint8",
        INT8 => "int8",
        UINT16 => "uint16",
        INT16 => "int16",
        INT32 => "int32",
        INT64 => "int64",
        8 => "string",
        BOOL => "bool",
        FLOAT16 => "float16",
        DOUBLE => "float64",
        UINT32 => "uint32",
        UINT64 => "uint64",
        14 => "complex64",
        15 => "complex128",
        BFLOAT16 => "bfloat16",
        17..=20 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        _ => return format!("type {code}"),
    };
    name.to_owned()
}

/// The values a quantised type can hold.
pub(crate) fn range(code: i32) -> Option<(i64, i64)> {
    match code {
        UINT8 => Some((0, 255)),
        INT8 => Some((-128, 127)),
        UINT16 => Some((0, 65_535)),
        INT16 => Some((-32_768, 32_767)),
        _ => None,
    }
}
