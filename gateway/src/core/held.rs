//! What came behind a text that had to wait. Few connections have any, so it is kept by slot,
//! beside the connections.
//!
//! A socket is not read while anything is held, and what is held is packed: a length and the
//! bytes of each text, which is never more than what they were read from. So a connection
//! holds at most one read and one message, however small its frames are.

use std::collections::HashMap;

/// By slot. Whoever has some has as many unsettled texts as it may.
pub(super) type HeldBySlot = HashMap<u32, Held>;

/// Texts that wait, and the close behind them if one came.
#[derive(Default)]
pub(super) struct Held {
    texts: Vec<u8>,
    /// Where the next one begins.
    next: usize,
    /// Code, and whether a message was left unfinished.
    pub(super) close: Option<(Option<u16>, bool)>,
}

impl Held {
    /// Behind the others.
    pub(super) fn push(&mut self, text: &[u8]) {
        // A message fits in 32 bits: its limit is far below.
        self.texts.extend_from_slice(&(text.len() as u32).to_ne_bytes());
        self.texts.extend_from_slice(text);
    }

    /// The oldest one.
    pub(super) fn pop(&mut self) -> Option<Box<[u8]>> {
        let (length, rest) = self.texts[self.next..].split_first_chunk()?;
        let length = u32::from_ne_bytes(*length) as usize;
        self.next += size_of::<u32>() + length;
        Some(rest[..length].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in_and_take_no_more_than_their_frames_did() {
        let mut held = Held::default();
        let texts: Vec<String> = (0..9_000).map(|number| "x".repeat(number % 3)).collect();
        texts.iter().for_each(|text| held.push(text.as_bytes()));
        // A frame of a client has at least six bytes beside its payload.
        let read: usize = texts.iter().map(|text| text.len() + 6).sum();
        assert!(held.texts.len() <= read);
        for text in &texts {
            assert_eq!(held.pop().as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(held.pop(), None);
    }
}
