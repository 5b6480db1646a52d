//! The newest messages of a room, without holes. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::Message;

/// A list of one (room, epoch).
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Number of the newest message; 0 in a room without messages.
    top: u64,
    /// Contiguous, ending at `top`.
    messages: VecDeque<Arc<Message>>,
}

impl History {
    /// `None`: the messages are not contiguous or do not reach the head.
    pub(super) fn new(head_seq: u64, messages: &[Message], max: usize) -> Option<Self> {
        let first = head_seq.checked_sub(messages.len() as u64)? + 1;
        if !numbered_from(first, messages) {
            return None;
        }
        let kept = &messages[messages.len().saturating_sub(max)..];
        Some(Self { top: head_seq, messages: kept.iter().cloned().map(Arc::new).collect() })
    }

    /// Adds what begins at top + 1; numbers the list has already are skipped. `false`: there
    /// is a hole, the list is of no use any more.
    pub(super) fn append(&mut self, messages: &[Message], max: usize) -> bool {
        let Some(first) = messages.first().map(|message| message.id.seq) else { return true };
        if first > self.top + 1 || !numbered_from(first, messages) {
            return false;
        }
        let new = messages.iter().filter(|message| message.id.seq > self.top);
        self.messages.extend(new.cloned().map(Arc::new));
        self.top = self.top.max(first + messages.len() as u64 - 1);
        while self.messages.len() > max {
            self.messages.pop_front();
        }
        true
    }

    /// The `count` messages before number `before`, with the top; `None`: they are not all
    /// here.
    pub(super) fn page(&self, before: u64, count: u32) -> Option<(u64, Vec<Arc<Message>>)> {
        let bottom = self.top - self.messages.len() as u64 + 1;
        let end = before.clamp(1, self.top + 1);
        let wanted_first = end.saturating_sub(u64::from(count)).max(1);
        if wanted_first < bottom && wanted_first < end || end < bottom {
            return None;
        }
        let from = usize::try_from(wanted_first - bottom.min(wanted_first)).ok()?;
        let to = usize::try_from(end - bottom).ok()?;
        Some((self.top, self.messages.range(from.min(to)..to).cloned().collect()))
    }

    pub(super) fn bytes(&self) -> usize {
        /// Ids, pointers, allocation heads of one message.
        const OVERHEAD: usize = 128;
        let texts =
            |message: &Message| message.content.len() + message.user_id.len() + message.username.len();
        self.messages.iter().map(|message| OVERHEAD + texts(message)).sum()
    }
}

fn numbered_from(first: u64, messages: &[Message]) -> bool {
    (first..).zip(messages).all(|(seq, message)| message.id.seq == seq)
}

#[cfg(test)]
mod tests {
    use corecast_proto::ids::MessageId;

    use super::*;

    fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<Message> {
        let message = |seq| Message {
            id: MessageId { ms: 1, seq },
            user_id: "u".to_owned(),
            username: "ann".to_owned(),
            content: seq.to_string(),
        };
        seqs.into_iter().map(message).collect()
    }

    fn list(seqs: std::ops::RangeInclusive<u64>) -> History {
        History::new(*seqs.end(), &messages(seqs), 512).expect("contiguous")
    }

    fn page(list: &History, before: u64, count: u32) -> Option<Vec<u64>> {
        list.page(before, count).map(|(_, page)| page.iter().map(|message| message.id.seq).collect())
    }

    #[test]
    fn a_page_is_given_only_where_the_list_holds_all_of_it() {
        let list = list(11..=20);
        assert_eq!(page(&list, u64::MAX, 3), Some(vec![18, 19, 20]));
        assert_eq!(page(&list, u64::MAX, 10), Some((11..=20).collect()));
        assert_eq!(page(&list, u64::MAX, 11), None);
        assert_eq!(page(&list, 21, 1), Some(vec![20]));
        assert_eq!(page(&list, 14, 3), Some(vec![11, 12, 13]));
        assert_eq!(page(&list, 14, 4), None);
        assert_eq!(page(&list, 11, 1), None);
        assert_eq!(page(&list, 5, 1), None);
    }

    #[test]
    fn a_list_that_reaches_number_one_answers_every_page() {
        let list = list(1..=3);
        assert_eq!(page(&list, u64::MAX, 30), Some(vec![1, 2, 3]));
        assert_eq!(page(&list, 2, 30), Some(vec![1]));
        assert_eq!(page(&list, 1, 30), Some(vec![]));
    }

    #[test]
    fn the_list_of_an_empty_room_is_empty_and_grows() {
        let mut list = History::new(0, &[], 512).expect("nothing is contiguous");
        assert_eq!(page(&list, u64::MAX, 30), Some(vec![]));
        assert!(list.append(&messages([1, 2]), 512));
        assert_eq!(page(&list, u64::MAX, 30), Some(vec![1, 2]));
    }

    #[test]
    fn a_list_must_be_contiguous_and_reach_the_head() {
        assert!(History::new(3, &messages([1, 3]), 512).is_none());
        assert!(History::new(4, &messages([2, 3]), 512).is_none());
        assert!(History::new(1, &messages([1, 2]), 512).is_none());
    }

    #[test]
    fn appending_skips_repeats_and_refuses_holes() {
        let mut list = list(1..=3);
        assert!(list.append(&messages([2, 3]), 512));
        assert!(list.append(&messages([3, 4]), 512));
        assert_eq!(page(&list, u64::MAX, 30), Some(vec![1, 2, 3, 4]));
        assert!(!list.append(&messages([6]), 512));
        assert!(!list.append(&messages([5, 7]), 512));
    }

    #[test]
    fn a_list_is_trimmed_from_the_oldest() {
        let mut list = History::new(3, &messages(1..=3), 2).expect("contiguous");
        assert_eq!(page(&list, u64::MAX, 2), Some(vec![2, 3]));
        assert!(list.append(&messages([4]), 2));
        assert_eq!(page(&list, u64::MAX, 2), Some(vec![3, 4]));
        assert_eq!(page(&list, u64::MAX, 3), None);
    }
}
