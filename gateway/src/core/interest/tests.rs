//! A random history of lines and joins, told to streams that fall behind, against a list of
//! all sets that ever were.

use std::collections::BTreeSet;

use corecast_proto::ids::RoomId;
use corecast_proto::push;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Interest, InterestLimits, Teller};

const LIMITS: InterestLimits = InterestLimits { rooms: 12, changes: 6, message_rooms: 3 };

fn room(number: u32) -> RoomId {
    RoomId::from(format!("r{number}"))
}

/// What job makes of what it is told. `None`: everything is wanted.
#[derive(Default)]
struct Job {
    rooms: BTreeSet<String>,
    complete: bool,
}

impl Job {
    fn handle(&mut self, told: push::Interest) {
        if told.restart {
            *self = Self::default();
        }
        assert!(told.rooms.iter().all(|room| !told.gone.contains(room)), "{told:?}");
        assert!(told.rooms.len() + told.gone.len() <= LIMITS.message_rooms);
        self.rooms.extend(told.rooms);
        self.rooms.retain(|room| !told.gone.contains(room));
        self.complete |= told.complete;
    }

    fn wants(&self) -> Option<&BTreeSet<String>> {
        self.complete.then_some(&self.rooms)
    }
}

#[test]
fn job_holds_a_set_that_was_true_and_in_the_end_the_one_that_is() {
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut interest = Interest::new(LIMITS);
        let mut lines = [false; 16];
        let mut joins = [0_u32; 16];
        let mut sets: Vec<BTreeSet<String>> = vec![BTreeSet::new()];
        let mut streams: Vec<(Teller, Job)> = (0..3).map(|_| Default::default()).collect();
        for _ in 0..400 {
            let number = rng.random_range(0..16);
            let at = number as usize;
            match rng.random_range(0..10) {
                0..3 => {
                    lines[at] = !lines[at];
                    interest.handle_line(&room(number), lines[at]);
                }
                3..5 => {
                    joins[at] += 1;
                    interest.begin_join(&room(number));
                }
                5..7 if joins[at] > 0 => {
                    joins[at] -= 1;
                    interest.end_join(&room(number));
                }
                _ => {
                    let index = rng.random_range(0..streams.len());
                    let (teller, job) = &mut streams[index];
                    if let Some(told) = interest.poll_tell(teller) {
                        job.handle(told);
                    }
                    let wants = job.wants();
                    assert!(
                        wants.is_none_or(|wants| sets.contains(wants)),
                        "seed {seed}: {wants:?} was never wanted"
                    );
                }
            }
            let wanted = |number: &u32| lines[*number as usize] || joins[*number as usize] > 0;
            let set: BTreeSet<String> =
                (0..16).filter(wanted).map(|number| room(number).to_string()).collect();
            assert_eq!(interest.rooms(), set.len(), "seed {seed}");
            sets.push(set);
        }
        for (teller, job) in &mut streams {
            let mut messages = 0;
            while let Some(told) = interest.poll_tell(teller) {
                job.handle(told);
                messages += 1;
                assert!(messages < 50, "seed {seed}: it never ends");
            }
            match job.wants() {
                Some(wants) => assert_eq!(wants, sets.last().expect("one"), "seed {seed}"),
                // Above, or not far enough below.
                None => assert!(interest.rooms() > LIMITS.rooms - LIMITS.rooms / 8, "seed {seed}"),
            }
        }
    }
}

#[test]
fn too_many_rooms_want_everything_and_fewer_are_told_from_the_beginning() {
    let mut interest = Interest::new(LIMITS);
    let (mut teller, mut job) = (Teller::default(), Job::default());
    let mut tell = |interest: &Interest, job: &mut Job| {
        while let Some(told) = interest.poll_tell(&mut teller) {
            job.handle(told);
        }
        teller.restarts()
    };
    (0..12).for_each(|number| interest.handle_line(&room(number), true));
    assert_eq!((tell(&interest, &mut job), job.wants().is_some()), (0, false), "not begun so near the limit");
    interest.handle_line(&room(0), false);
    assert_eq!((tell(&interest, &mut job), job.wants().map(BTreeSet::len)), (0, Some(11)));
    (12..14).for_each(|number| interest.handle_line(&room(number), true));
    assert_eq!((tell(&interest, &mut job), job.wants().is_some()), (1, false));
    (1..4).for_each(|number| interest.handle_line(&room(number), false));
    assert_eq!((tell(&interest, &mut job), job.wants().map(BTreeSet::len)), (1, Some(10)));
}

#[test]
fn stream_that_falls_behind_begins_again() {
    let mut interest = Interest::new(LIMITS);
    let (mut teller, mut job) = (Teller::default(), Job::default());
    interest.handle_line(&room(1), true);
    while let Some(told) = interest.poll_tell(&mut teller) {
        job.handle(told);
    }
    for _ in 0..4 {
        interest.begin_join(&room(2));
        interest.end_join(&room(2));
    }
    job.handle(interest.poll_tell(&mut teller).expect("changes were lost"));
    assert!(job.wants().is_none(), "everything meanwhile");
    while let Some(told) = interest.poll_tell(&mut teller) {
        job.handle(told);
    }
    assert_eq!(job.wants().map(BTreeSet::len), Some(1));
    assert_eq!(teller.restarts(), 1);
}

#[test]
fn limit_of_no_rooms_wants_everything_for_ever() {
    let mut interest = Interest::new(InterestLimits { rooms: 0, ..LIMITS });
    let mut teller = Teller::default();
    assert_eq!(interest.poll_tell(&mut teller), None);
    interest.handle_line(&room(1), true);
    assert_eq!(interest.poll_tell(&mut teller), None);
}

#[test]
fn room_is_wanted_from_the_first_reason_to_the_last() {
    let mut interest = Interest::new(InterestLimits::default());
    let id = room(1);
    interest.begin_join(&id);
    interest.handle_line(&id, true);
    interest.begin_join(&id);
    interest.end_join(&id);
    interest.end_join(&id);
    assert!(interest.contains(&id), "its line is open");
    interest.handle_line(&id, false);
    assert!(!interest.contains(&id));
    assert_eq!(interest.version(), 2, "it came and went once");
}
