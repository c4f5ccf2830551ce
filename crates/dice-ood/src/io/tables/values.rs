//! Values of Arrow arrays as features, labels and ids.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::error::{Error, ErrorKind, Result};
use crate::features::Ids;
use crate::io::budget::checked_id;
use crate::io::whole::whole;

pub(super) fn list_width(column: &ArrayRef) -> Option<usize> {
    match column.data_type() {
        DataType::FixedSizeList(_, width) => usize::try_from(*width).ok(),
        DataType::List(_) => (!column.is_empty()).then(|| column.as_list::<i32>().value_length(0) as usize),
        DataType::LargeList(_) => (!column.is_empty()).then(|| column.as_list::<i64>().value_length(0) as usize),
        _ => None,
    }
}

/// The values of a column of lists, and the length of each list; `None` for a column of something else.
pub(super) fn lists_of(column: &ArrayRef) -> Option<(ArrayRef, Vec<usize>)> {
    // A slice may keep the values of all rows of its array: only those of the slice are taken.
    Some(match column.data_type() {
        DataType::FixedSizeList(_, _) => {
            let lists = column.as_fixed_size_list();
            let width = lists.value_length() as usize;
            (lists.values().slice(lists.offset() * width, lists.len() * width), vec![width; lists.len()])
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let (offsets, lengths) =
                (lists.value_offsets(), (0..lists.len()).map(|row| lists.value_length(row) as usize));
            let values = lists.values().slice(offsets[0] as usize, (offsets[lists.len()] - offsets[0]) as usize);
            (values, lengths.collect())
        }
        DataType::LargeList(_) => {
            let lists = column.as_list::<i64>();
            let (offsets, lengths) =
                (lists.value_offsets(), (0..lists.len()).map(|row| lists.value_length(row) as usize));
            let values = lists.values().slice(offsets[0] as usize, (offsets[lists.len()] - offsets[0]) as usize);
            (values, lengths.collect())
        }
        _ => return None,
    })
}

/// Appends a column of lists of `units` numbers, or of plain numbers where `units` is 1.
pub(super) fn append_lists(column: &ArrayRef, units: usize, first_row: u64, out: &mut Vec<f32>) -> Result<()> {
    let no_nulls = |column: &dyn Array| match (0..column.len()).find(|row| column.is_null(*row)) {
        Some(row) => Err(null(first_row + row as u64)),
        None => Ok(()),
    };
    let check = |row: usize, width: usize| {
        if width == units {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Shape, format!("a list of {width} at row {}", first_row + row as u64))
            .expected(format!("lists of {units} values, as in the first row")))
    };
    no_nulls(column)?;
    let before = out.len();
    let values = match lists_of(column) {
        Some((values, lengths)) => {
            lengths.iter().enumerate().try_for_each(|(row, length)| check(row, *length))?;
            values
        }
        None => Arc::clone(column),
    };
    numbers(&values, first_row, units, |value| out.push(value as f32))?;
    debug_assert_eq!(out.len() - before, column.len() * units);
    Ok(())
}

/// Hands out the numbers of a primitive column, `width` of them a row; a null is an error.
pub(super) fn numbers(column: &ArrayRef, first_row: u64, width: usize, mut take: impl FnMut(f64)) -> Result<()> {
    let values = if column.null_count() > 0 { column.len() } else { 0 };
    if let Some(place) = (0..values).find(|place| column.is_null(*place)) {
        return Err(null(first_row + (place / width) as u64));
    }
    macro_rules! each {
        ($type:ty, $convert:expr) => {
            column.as_primitive::<$type>().values().iter().for_each(|value| take($convert(*value)))
        };
    }
    match column.data_type() {
        DataType::Float16 => each!(Float16Type, f64::from),
        DataType::Float32 => each!(Float32Type, f64::from),
        DataType::Float64 => each!(Float64Type, |value: f64| value),
        DataType::Int8 => each!(Int8Type, f64::from),
        DataType::Int16 => each!(Int16Type, f64::from),
        DataType::Int32 => each!(Int32Type, f64::from),
        DataType::Int64 => each!(Int64Type, |value: i64| value as f64),
        DataType::UInt8 => each!(UInt8Type, f64::from),
        DataType::UInt16 => each!(UInt16Type, f64::from),
        DataType::UInt32 => each!(UInt32Type, f64::from),
        DataType::UInt64 => each!(UInt64Type, |value: u64| value as f64),
        other => {
            return Err(Error::new(ErrorKind::Unsupported, format!("a column of {other}"))
                .expected("numbers, or lists of numbers"));
        }
    }
    Ok(())
}

/// An empty list of ids, of the type of the ids in `column`.
pub(super) fn no_ids(column: &ArrayRef) -> Ids {
    match column.data_type() {
        DataType::Dictionary(_, _) => no_ids(column.as_any_dictionary().values()),
        DataType::UInt64 => Ids::Unsigned(Vec::new()),
        other if other.is_numeric() => Ids::Integer(Vec::new()),
        _ => Ids::Text(Vec::new()),
    }
}

pub(super) fn append_ids(column: &ArrayRef, first_row: u64, ids: &mut Ids) -> Result<()> {
    let rows = 0..column.len();
    if let Some(row) = rows.clone().find(|row| column.is_null(*row)) {
        return Err(null(first_row + row as u64));
    }
    if let DataType::Dictionary(_, _) = column.data_type() {
        let dictionary = column.as_any_dictionary();
        let mut values = no_ids(dictionary.values());
        append_ids(dictionary.values(), 0, &mut values)?;
        let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
        match (ids, &values) {
            (Ids::Text(all), Ids::Text(values)) => all.extend(keys.into_iter().map(|key| values[key].clone())),
            (Ids::Integer(all), Ids::Integer(values)) => all.extend(keys.into_iter().map(|key| values[key])),
            (Ids::Unsigned(all), Ids::Unsigned(values)) => all.extend(keys.into_iter().map(|key| values[key])),
            _ => {}
        }
        return Ok(());
    }
    match ids {
        Ids::Text(all) => rows.into_iter().try_for_each(|row| {
            let number = first_row + row as u64;
            let text = text(column, row).ok_or_else(|| unreadable_id(column, number))?;
            all.push(checked_id(text, number)?.into_owned());
            Ok(())
        }),
        Ids::Unsigned(all) => {
            all.extend(column.as_primitive::<UInt64Type>().values());
            Ok(())
        }
        Ids::Integer(all) => match column.data_type() {
            DataType::Int64 => {
                all.extend(column.as_primitive::<Int64Type>().values());
                Ok(())
            }
            _ => {
                let (mut row, mut odd) = (first_row, None);
                numbers(column, first_row, 1, |value| {
                    match whole(value) {
                        Some(number) => all.push(number),
                        None => odd = odd.or(Some(row)),
                    }
                    row += 1;
                })?;
                odd.map_or(Ok(()), |row| Err(unreadable_id(column, row)))
            }
        },
    }
}

/// The text at `row` of a column of text, or of the bytes that some writers keep text and UUIDs in.
fn text(column: &ArrayRef, row: usize) -> Option<Cow<'_, str>> {
    let bytes = match column.data_type() {
        DataType::Utf8 => return Some(column.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => return Some(column.as_string::<i64>().value(row).into()),
        DataType::Utf8View => return Some(column.as_string_view().value(row).into()),
        DataType::FixedSizeBinary(16) => return Some(uuid(column.as_fixed_size_binary().value(row)).into()),
        DataType::Binary => column.as_binary::<i32>().value(row),
        DataType::LargeBinary => column.as_binary::<i64>().value(row),
        DataType::BinaryView => column.as_binary_view().value(row),
        _ => return None,
    };
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

/// Sixteen bytes as UUIDs are written.
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unreadable_id(column: &ArrayRef, row: u64) -> Error {
    Error::new(ErrorKind::Unsupported, format!("a value of {} at row {row}", column.data_type()))
        .expected("ids that are text or whole numbers")
}

pub(super) fn null(row: u64) -> Error {
    Error::new(ErrorKind::NotFinite, format!("null at row {row}")).expected("a value in every row")
}
