/// The bytes of a run, taken piece by piece; zeros once they are used up.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A number below `n`; 0 where `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// At most `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Text of at most `n` bytes, cut where it is none.
    pub(crate) fn text(&mut self, n: usize) -> &'a str {
        let taken = self.take(n);
        match std::str::from_utf8(taken) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&taken[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
