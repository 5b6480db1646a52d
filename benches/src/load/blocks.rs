//! Readings that were understood before. All members of a room get the same bytes, so most
//! readings are the same as one of another connection a moment ago: comparing 4 KiB takes a
//! tenth of a microsecond, taking 32 frames apart twenty times that, and the client must stay
//! ahead of the server. Equal bytes are equal frames; whether they follow what the connection
//! got before is checked for each connection.

/// What a reading of nothing but whole messages in a row held.
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Its first number, and its last.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Moments its messages were intended for, each with how many had it in a row.
    pub(super) intended: Vec<(u64, u64)>,
}

/// The newest blocks.
#[derive(Default)]
pub(super) struct Blocks {
    known: Vec<Block>,
    /// The oldest, once all places are taken.
    next: usize,
}

impl Blocks {
    /// The block with these bytes.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<&Block> {
        self.known.iter().find(|block| block.bytes == bytes)
    }

    /// Remembers one. Large ones are rare, and copying them gains nothing.
    pub(super) fn remember(&mut self, bytes: &[u8], first: u64, last: u64, intended: &[(u64, u64)]) {
        if bytes.len() > BLOCK_BYTES {
            return;
        }
        if self.known.len() < KNOWN {
            self.known.push(Block { bytes: bytes.to_vec(), first, last, intended: intended.to_vec() });
            return;
        }
        // Buffers stay.
        let block = &mut self.known[self.next];
        self.next = (self.next + 1) % KNOWN;
        block.bytes.clear();
        block.bytes.extend_from_slice(bytes);
        block.intended.clear();
        block.intended.extend_from_slice(intended);
        (block.first, block.last) = (first, last);
    }
}

/// Blocks known: connections of one round of events are at most a few writes apart.
const KNOWN: usize = 16;
const BLOCK_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_all_its_bytes_until_newer_ones_take_its_place() {
        let mut blocks = Blocks::default();
        blocks.remember(b"abc", 1, 3, &[(5, 3)]);
        assert_eq!(blocks.find(b"abc").map(|block| (block.first, block.last)), Some((1, 3)));
        assert!(blocks.find(b"abd").is_none() && blocks.find(b"ab").is_none());
        (0..KNOWN as u64).for_each(|number| blocks.remember(&number.to_le_bytes(), number, number, &[]));
        assert!(blocks.find(b"abc").is_none());
        assert!(blocks.find(&0u64.to_le_bytes()).is_some());
        blocks.remember(&[0; BLOCK_BYTES + 1], 1, 1, &[]);
        assert!(blocks.find(&[0; BLOCK_BYTES + 1]).is_none());
    }
}
