//! Maps of sparse files.
//!
//! For: the regions of data of the four sparse formats of GNU tar (old GNU, PAX 0.0, 0.1, 1.0).
//! Trusts: nothing; a map that does not fit its file refuses the archive.
//! Never: allocates by a count that the archive names.

use super::pax::{SparseRecords, decimal};
use crate::bounds::Bounds;
use crate::error::{Error, Result};

/// Where the data of a sparse file lies, in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Bytes of the file, holes included.
    pub(crate) size: u64,
    /// Offset and length of each region.
    pub(crate) regions: Vec<(u64, u64)>,
}

fn malformed() -> Error {
    Error::archive("the map of the sparse file is malformed")
}

/// Adds a region to a map that may have `bounds.regions` of them.
pub(crate) fn push(
    regions: &mut Vec<(u64, u64)>,
    region: (u64, u64),
    bounds: &Bounds,
) -> Result<()> {
    if regions.len() >= bounds.regions {
        return Err(Error::Bound(format!(
            "the sparse file has more than {} regions of data",
            bounds.regions
        )));
    }
    regions.push(region);
    Ok(())
}

impl Sparse {
    /// Checks that the regions ascend, lie within the file and are `stored` bytes together.
    pub(crate) fn new(size: u64, regions: Vec<(u64, u64)>, stored: u64) -> Result<Self> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &regions {
            if *offset < end {
                return Err(malformed());
            }
            end = offset.checked_add(*length).ok_or_else(malformed)?;
            sum = sum.checked_add(*length).ok_or_else(malformed)?;
        }
        if end > size || sum != stored {
            return Err(malformed());
        }
        Ok(Self { size, regions })
    }

    /// The map of formats 0.0 and 0.1, which is in the records alone.
    pub(crate) fn from_records(
        records: &SparseRecords,
        stored: u64,
        bounds: &Bounds,
    ) -> Result<Option<Self>> {
        let values = match (&records.map, records.pairs.is_empty()) {
            (None, true) if records.real_size.is_none() => return Ok(None),
            // Nothing but a hole.
            (None, true) => Vec::new(),
            (None, false) => records.pairs.clone(),
            (Some(map), true) => {
                let values = map.split(|byte| *byte == b',').map(decimal);
                values.collect::<Option<Vec<u64>>>().ok_or_else(malformed)?
            }
            (Some(_), false) => return Err(malformed()),
        };
        let mut regions = Vec::new();
        for pair in values.chunks(2) {
            let [offset, length] = pair else { return Err(malformed()) };
            push(&mut regions, (*offset, *length), bounds)?;
        }
        let size = records.real_size.ok_or_else(malformed)?;
        Self::new(size, regions, stored).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::Sparse;

    #[test]
    fn a_map_fits_its_file() {
        let map = |regions: &[(u64, u64)], stored| Sparse::new(100, regions.to_vec(), stored);
        assert!(map(&[(0, 10), (10, 10), (90, 10), (100, 0)], 30).is_ok());
        assert!(map(&[], 0).is_ok());
        assert!(map(&[(0, 10), (5, 10)], 20).is_err(), "overlap");
        assert!(map(&[(50, 10), (0, 10)], 20).is_err(), "order");
        assert!(map(&[(95, 10)], 10).is_err(), "beyond the end");
        assert!(map(&[(0, 10)], 11).is_err(), "other sum");
        assert!(map(&[(u64::MAX, 2)], 2).is_err(), "overflow");
    }
}
