//! NPZ: a zip archive of NumPy's arrays, compressed.
//!
//! In: a [`Set`]. Out: an archive of one `.npy` an array and `metadata.npy`, a JSON text. Must not: write a time, which would make two files of
//! one request differ.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, CrcWriter};

use ergometer_suites::arrays::npy::header;

use super::array::SetArray;
use super::set::Set;

/// Writes a file.
pub fn write(set: &Set, file: &mut File) -> io::Result<()> {
    let mut zip = Zip { out: file, entries: Vec::new() };
    for array in SetArray::of(&set.shape, false) {
        let axes: Vec<String> = array.axes(set.examples as usize).iter().map(usize::to_string).collect();
        let kind = if array.width == 1 { "|u1".into() } else { format!("<u{}", array.width) };
        zip.entry(array.name, |out| {
            out.write_all(&header(&kind, &format!("({},)", axes.join(", ")))?)?;
            set.write(&array, out)
        })?;
    }
    let metadata = serde_json::to_string(&set.metadata()?)?;
    zip.entry("metadata", |out| {
        out.write_all(&header(&format!("|S{}", metadata.len()), "()")?)?;
        out.write_all(metadata.as_bytes())
    })?;
    zip.finish()
}

/// A zip archive being written, of less than 4 GiB.
struct Zip<'a> {
    out: &'a mut File,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    offset: u32,
    crc: u32,
    packed: u32,
    unpacked: u32,
}

impl Entry {
    /// What both headers of an entry have in common: versions, flags and method, 1 January 1980, check sum, sizes, lengths of name and extras.
    fn common(&self) -> Vec<u8> {
        let mut bytes = [20u16, 0, 8, 0, 0x21].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        [self.crc, self.packed, self.unpacked].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        [self.name.len() as u16, 0].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        bytes
    }

    fn local(&self) -> Vec<u8> {
        [b"PK\x03\x04", &self.common()[..], self.name.as_bytes()].concat()
    }

    fn central(&self) -> Vec<u8> {
        // no comment, first disk, no attributes
        [b"PK\x01\x02\x14\x00", &self.common()[..], &[0; 10], &self.offset.to_le_bytes()[..], self.name.as_bytes()]
            .concat()
    }
}

fn small(bytes: u64) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|_| {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 4 GiB, which NPZ does not hold here; choose .safetensors",
        )
    })
}

impl Zip<'_> {
    /// One file of the archive: its header is written before what it says is known, and again after.
    fn entry(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut CrcWriter<DeflateEncoder<BufWriter<&mut File>>>) -> io::Result<()>,
    ) -> io::Result<()> {
        let begin = self.out.stream_position()?;
        let mut entry = Entry { name: format!("{name}.npy"), offset: small(begin)?, crc: 0, packed: 0, unpacked: 0 };
        self.out.write_all(&entry.local())?;
        let data = self.out.stream_position()?;
        let packer = DeflateEncoder::new(BufWriter::with_capacity(1 << 20, &mut *self.out), Compression::new(6));
        let mut counted = CrcWriter::new(packer);
        fill(&mut counted)?;
        entry.crc = counted.crc().sum();
        // the check sum counts to 4 GiB and begins again
        let packer = counted.into_inner();
        entry.unpacked = small(packer.total_in())?;
        packer.finish()?.flush()?;
        let end = self.out.stream_position()?;
        entry.packed = small(end - data)?;
        self.out.seek(SeekFrom::Start(begin))?;
        self.out.write_all(&entry.local())?;
        self.out.seek(SeekFrom::Start(end))?;
        self.entries.push(entry);
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        let begin = small(self.out.stream_position()?)?;
        let central: Vec<u8> = self.entries.iter().flat_map(Entry::central).collect();
        let count = self.entries.len() as u16;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        [count, count].iter().for_each(|n| end.extend(n.to_le_bytes()));
        [central.len() as u32, begin].iter().for_each(|n| end.extend(n.to_le_bytes()));
        end.extend([0, 0]);
        self.out.write_all(&[central, end].concat())
    }
}
