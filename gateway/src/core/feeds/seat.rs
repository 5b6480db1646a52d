//! One connection's memberships: the default rooms as one number, the first other room in
//! place, and a box only for whoever is in more rooms or has missed something.
//!
//! Places are numbered from 0 without holes; a removal moves the last one into the gap.

use super::lag::Lag;

/// 24 bytes a connection.
pub(super) struct Seat {
    /// Serial in the everyone feed, [`ABSENT`] while not open.
    pub(super) at: u64,
    /// Place 0, [`Place::NONE`] without one.
    first: Place,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// Places from 1 on.
    places: Vec<Place>,
    lag: Option<Box<Lag>>,
}

/// A connection's end of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) room: u32,
    /// Index among the room's members.
    pub(super) member: u32,
}

impl Place {
    /// No room has this number. An option would take four bytes more.
    const NONE: Self = Self { room: u32::MAX, member: u32::MAX };

    fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl Seat {
    pub(super) const fn absent() -> Self {
        Self { at: ABSENT, first: Place::NONE, more: None }
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let rest = self.more.as_ref().map_or(&[][..], |more| &more.places);
        std::iter::once(self.first).filter(|first| first.is_some()).chain(rest.iter().copied())
    }

    pub(super) fn place_count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.places.len())
    }

    pub(super) fn place_mut(&mut self, at: usize) -> Option<&mut Place> {
        match at.checked_sub(1) {
            None => Some(&mut self.first).filter(|first| first.is_some()),
            Some(at) => self.more.as_mut()?.places.get_mut(at),
        }
    }

    /// Takes the place whose number is the count so far.
    pub(super) fn push_place(&mut self, place: Place) {
        if self.first.is_some() {
            self.more.get_or_insert_default().places.push(place);
        } else {
            self.first = place;
        }
    }

    /// Removes place `at`, which the last one takes over.
    pub(super) fn swap_remove_place(&mut self, at: usize) -> Option<Place> {
        let last = match self.more.as_mut().and_then(|more| more.places.pop()) {
            Some(last) => last,
            None => std::mem::replace(&mut self.first, Place::NONE),
        };
        match self.place_mut(at) {
            Some(gone) => Some(std::mem::replace(gone, last)),
            None => Some(last).filter(|last| last.is_some()),
        }
    }

    pub(super) fn lag(&self) -> Option<&Lag> {
        self.more.as_ref()?.lag.as_deref()
    }

    pub(super) fn lag_mut(&mut self) -> Option<&mut Lag> {
        self.more.as_mut()?.lag.as_deref_mut()
    }

    pub(super) fn take_lag(&mut self) -> Option<Box<Lag>> {
        self.more.as_mut()?.lag.take()
    }

    pub(super) fn set_lag(&mut self, lag: Box<Lag>) {
        self.more.get_or_insert_default().lag = Some(lag);
    }

    /// Frees what is empty.
    pub(super) fn shrink(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.lag.is_none() && more.places.is_empty()) {
            self.more = None;
        }
    }
}

/// A slot that is not open: above every head, so that no pass names it.
pub(super) const ABSENT: u64 = u64::MAX;

const _: () = assert!(size_of::<Seat>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_place_is_taken_over_by_the_last_one() {
        let place = |room| Place { room, member: 10 * room };
        for count in 1..5u32 {
            for gone in 0..count {
                let mut seat = Seat::absent();
                let mut model: Vec<Place> = (0..count).map(place).collect();
                model.iter().for_each(|place| seat.push_place(*place));
                assert_eq!(seat.swap_remove_place(gone as usize), Some(model.swap_remove(gone as usize)));
                assert!(seat.places().eq(model.iter().copied()), "{gone} of {count}");
                assert_eq!(seat.place_count(), model.len());
                assert_eq!(seat.place_mut(model.len()), None);
                seat.shrink();
                assert_eq!(seat.more.is_some(), model.len() > 1);
            }
        }
        assert_eq!(Seat::absent().swap_remove_place(0), None);
    }
}
