//! Archives that no program would make.

/// A header, field by field, with a right checksum.
#[derive(Debug, Clone)]
pub(crate) struct Header([u8; 512]);

impl Header {
    /// A ustar header.
    pub(crate) fn new(kind: u8, name: &str) -> Self {
        let mut block = [0; 512];
        block[257..265].copy_from_slice(b"ustar\x0000");
        let mut header = Self(block);
        header.0[156] = kind;
        header
            .field(0, 100, name.as_bytes())
            .octal(100, 8, if kind == b'5' { 0o755 } else { 0o644 })
            .octal(108, 8, 0)
            .octal(116, 8, 0)
            .octal(124, 12, 0)
            .octal(136, 12, 0)
    }

    /// Puts bytes at an offset.
    pub(crate) fn field(mut self, at: usize, len: usize, value: &[u8]) -> Self {
        let count = value.len().min(len);
        self.0[at..at + len].fill(0);
        self.0[at..at + count].copy_from_slice(&value[..count]);
        self
    }

    /// Puts a number in octal.
    pub(crate) fn octal(self, at: usize, len: usize, value: u64) -> Self {
        let text = format!("{value:0width$o}", width = len - 1);
        self.field(at, len, text.as_bytes())
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub(crate) fn link(self, target: &str) -> Self {
        self.field(157, 100, target.as_bytes())
    }

    pub(crate) fn gnu(self) -> Self {
        self.field(257, 8, b"ustar  \0")
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum).0.to_vec()
    }
}

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes in whole blocks.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn add(self, header: Header) -> Self {
        self.raw(&header.bytes())
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.add(Header::new(b'0', name).size(content.len() as u64)).raw(content)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.add(Header::new(b'5', name))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(Header::new(b'2', name).link(target))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(Header::new(b'1', name).link(target))
    }

    pub(crate) fn device(self, name: &str) -> Self {
        self.add(Header::new(b'3', name).octal(329, 8, 1).octal(337, 8, 3))
    }

    /// A header that describes the next member.
    pub(crate) fn extension(self, kind: u8, data: &[u8]) -> Self {
        self.add(Header::new(kind, "extension").size(data.len() as u64)).raw(data)
    }

    /// PAX records for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let records: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extension(b'x', &records)
    }

    /// With the end marker.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// A PAX record, whose length counts itself.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
