use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use dagmesh_core::limits::MAX_GROUP_CHECKED_HEADS;

use super::Group;
use crate::{
    head::{GroupHead, HeadError, LeafKey, Unverified},
    message::HeadList,
    tree::{self, Digest},
};

/// Heads of a message, checked; and, by place, the number that each of all its heads claims.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Those that could be news.
    pub(super) heads: Vec<GroupHead>,
    pub(super) numbers: BTreeMap<LeafKey, u64>,
    /// Some are not taken: no member's, of a session too old or too far in the future, or there is no room.
    pub(super) left_out: bool,
    /// Some are no member's.
    pub(super) foreign: bool,
}

/// The last heads whose signature was checked and that are no news any more: hashes of their bytes, at most
/// [`MAX_GROUP_CHECKED_HEADS`]. While several publish at once, each of their updates carries heads that were news a moment
/// ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    set: BTreeSet<Digest>,
    order: VecDeque<Digest>,
}

impl Recent {
    fn contains(&self, digest: &Digest) -> bool {
        self.set.contains(digest)
    }

    fn push(&mut self, digest: Digest) {
        if self.set.insert(digest) {
            self.order.push_back(digest);
        }
        if self.order.len() > MAX_GROUP_CHECKED_HEADS {
            self.order.pop_front().map(|oldest| self.set.remove(&oldest));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}

impl Group {
    /// Checks the heads of a message. A signature is looked at where the head could say anything new; where the message is
    /// to be `passed_on`, so is every other, for whoever knows less than we do would hold a false one against us.
    pub(super) fn check(&mut self, now: Instant, list: &HeadList, passed_on: bool) -> Result<Checked, HeadError> {
        let unix_ms = self.unix_ms(now);
        let mut checked = Checked::default();
        for bytes in list.iter() {
            let head = Unverified::parse(&self.config.group, bytes)?;
            let number = checked.numbers.entry(head.key).or_default();
            *number = head.sequence().max(*number);
            if !self.is_member(&head.producer) {
                (checked.left_out, checked.foreign) = (true, true);
                continue;
            }
            if self.state.refuses(unix_ms, &head.key).is_some() {
                checked.left_out = true;
                continue;
            }
            let known = self.state.get(&head.key);
            let (is_news, is_known) =
                known.map_or((true, false), |known| (head.is_news_to(known), known.encode() == &**bytes));
            let digest = tree::sha256(bytes);
            if is_news {
                checked.heads.push(head.verify()?);
                self.recent.push(digest);
            } else if passed_on && !is_known && !self.recent.contains(&digest) {
                head.verify()?;
                self.recent.push(digest);
            }
        }
        Ok(checked)
    }
}
