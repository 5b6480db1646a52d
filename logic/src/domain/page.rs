//! Which page of history may be believed.
//!
//! A cache or a replica may be behind, and a cached list may have a hole. A page from
//! either counts only if it is contiguous, ends where it must, and begins early enough.

use corecast_backends::store::Message;

/// Do these messages answer "at most `count` messages before number `before`" completely?
/// They must run without a hole up to `before − 1`, and be `count` or reach number 1.
pub fn is_complete(messages: &[Message], before: u64, count: u32) -> bool {
    let Some(first) = messages.first() else {
        return before <= 1;
    };
    let contiguous = messages.windows(2).all(|pair| pair[0].id.seq + 1 == pair[1].id.seq);
    let reaches = messages.last().is_some_and(|last| last.id.seq.checked_add(1) == Some(before));
    let enough = messages.len() == count as usize || (first.id.seq == 1 && messages.len() < count as usize);
    contiguous && reaches && enough
}

/// Do these messages run without a hole from `after + 1` on?
pub fn follows(messages: &[Message], after: u64) -> bool {
    messages.iter().zip(after + 1..).all(|(message, seq)| message.id.seq == seq)
}

#[cfg(test)]
mod tests {
    use corecast_proto::ids::MessageId;

    use super::*;

    fn page(seqs: impl IntoIterator<Item = u64>) -> Vec<Message> {
        seqs.into_iter()
            .map(|seq| Message {
                id: MessageId { ms: 1, seq },
                user_id: String::new(),
                username: String::new(),
                content: String::new(),
            })
            .collect()
    }

    #[test]
    fn a_page_must_reach_where_it_was_asked_to_end() {
        assert!(is_complete(&page(11..=20), 21, 10));
        assert!(!is_complete(&page(10..=19), 21, 10));
        assert!(!is_complete(&page(12..=21), 21, 10));
    }

    #[test]
    fn a_short_page_must_begin_at_the_first_message() {
        assert!(is_complete(&page(1..=5), 6, 10));
        assert!(!is_complete(&page(2..=5), 6, 10));
        assert!(is_complete(&page([]), 1, 10));
        assert!(!is_complete(&page([]), 2, 10));
    }

    #[test]
    fn a_hole_or_too_many_messages_void_a_page() {
        assert!(!is_complete(&page([1, 2, 4, 5]), 6, 10));
        assert!(!is_complete(&page(1..=11), 12, 10));
    }

    #[test]
    fn a_forward_page_begins_right_after_the_place() {
        assert!(follows(&page(6..=9), 5));
        assert!(follows(&page([]), 5));
        assert!(!follows(&page(7..=9), 5));
        assert!(!follows(&page([6, 8]), 5));
    }
}
