//! Lengths of lists in Parquet pages, counted before their values are decoded.

use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::errors::ParquetError;

/// Counts the values of lists from their repetition levels: 0 begins a list, 1 goes on with it.
pub(super) struct ListWidths {
    pub(super) widest: usize,
    /// Of the list that the last page may have left open.
    pub(super) width: usize,
}

impl ListWidths {
    pub(super) fn count_page(&mut self, page: &Page) -> parquet::errors::Result<()> {
        let cut_short = || ParquetError::General("levels cut short".into());
        let (levels, values) = match page {
            Page::DataPage { buf, num_values, rep_level_encoding: Encoding::RLE, .. } => {
                let length = buf.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
                let levels = length.and_then(|length| buf.get(4..)?.get(..length));
                (levels.ok_or_else(cut_short)?, *num_values)
            }
            Page::DataPage { .. } => {
                return Err(ParquetError::General("levels in an encoding that is no longer used".into()));
            }
            Page::DataPageV2 { buf, num_values, rep_levels_byte_len, .. } => {
                (buf.get(..*rep_levels_byte_len as usize).ok_or_else(cut_short)?, *num_values)
            }
            Page::DictionaryPage { .. } => return Ok(()),
        };
        self.count(levels, values as usize).ok_or_else(cut_short)?;
        if self.width > self.widest {
            return Err(ParquetError::General(format!("a list of more than {} values", self.widest)));
        }
        Ok(())
    }

    /// Goes through runs and packed groups of levels of one bit; stops at a list that is too wide.
    fn count(&mut self, mut levels: &[u8], mut values: usize) -> Option<()> {
        while values > 0 && self.width <= self.widest {
            let header = varint(&mut levels)?;
            let count = usize::try_from(header >> 1).ok()?;
            if header & 1 == 0 {
                let (level, rest) = levels.split_first()?;
                levels = rest;
                let count = count.min(values);
                values -= count;
                self.width = match (level, count) {
                    (_, 0) => return None,
                    (0, _) => 1,
                    _ => self.width.saturating_add(count),
                };
                continue;
            }
            // The last group may be cut where its values end.
            let (bytes, rest) = levels.split_at(count.min(levels.len()));
            levels = rest;
            if bytes.is_empty() {
                return None;
            }
            for byte in bytes {
                let bits = values.min(8);
                values -= bits;
                self.count_byte(*byte, bits);
                if self.width > self.widest {
                    return Some(());
                }
            }
        }
        Some(())
    }

    /// Up to eight levels, of which the first is the lowest bit.
    fn count_byte(&mut self, byte: u8, bits: usize) {
        for bit in 0..bits {
            if byte >> bit & 1 == 1 {
                self.width += 1;
            } else if self.width <= self.widest {
                self.width = 1;
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::tables::pages::PageHeader;

    /// A run of levels, and levels packed by eight, the first of each byte lowest.
    fn run(count: u8, level: u8) -> Vec<u8> {
        vec![count << 1, level]
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        [&[(bytes.len() as u8) << 1 | 1], bytes].concat()
    }

    fn width(pages: &[(Vec<u8>, usize)], widest: usize) -> Option<usize> {
        let mut lists = ListWidths { widest, width: 0 };
        pages.iter().try_for_each(|(levels, values)| lists.count(levels, *values))?;
        Some(lists.width)
    }

    #[test]
    fn lists_are_as_wide_as_their_levels_say() {
        let ten = [run(1, 0), run(9, 1)].concat();
        assert_eq!(width(&[(ten.clone(), 10)], 10), Some(10));
        assert_eq!(width(&[([&ten[..], &run(1, 1)].concat(), 11)], 10), Some(11));
        // A list that another follows, one that goes on in the next page, and one that ends within a byte.
        assert_eq!(width(&[([&ten[..], &run(3, 0), &run(1, 1)].concat(), 14)], 10), Some(2));
        assert_eq!(width(&[(ten.clone(), 10), (run(5, 1), 5)], 100), Some(15));
        assert_eq!(width(&[(packed(&[0b1111_1110, 0b0001_1011]), 13)], 100), Some(3));
        // Too wide, though a short one ends the page.
        let wide = packed(&[0b1111_1110, 0xff, 0xff, 0b0000_0011]);
        assert!(width(&[(wide, 32)], 10).unwrap() > 10);
        assert!(width(&[(packed(&[0b1111_1110, 0b0000_0111]), 16)], 10).unwrap() > 10);
        assert_eq!(width(&[(ten, 11)], 10), None);
        assert_eq!(width(&[(run(0, 1), 1)], 10), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_header_of_a_page_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(header) = PageHeader::read(&mut &bytes[..], bytes.len() as u64) {
                prop_assert!(header.length <= bytes.len() as u64 && header.bytes >= header.compressed);
            }
            let mut lists = ListWidths { widest: 20, width: 0 };
            let _ = lists.count(&bytes, 1 << 40);
        }
    }
}
